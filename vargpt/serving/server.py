"""The server as one object: endpoints, errors, counters, and the door before them.

In: settings, and a scheduler that owns the model. Out: an app for any ASGI server; nothing starts until it is served.
Needs `pip install 'vargpt[serve]'`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from vargpt.chat.scheduler import Scheduler
from vargpt.pictures.album import software
from vargpt.serving import chat, images
from vargpt.serving.answers import ERRORS, HealthAnswer, ModelAnswer, ModelsAnswer, answers_with
from vargpt.serving.auth import Door
from vargpt.serving.errors import add_handlers
from vargpt.serving.metrics import Metrics
from vargpt.serving.picture_store import Gallery
from vargpt.serving.service import Service
from vargpt.serving.settings import ServeSettings
from vargpt.serving.trust.safety import Guard

router = APIRouter()


def make_app(settings: ServeSettings, scheduler: Scheduler, gallery: Gallery | None = None) -> FastAPI:
    """An app that answers with this scheduler's model; whoever made the scheduler closes it.

    A safety check in the settings is guarded: when it breaks, nothing is answered. `gallery` is given where several
    servers share what they drew.
    """
    if settings.safety is not None and not isinstance(settings.safety, Guard):
        settings = replace(settings, safety=Guard(settings.safety, type(settings.safety).__name__))
    metrics = Metrics(scheduler)
    if gallery is None:
        gallery = Gallery(settings.keep_seconds, settings.keep_bytes)
    # The pages that show the endpoints fetch their scripts from other hosts; /openapi.json has the same to say.
    version = software().removeprefix("vargpt").strip()
    app = FastAPI(title="vargpt", version=version, docs_url=None, redoc_url=None, responses=ERRORS)
    app.state.service = Service(settings, scheduler, metrics, gallery)
    for part in (router, chat.router, images.router):
        app.include_router(part)
    add_handlers(app)
    app.add_middleware(Door, settings=settings, metrics=metrics)
    if settings.origins:  # outermost: browsers ask for permission without a key
        app.add_middleware(
            CORSMiddleware, allow_origins=list(settings.origins), allow_methods=["*"], allow_headers=["*"],
            expose_headers=["x-request-id"],
        )  # fmt: skip
    return app


@router.get("/v1/models", responses=answers_with(ModelsAnswer))
async def models(request: Request) -> dict[str, Any]:
    """What may stand in the field model."""
    service: Service = request.app.state.service
    return {"object": "list", "data": [describe(service, name) for name in service.models]}


@router.get("/v1/models/{name:path}", responses=answers_with(ModelAnswer))
async def model(name: str, request: Request) -> dict[str, Any]:
    """One model."""
    service: Service = request.app.state.service
    service.chosen(name, None)
    return describe(service, name)


@router.get("/health", responses=answers_with(HealthAnswer))
async def health(request: Request) -> Response:
    """Whether the server answers (it does), and whether the model is there already."""
    service: Service = request.app.state.service
    load, ready = service.scheduler.load, service.scheduler.engine is not None
    body = {"status": "ready" if ready else "loading", "waiting": load.waiting, "running": load.running}
    return JSONResponse(body | {"model": service.settings.model_id, "safety": safety_name(service)})


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """The counters, as Prometheus reads them."""
    service: Service = request.app.state.service
    return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)


def describe(service: Service, name: str) -> dict[str, Any]:
    """A model as OpenAI's clients read it, with the sizes of its pictures and the adapters it means."""
    sizes = None if service.sizes is None else [f"{width}x{height}" for height, width in service.sizes]
    return {
        "id": name, "object": "model", "created": service.started, "owned_by": "vargpt",
        "adapters": list(service.models[name]), "sizes": sizes, "safety": safety_name(service),
    }  # fmt: skip


def safety_name(service: Service) -> str | None:
    """What judges requests and pictures here, for all to see; None = nothing does."""
    return getattr(service.settings.safety, "name", None)
