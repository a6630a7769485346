"""The mask of one image."""

from starlette.requests import Request
from starlette.responses import Response

from alserve.outputs import OUTPUTS
from alserve.service.answering import answer_output
from alserve.service.endpoints import ENDPOINTS, Endpoint
from alserve.service.options import MaskOptions


async def _respond(request: Request) -> Response:
    options = MaskOptions.read(request.query_params)
    return await answer_output(request, OUTPUTS["mask"], options.post)


ENDPOINTS.add("segment")(
    Endpoint("/segment", "POST", _respond, "The mask, 0 and 255.", "image/png", options=MaskOptions, body="image")
)
