"""The class activation map of one image, for any class."""

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from alserve.errors import OptionError
from alserve.images.codec import encode_png
from alserve.registry import suggest
from alserve.service.answering import answer_file, pipeline_of
from alserve.service.endpoints import ENDPOINTS, Endpoint
from alserve.service.options import Options


class CamOptions(Options):
    """Options of `POST /cam`."""

    label: str | None = Field(None, description="The class of the map. Default: the predicted class.")


async def _respond(request: Request) -> Response:
    label = CamOptions.read(request.query_params).label
    classes = pipeline_of(request).engine.spec.classes
    if label is not None and label not in classes:
        raise OptionError(f"option 'label': unknown class {label[:40]!r}; {suggest(label, classes)}")
    return await answer_file(request, lambda _, prediction: encode_png(prediction.cam_grey(label)), "image/png")


ENDPOINTS.add("cam")(
    Endpoint("/cam", "POST", _respond, "A class activation map, 8-bit.", "image/png", options=CamOptions, body="image")
)
