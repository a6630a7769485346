"""The mask of one image, or another output, as a file."""

from starlette.requests import Request
from starlette.responses import Response

from alserve.outputs import OUTPUTS
from alserve.service.answering import answer_output
from alserve.service.endpoints import ENDPOINTS, Endpoint
from alserve.service.options import SegmentOptions


async def _respond(request: Request) -> Response:
    options = SegmentOptions.read(request.query_params)
    return await answer_output(request, OUTPUTS[options.format], options.post)


ENDPOINTS.add("segment")(
    Endpoint(
        "/segment",
        "POST",
        _respond,
        "The mask, 0 and 255, or another output, as a file.",
        tuple(dict.fromkeys(output.media_type for output in OUTPUTS.values())),
        options=SegmentOptions,
        body="image",
    )
)
