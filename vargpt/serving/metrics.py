"""How a server is doing, in numbers that Prometheus reads; every app counts for itself."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from vargpt.chat.scheduler import Scheduler

SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """Counters and histograms of one app; the queue is asked when somebody looks."""

    def __init__(self, scheduler: Scheduler) -> None:
        registry = self.registry = CollectorRegistry()
        self.requests = Counter(
            "vargpt_requests", "Requests answered, by endpoint and status.", ["route", "status"], registry=registry
        )
        self.seconds = Histogram(
            "vargpt_request_seconds", "From a request to the end of its answer.", ["route"], buckets=SECONDS,
            registry=registry,
        )  # fmt: skip
        self.pictures = Counter("vargpt_pictures", "Pictures drawn and sent.", registry=registry)
        self.tokens = Counter(
            "vargpt_tokens", "Tokens read (prompt), spoken (text) and drawn (image).", ["kind"], registry=registry
        )
        waiting = Gauge("vargpt_queue_waiting", "Requests that wait for the model.", registry=registry)
        waiting.set_function(lambda: scheduler.load.waiting)
        running = Gauge("vargpt_queue_running", "Requests that are being answered.", registry=registry)
        running.set_function(lambda: scheduler.load.running)
        loaded = Gauge("vargpt_model_loaded", "1 once the model is in memory.", registry=registry)
        loaded.set_function(lambda: scheduler.engine is not None)

    def text(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self.registry)
