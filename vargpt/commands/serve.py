"""`vargpt serve`: from the command line to a server that runs until it is interrupted.

The web framework is imported when a server starts, so that the other commands need not have it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vargpt.serving.settings import Limits, ServeSettings
from vargpt.serving.trust.plugins import Plugins, announcements

if TYPE_CHECKING:
    from vargpt.chat.engine import ChatEngine

KEYS_VARIABLE = "VARGPT_API_KEYS"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
CLOSING_SECONDS = 5  # that answers on their way are given when the server is stopped
DEFAULTS = Limits()


def add_serve(
    app: typer.Typer, loading: Callable[..., dict[str, Any]], open_engine: Callable[[str | None, dict], ChatEngine]
) -> None:
    """Adds the command to the command line, which checks (`loading`) and loads (`open_engine`) models its own way."""

    @app.command()
    def serve(
        host: Annotated[str, typer.Option(help="0.0.0.0 lets others in; think of --api-key then.")] = "127.0.0.1",
        port: Annotated[int, typer.Option(help="1 to 65535; 0 takes any that is free.")] = 8000,
        model: Annotated[str | None, typer.Option(help="Model folder or hub id; default: the shipped nano.")] = None,
        name: Annotated[str | None, typer.Option(help="What clients call the model; default: its own name.")] = None,
        api_key: Annotated[
            list[str] | None,
            typer.Option(help=f"Who has none is sent away; repeatable. Better: {KEYS_VARIABLE}=key,key"),
        ] = None,
        adapter: Annotated[
            list[Path] | None, typer.Option(help="Folder of an adapter, served as MODEL:ADAPTER; repeatable.")
        ] = None,
        device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ... or mps.")] = "auto",
        dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
        quantize: Annotated[str | None, typer.Option(help="int8 or nf4: smaller weights, large models.")] = None,
        offload: Annotated[bool, typer.Option("--offload", help="Keep layers in main memory until needed.")] = False,
        compiled: Annotated[
            bool, typer.Option("--compile", help="Fuse the generator's layers at the first picture; meant for GPUs.")
        ] = False,
        max_waiting: Annotated[int, typer.Option(help="Requests in the queue; more are told 429.")] = DEFAULTS.waiting,
        max_seconds: Annotated[float, typer.Option(help="For one request, waiting included.")] = DEFAULTS.seconds,
        max_body_mb: Annotated[int, typer.Option(help="Size of a request.")] = DEFAULTS.body_bytes // 2**20,
        max_n: Annotated[int, typer.Option(help="Choices or pictures in one request, up to 16.")] = DEFAULTS.n,
        allow_host: Annotated[
            list[str] | None, typer.Option(help="Fetch pictures that are given as addresses on this host; repeatable.")
        ] = None,
        allow_origin: Annotated[
            list[str] | None, typer.Option(help="Let pages of this origin call the server; repeatable.")
        ] = None,
        batch: Annotated[int, typer.Option(help="Requests that are answered together.")] = 8,
        remember_mb: Annotated[
            int, typer.Option(help="Memory for what was read of conversations, MiB; 0 = none.")
        ] = 256,
        safety: Annotated[
            str | None, typer.Option(help="Judge requests and pictures: a file of words, or PACKAGE.MODULE:FACTORY.")
        ] = None,
        credentials: Annotated[
            tuple[Path, Path] | None, typer.Option(help="CHAIN.pem KEY.pem: sign every picture (C2PA).")
        ] = None,
        cluster: Annotated[bool, typer.Option("--cluster", help="Several replicas, by Ray Serve.")] = False,
        replicas: Annotated[int, typer.Option(help="With --cluster: so many, or at least so many.")] = 1,
        max_replicas: Annotated[int | None, typer.Option(help="With --cluster: more when it is busy.")] = None,
        gpus: Annotated[float, typer.Option(help="With --cluster: of each replica; may be a part of one.")] = 0.0,
        cluster_address: Annotated[
            str | None, typer.Option(help="With --cluster: a Ray cluster that runs already; deploy, and leave.")
        ] = None,
    ) -> None:
        """Answer OpenAI's clients: chat, pictures, changes of pictures."""
        settings = ServeSettings(
            host=host,
            port=port,
            model=model,
            name=name,
            load=loading(device, dtype, quantize, offload, adapter, compiled),
            api_keys=api_keys(api_key),
            limits=Limits(waiting=max_waiting, seconds=max_seconds, body_bytes=max_body_mb * 2**20, n=max_n),
            url_hosts=tuple(allow_host or ()),
            origins=tuple(allow_origin or ()),
        )
        if host not in LOOPBACK and not settings.api_keys:
            typer.echo(
                f"anybody who reaches {host}:{port} may draw; --api-key or {KEYS_VARIABLE} asks for a key", err=True
            )
        files = None if credentials is None else (str(credentials[0]), str(credentials[1]))
        plugins = Plugins(safety=safety, credentials=files)
        if cluster:
            from vargpt.serving.cluster import deployment as clusters

            many = clusters.ClusterSettings(
                replicas=replicas, max_replicas=max_replicas, batch=batch, gpus=gpus, address=cluster_address,
                plugins=plugins,
            )  # fmt: skip
            clusters.run(settings, many, typer.echo)
        else:
            run(plugins.into(settings), open_engine, batch, remember_mb)


def api_keys(given: list[str] | None) -> tuple[str, ...]:
    """The keys of the command line, else those of the environment."""
    keys = given or os.environ.get(KEYS_VARIABLE, "").split(",")
    return tuple(key.strip() for key in keys if key.strip())


def run(
    settings: ServeSettings,
    open_engine: Callable[[str | None, dict[str, Any]], ChatEngine],
    batch: int = 8,
    remember_mb: int = 256,
) -> None:
    """Serves until it is interrupted; up to `batch` requests are answered together.

    Raises:
        OSError: the port is taken or not allowed.
        FileNotFoundError: there is no such model.
        ImportError: the web framework is not installed.
    """
    from vargpt.chat.scheduler import Scheduler
    from vargpt.loading.models import OUTLINE
    from vargpt.published.families import resolve_model

    try:
        import uvicorn

        from vargpt.serving.server import make_app
    except ImportError as error:
        raise ImportError(f"the server needs more packages ({error}): pip install 'vargpt[serve]'") from error
    resolve_model(settings.model, OUTLINE)  # a mistake shows here, not in the first client's answer
    listening = listen(settings.host, settings.port)
    scheduler = Scheduler(
        lambda: open_engine(settings.model, dict(settings.load)),
        settings.limits.waiting,
        batch,
        prefix_bytes=remember_mb * 2**20,
    )
    scheduler.warm_up()
    config = uvicorn.Config(
        make_app(settings, scheduler), log_level="warning", timeout_graceful_shutdown=CLOSING_SECONDS
    )
    for line in announcements(settings):
        typer.echo(line)
    host, port = listening.getsockname()[:2]
    typer.echo(f"{settings.model_id} answers at http://{f'[{host}]' if ':' in host else host}:{port}/v1")
    try:
        uvicorn.Server(config).run(sockets=[listening])
    finally:
        scheduler.close()


def listen(host: str, port: int) -> socket.socket:
    """An open socket.

    Raises:
        OSError: the port is taken or not allowed; the message names another one.
    """
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise OSError(f"cannot listen on {host}:{port} ({reason}); choose another, say --port {port + 1}") from None
