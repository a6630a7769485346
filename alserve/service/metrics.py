"""What the service counts and times, for Prometheus.

BentoML's own metrics stay off: they keep a series for every path that anybody asks for.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

import psutil

from alserve.service.settings import ServiceSettings

if ServiceSettings.from_environment().workers == 1:
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)  # BentoML sets it; one worker process needs no files to count in

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from starlette.responses import Response

REQUESTS = Counter("alserve_requests", "Requests answered.", ("endpoint", "status"))
REQUEST_SECONDS = Histogram("alserve_request_seconds", "Time from a request's head to its answer's end.", ("endpoint",))
IN_PROGRESS = Gauge("alserve_requests_in_progress", "Requests being answered now.", multiprocess_mode="livesum")
IMAGES = Counter("alserve_images", "Images predicted.", ("label",))
IMAGE_ERRORS = Counter("alserve_image_errors", "Images that got no prediction.", ("error",))
BATCH_IMAGES = Histogram("alserve_batch_images", "Images in a network call.", buckets=(1, 2, 4, 8, 16, 32, 64))
MODEL = Gauge(
    "alserve_model_info",
    "The model that runs, and where.",
    ("sha256", "device", "device_reason"),
    multiprocess_mode="livemax",
)

_STAGES = Histogram(
    "alserve_stage_seconds",
    "Time that an image takes in each stage of its way.",
    ("stage",),
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
DECODE, QUEUE, INFERENCE, ENCODE = (_STAGES.labels(stage) for stage in ("decode", "queue", "inference", "encode"))


@contextmanager
def timed(stage: Histogram) -> Iterator[None]:
    """Observe how long the block takes, if it succeeds."""
    start = perf_counter()
    yield
    stage.observe(perf_counter() - start)


def metrics_page() -> Response:
    """Return all figures in the Prometheus text format; with several worker processes, those of all together."""
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    registry = _all_workers(Path(folder)) if folder else REGISTRY
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


def _all_workers(folder: Path) -> CollectorRegistry:
    """Add up the workers' files; what the dead were doing when they died is forgotten, what they did is kept."""
    for path in folder.glob("gauge_live*.db"):
        pid = int(path.stem.rpartition("_")[2])
        if not psutil.pid_exists(pid):
            mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(folder))  # type: ignore[no-untyped-call]
    return registry
