"""The image's foreground, cut out."""

import numpy as np

from alserve.images.codec import encode_png, to_grey
from alserve.outputs import OUTPUTS, Case, Output

SOFT = 0.25
"""Half of the range of probabilities, around the threshold, over which the edge fades."""


def _encode(case: Case) -> bytes:
    threshold = case.prediction.threshold if case.threshold is None else case.threshold
    opacity = np.clip((case.prediction.probability() - threshold) / (2 * SOFT) + 0.5, 0, 1)
    return encode_png(np.dstack([case.image, to_grey(opacity)]))


OUTPUTS.add("cutout")(
    Output(
        "the image, transparent outside of its mask, with a soft edge: PNG with alpha",
        "cutouts",
        _encode,
        draws_on_image=True,
    )
)
