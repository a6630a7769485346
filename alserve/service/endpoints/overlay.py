"""One image with the outline of its mask."""

from starlette.requests import Request
from starlette.responses import Response

from alserve.outputs import OUTPUTS
from alserve.service.answering import answer_output
from alserve.service.endpoints import ENDPOINTS, Endpoint
from alserve.service.options import MaskOptions


async def _respond(request: Request) -> Response:
    options = MaskOptions.read(request.query_params)
    return await answer_output(request, OUTPUTS["overlay"], options.post)


ENDPOINTS.add("overlay")(
    Endpoint("/overlay", "POST", _respond, "The mask's outline drawn.", "image/png", options=MaskOptions, body="image")
)
