"""Figures for Prometheus."""

from starlette.requests import Request
from starlette.responses import Response

from alserve.service.endpoints import ENDPOINTS, Endpoint
from alserve.service.metrics import metrics_page


async def _respond(_: Request) -> Response:
    return metrics_page()


ENDPOINTS.add("metrics")(Endpoint("/metrics", "GET", _respond, "Figures for Prometheus.", "text/plain"))
