"""The image with the outline of its mask."""

from alserve.drawing import overlay
from alserve.images.codec import encode_png
from alserve.outputs import OUTPUTS, Case, Output


def _encode(case: Case) -> bytes:
    return encode_png(overlay(case.image, case.mask))


OUTPUTS.add("overlay")(Output("the image with the outline of its mask: PNG", "overlays", _encode, draws_on_image=True))
