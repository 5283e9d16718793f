"""Several copies of the server behind one address, as a Ray Serve deployment: started, scaled, watched, replaced.

In: the settings of one server, and how many of it there shall be. Out: an address. Each replica is a process with a
model, a `Scheduler` (which answers the requests it holds together, scale by scale) and the very app of `app.py`; Ray
hands every request to one of them. Nothing is reported to Ray's makers. Needs `pip install 'vargpt[cluster]'`.
"""

from __future__ import annotations

import logging
import math
import os
import secrets
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from vargpt.serving.cluster import front
from vargpt.serving.settings import ServeSettings
from vargpt.serving.trust.plugins import Plugins, announcements

logger = logging.getLogger(__name__)

APP = "vargpt"
NAMESPACE = "vargpt"
GIVE_UP = 3  # times that Ray, or a replica, may fail to start
RETRY_SECONDS = 5  # what a client is told whom no replica has room for


@dataclass(frozen=True, kw_only=True)
class ClusterSettings:
    """How many replicas there are, and what each may use.

    Attributes:
        replicas: of the model; the fewest, where their number may change.
        max_replicas: the most; None = always `replicas`. There are more when more than `batch` requests wait for each.
        batch: requests that a replica answers together; it holds as many again, read and ready.
        cpus: processors of a replica, and its number of threads.
        gpus: of a replica; may be a part of one.
        spare: replicas beside the others while new ones take over; 0 where the machines have no room, and a restart
            then goes on with one less.
        address: of a Ray cluster that runs already ("auto" finds one on this machine); None = start one here.
        object_store_bytes: shared memory of a cluster that is started here; requests and pictures pass through it.
        plugins: are loaded in every replica; their files lie at the same place on every machine.
    """

    replicas: int = 1
    max_replicas: int | None = None
    batch: int = 8
    cpus: float = 1.0
    gpus: float = 0.0
    spare: int = 1
    address: str | None = None
    object_store_bytes: int = 100 * 2**20
    plugins: Plugins = Plugins()

    def __post_init__(self) -> None:
        if self.replicas < 1 or self.batch < 1 or self.cpus <= 0 or self.gpus < 0 or self.spare < 0:
            raise ValueError(
                "a cluster has at least one replica, with a batch of at least 1 and more than 0 processors"
            )
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            raise ValueError(f"max_replicas is at least replicas ({self.replicas}), got {self.max_replicas}")

    @property
    def most(self) -> int:
        return self.max_replicas or self.replicas


class Replica:
    """One copy of the server in a process of its own; there once its model is.

    Args:
        settings: of the server.
        cluster: of all of them.
        revision: changes with every deployment, so that each replaces the replicas before.
    """

    def __init__(self, settings: ServeSettings, cluster: ClusterSettings, revision: str) -> None:
        from vargpt.chat.engine import ChatEngine
        from vargpt.chat.scheduler import Scheduler
        from vargpt.serving.cluster.shared_picture_store import SharedGallery
        from vargpt.serving.server import make_app

        del revision
        settings = cluster.plugins.into(settings)
        engine = ChatEngine.load(settings.model, **settings.load)  # what is wrong with it ends the deployment
        self.scheduler = Scheduler(lambda: engine, max_waiting=settings.limits.waiting, max_running=cluster.batch)
        self.scheduler.warm_up()
        gallery = SharedGallery(settings.keep_seconds, settings.keep_bytes, NAMESPACE)
        self._server = make_app(settings, self.scheduler, gallery)  # Ray has an attribute `app` of its own

    def __serve_build_asgi_app__(self) -> Any:
        return self._server

    def check_health(self) -> None:
        """Raises RuntimeError if this replica can answer nothing any more; Ray then replaces it."""
        if not self.scheduler.is_alive:
            raise RuntimeError("the scheduler's thread has ended")
        if self.scheduler.engine is None:
            raise RuntimeError("there is no model")


def deployment_options(settings: ServeSettings, cluster: ClusterSettings) -> dict[str, Any]:
    """What Ray Serve is told about the replicas."""
    scale: dict[str, Any] = {"num_replicas": cluster.replicas}
    if cluster.max_replicas is not None:
        scale = {
            "autoscaling_config": {
                "min_replicas": cluster.replicas,
                "max_replicas": cluster.max_replicas,
                "target_ongoing_requests": cluster.batch,  # waiting ones included: a full batch each, and none in line
                "upscale_delay_s": 10,
                "downscale_delay_s": 300,
            }
        }
    return scale | {
        "name": APP,
        "max_ongoing_requests": 2 * cluster.batch,
        "max_queued_requests": settings.limits.waiting * cluster.most,
        "backpressure_config": {"status_code": 429, "retry_after_s": RETRY_SECONDS},
        "ray_actor_options": {"num_cpus": cluster.cpus, "num_gpus": cluster.gpus},
        "health_check_period_s": 5,
        "health_check_timeout_s": 60,
        "graceful_shutdown_timeout_s": settings.limits.seconds,
        "graceful_shutdown_wait_loop_s": 1,
        "max_constructor_retry_count": GIVE_UP,
        "rolling_update_percentage": 1 / cluster.most,
        "max_surge_percent": min(100, math.floor(100 * cluster.spare / cluster.most)),
    }


