"""The foreground probability."""

import numpy as np

from alserve.images.codec import encode_png
from alserve.outputs import OUTPUTS, Case, Output

MOST = np.iinfo(np.uint16).max
"""Grey level of a probability of 1."""


def _encode(case: Case) -> bytes:
    return encode_png(np.rint(case.prediction.probability() * MOST).astype(np.uint16))


OUTPUTS.add("probability")(
    Output("the foreground probability, 0 to 65535 for 0 to 1: 16-bit PNG", "probabilities", _encode)
)
