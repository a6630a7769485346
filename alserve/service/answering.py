"""What endpoints share: the state of the worker process, and how one image is answered."""

from collections.abc import Callable
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from alserve.errors import ServiceError
from alserve.images.decoders import Decoded
from alserve.outputs import Case, Output
from alserve.postprocessing import PostProcessing
from alserve.predictor import Prediction
from alserve.service.batch_memory import BatchMemory
from alserve.service.bodies import Bodies
from alserve.service.pipeline import Pipeline
from alserve.service.upload import read_image

LABEL_HEADER = "X-Alserve-Label"
"""Header of a file that carries the label: UTF-8, percent-encoded."""


def pipeline_of(request: Request) -> Pipeline:
    """Return the pipeline of this worker process.

    Raises:
        ServiceError: No model was loaded that works.
    """
    pipeline: Pipeline | None = request.app.state.pipeline
    if pipeline is None:
        raise ServiceError("the service has no model that works; its log says why")
    return pipeline


def bodies_of(request: Request) -> Bodies:
    """Return the request bodies that this worker process holds."""
    bodies: Bodies = request.app.state.bodies
    return bodies


def batch_memory_of(request: Request) -> BatchMemory:
    """Return the memory of the unfinished batches of this worker process."""
    memory: BatchMemory = request.app.state.batch_memory
    return memory


async def answer_image(
    request: Request, build: Callable[[Decoded, Prediction], Response], *, whole: bool = False
) -> Response:
    """Read the request's image, predict, and build the response; all but the reading happens in a thread.

    Args:
        request: The request, not yet read.
        build: Makes the response.
        whole: Whether it is made of the image itself, too, at its own size.

    Raises:
        AlserveError: As `Pipeline.predict`; or there are too many requests, or there is no model.
        HTTPException: There is no image, or it does not arrive within the limits.
    """
    pipeline = pipeline_of(request)
    pipeline.check_capacity()
    with bodies_of(request).receiving(request) as bounded:
        data = await read_image(bounded)
        with pipeline.reserve():
            return await pipeline.predict(data, build, whole=whole)


async def answer_file(
    request: Request, encode: Callable[[Decoded, Prediction], bytes], media_type: str, *, whole: bool = False
) -> Response:
    """Answer with the bytes of one file, and the label in the header `LABEL_HEADER`; see `answer_image`."""

    def build(decoded: Decoded, prediction: Prediction) -> Response:
        headers = {LABEL_HEADER: quote(prediction.label)}
        return Response(encode(decoded, prediction), media_type=media_type, headers=headers)

    return await answer_image(request, build, whole=whole)


async def answer_output(request: Request, output: Output, post: PostProcessing) -> Response:
    """Answer with the file of one output; see `answer_image`."""

    def encode(decoded: Decoded, prediction: Prediction) -> bytes:
        return output.encode(Case(decoded.pixels, prediction, post, stated_um_per_pixel=decoded.um_per_pixel))

    return await answer_file(request, encode, output.media_type, whole=output.draws_on_image)
