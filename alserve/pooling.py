"""From class activation maps to class scores, as the network does it: for maps that are put together of tiles."""

import numpy as np

from alserve.arrays import Float32
from alserve.modelfile import CamStride

ONE_IN: dict[CamStride, int] = {16: 50, 32: 10}
"""By the stride of the maps: the number of places over that of the highest, or lowest, that are pooled."""

ALPHA = 0.6
"""Weight of the lowest activations."""


def scores_of(cams: Float32, cam_stride: CamStride) -> Float32:
    """Pool maps to scores (WILDCAT, Durand et al., CVPR 2017, eq. 2): softmax of highest + `ALPHA` lowest.

    Args:
        cams: [classes, h, w], activations without a bound.
        cam_stride: Of the model, see `ModelSpec`; decides how many places count.

    Returns:
        float32 [classes], 0 to 1, sum 1.
    """
    activations = np.sort(cams.reshape(len(cams), -1), axis=1)
    k = -(-activations.shape[1] // ONE_IN[cam_stride])
    logits = activations[:, -k:].mean(axis=1) + ALPHA * activations[:, :k].mean(axis=1)
    shares = np.exp(logits - logits.max())
    return np.asarray(shares / shares.sum(), np.float32)
