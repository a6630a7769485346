"""The image's foreground, cut out."""

import numpy as np

from alserve.images.codec import encode_png, to_grey
from alserve.outputs import OUTPUTS, Case, Output

SOFT = 0.25
"""Half of the range of probabilities, around the threshold, over which the edge fades."""


def _encode(case: Case) -> bytes:
    probability = case.prediction.probability()
    opacity = to_grey(np.clip((probability - case.threshold) / (2 * SOFT) + 0.5, 0, 1))
    changed = (probability > case.threshold) != case.mask  # by postprocessing
    return encode_png(np.dstack([case.image, np.where(changed, to_grey(case.mask), opacity)]))


OUTPUTS.add("cutout")(
    Output(
        "the image, transparent outside of its mask, with a soft edge: PNG with alpha",
        "cutouts",
        _encode,
        draws_on_image=True,
    )
)
