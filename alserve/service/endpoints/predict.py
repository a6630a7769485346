"""All that the model predicts for one image."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from alserve.service.answering import answer_image
from alserve.service.endpoints import ENDPOINTS, Endpoint
from alserve.service.options import PredictOptions
from alserve.service.responses import EXAMPLE, PredictResponse, prediction_json


async def _respond(request: Request) -> Response:
    options = PredictOptions.read(request.query_params)
    return await answer_image(
        request,
        lambda decoded, prediction: JSONResponse(prediction_json(decoded, prediction, options)),
        whole=options.needs_image,
    )


ENDPOINTS.add("predict")(
    Endpoint(
        "/predict",
        "POST",
        _respond,
        "Predict one image.",
        PredictResponse,
        options=PredictOptions,
        body="image",
        example=EXAMPLE,
    )
)