def connect(settings: ServeSettings, cluster: ClusterSettings) -> None:
    """Starts Ray on this machine, or finds the cluster at `cluster.address`; then the proxies that take requests.

    Raises:
        ImportError: Ray is not installed.
        ConnectionError: there is no cluster at the address.
        RuntimeError: Ray does not start here.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # read when Ray starts: it would report home
    os.environ[front.VARIABLE] = front.CALLBACK  # the same; a cluster that runs already was started with it or without
    ray, serve = library()
    if cluster.address is not None:
        try:
            ray.init(address=cluster.address, namespace=NAMESPACE, log_to_driver=False)
        except ConnectionError as error:
            hint = "where it asks for a token and its address is written out, set RAY_AUTH_MODE=token"
            raise ConnectionError(
                f"there is no Ray cluster to be reached at {cluster.address}: {error} ({hint})"
            ) from None
    else:
        start(ray, cluster)
    options = {"host": settings.host, "port": settings.port, "request_timeout_s": settings.limits.seconds + 30}
    serve.start(http_options=options, logging_config={"enable_access_log": False, "log_level": "WARNING"})


def start(ray: Any, cluster: ClusterSettings) -> None:
    """Starts Ray on this machine with what the replicas need and no more.

    Raises:
        RuntimeError: it does not start.
    """
    count = cluster.most + cluster.spare
    for attempt in range(1, GIVE_UP + 1):
        try:
            ray.init(
                num_cpus=math.ceil(cluster.cpus * count),
                num_gpus=math.ceil(cluster.gpus * count),
                object_store_memory=cluster.object_store_bytes,
                include_dashboard=False,
                namespace=NAMESPACE,
                log_to_driver=False,
                logging_level=logging.WARNING,
            )
            return
        except Exception as error:  # Ray raises no narrower one where a busy machine takes longer than its 30 seconds
            ray.shutdown()
            if "timed out" not in str(error) or attempt == GIVE_UP:
                raise RuntimeError(f"Ray does not start on this machine: {error}") from error
            logger.warning("Ray did not start in time; once more (%d of %d)", attempt + 1, GIVE_UP)


def deploy(settings: ServeSettings, cluster: ClusterSettings) -> str:
    """Puts the model to work on the connected cluster and returns its address once it answers.

    What runs there already is replaced replica by replica, without a gap: the same call restarts all of them.

    Raises:
        RuntimeError: the replicas do not start; the message says why.
    """
    _, serve = library()
    cluster.plugins.into(settings)  # mistakes show here, and not in a replica
    options = deployment_options(settings, cluster)
    deployment = serve.deployment(**options)(serve.ingress()(Replica))
    serve.run(deployment.bind(settings, cluster, secrets.token_hex(4)), name=APP, route_prefix="/")
    return f"http://{settings.host}:{settings.port}"


@contextmanager
def running(settings: ServeSettings, cluster: ClusterSettings) -> Iterator[str]:
    """A cluster for the length of a block; its value is the address. One that ran before goes on afterwards."""
    connect(settings, cluster)
    ray, serve = library()
    try:
        yield deploy(settings, cluster)
    finally:
        if cluster.address is None:
            serve.shutdown()
        ray.shutdown()


def run(settings: ServeSettings, cluster: ClusterSettings, say: Callable[[str], None]) -> None:
    """Serves until it is interrupted or asked to end; on a cluster that ran before it only deploys and returns."""
    ended = threading.Event()
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, lambda *_: ended.set())
    for line in announcements(cluster.plugins.into(settings)):
        say(line)
    with running(settings, cluster) as url:
        say(f"{cluster.replicas} replica(s) of {settings.model_id} at {url}")
        if cluster.address is None:
            ended.wait()


def library() -> tuple[Any, Any]:
    """Ray and Ray Serve.

    Raises:
        ImportError: they are not installed.
    """
    try:
        import ray
        from ray import serve
    except ImportError:
        raise ImportError("several replicas need Ray Serve: pip install 'vargpt[cluster]'") from None
    return ray, serve
