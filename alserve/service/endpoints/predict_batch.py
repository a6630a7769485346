"""All that the model predicts for each of several images."""

from functools import partial
from typing import Any

from anyio import create_task_group, to_thread
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from alserve.errors import AlserveError
from alserve.service.answering import batch_memory_of, bodies_of, pipeline_of
from alserve.service.endpoints import ENDPOINTS, Endpoint
from alserve.service.errors import explain
from alserve.service.options import PredictOptions
from alserve.service.responses import EXAMPLE, PredictBatchResponse, prediction_json
from alserve.service.upload import read_images


async def _respond(request: Request) -> Response:
    """Answer with a prediction or an error for each image, in order."""
    options = PredictOptions.read(request.query_params)
    pipeline = pipeline_of(request)
    memory = batch_memory_of(request)
    pipeline.check_capacity()
    with bodies_of(request).receiving(request) as bounded:
        images = await read_images(bounded)
        results: list[dict[str, Any]] = [{} for _ in images]
        share = pipeline.share()

        async def fill(index: int, name: str, data: bytes) -> None:
            try:
                result = await pipeline.predict(
                    data, partial(prediction_json, options=options), whole=options.needs_image, share=share
                )
                hold(result)
            except AlserveError as error:
                status, text = explain(error)
                result = {"error": text, "status": status}
            results[index] = {"name": name, **result}

        with pipeline.reserve(len(images)), memory.batch() as hold:
            async with create_task_group() as group:
                for index, (name, data) in enumerate(images):
                    group.start_soon(fill, index, name, data)
            return await to_thread.run_sync(JSONResponse, {"results": results})


ENDPOINTS.add("predict_batch")(
    Endpoint(
        "/predict_batch",
        "POST",
        _respond,
        "Predict several images.",
        PredictBatchResponse,
        options=PredictOptions,
        body="images",
        example={"results": [{"name": "a.jpg", **EXAMPLE}, {"name": "b.txt", "error": "not an image", "status": 415}]},
    )
)
