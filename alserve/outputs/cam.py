"""The class activation map of the predicted class."""

from alserve.images.codec import encode_png
from alserve.outputs import OUTPUTS, Case, Output


def _encode(case: Case) -> bytes:
    return encode_png(case.prediction.cam_grey())


def _details(case: Case) -> dict[str, str]:
    return {"class": case.prediction.label}


OUTPUTS.add("cam")(
    Output(
        "the class activation map of the predicted class, 0 to 255 on one scale for all images: 8-bit PNG",
        "cams",
        _encode,
        details=_details,
    )
)
