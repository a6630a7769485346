"""The foreground probability."""

from alserve.images.codec import encode_png, to_grey
from alserve.outputs import OUTPUTS, Case, Output


def _encode(case: Case) -> bytes:
    return encode_png(to_grey(case.prediction.probability()))


OUTPUTS.add("probability")(
    Output("the foreground probability, 0 to 255 for 0 to 1: 8-bit PNG", "probabilities", _encode)
)
