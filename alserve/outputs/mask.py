"""The mask."""

from alserve.images.codec import encode_png, to_grey
from alserve.outputs import OUTPUTS, Case, Output


def _encode(case: Case) -> bytes:
    return encode_png(to_grey(case.mask))


OUTPUTS.add("mask")(Output("the mask, 0 and 255: 8-bit PNG", "masks", _encode))
