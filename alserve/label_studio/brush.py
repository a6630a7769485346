"""Label Studio's run lengths of what a brush painted.

The format is that of @thi.ng/rle-pack, which Label Studio took over: bits, most significant first. 32 bits number of
values; 5 bits size of a value, less one; four times 4 bits size of a run length, less one. Then runs, until all values
are there: 1 bit, whether one value is repeated; 2 bits, which size the length has; the length, less one; the value, or
as many values. The values are the bytes of an RGBA picture, row by row; what was painted is in alpha.
"""

from itertools import pairwise

import numpy as np

from alserve.arrays import Mask

CHANNELS = 4
LENGTH_BITS = (3, 4, 8, 16)
VALUE_BITS = 8

_AT_ONCE = 8192
"""Runs that are written at once: their bits, a character each, are few."""

MOST_RUNS = 5_000_000
"""A mask of more is refused: half a minute of work at most, and more than a hand can paint."""


def encode_brush(mask: Mask) -> list[int]:
    """Encode a mask, bool [height, width], as Label Studio's brush does: bytes, 0 to 255."""
    flat = mask.ravel()
    bounds = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1, [flat.size]])
    sizes = "".join(f"{bits - 1:04b}" for bits in LENGTH_BITS)
    bits = f"{CHANNELS * flat.size:032b}{VALUE_BITS - 1:05b}{sizes}"
    rle = bytearray()
    for first in range(0, len(bounds) - 1, _AT_ONCE):
        some = bounds[first : first + _AT_ONCE + 1].tolist()
        bits += "".join(_run(CHANNELS * (end - start), 255 * int(flat[start])) for start, end in pairwise(some))
        size = len(bits) // 8
        rle += int(bits[: 8 * size], 2).to_bytes(size, "big")
        bits = bits[8 * size :]
    if bits:
        rle.append(int(bits.ljust(8, "0"), 2))
    return list(rle)


def _run(length: int, value: int) -> str:
    """Write one repeated value, in several runs where it is longer than the largest."""
    most = 1 << LENGTH_BITS[-1]
    if length > most:
        return _run(most, value) * (length // most) + (_run(length % most, value) if length % most else "")
    size = next(size for size, bits in enumerate(LENGTH_BITS) if length <= 1 << bits)
    return f"1{size:02b}{length - 1:0{LENGTH_BITS[size]}b}{value:0{VALUE_BITS}b}"


def decode_brush(rle: bytes, shape: tuple[int, int]) -> Mask:
    """Decode what a brush painted.

    Args:
        rle: The bytes.
        shape: (height, width) of the image in pixels.

    Returns:
        bool [height, width]: where anything was painted, however thinly.

    Raises:
        ValueError: The bytes end too early, are not of a picture of this shape, or hold more than `MOST_RUNS` runs.
    """
    place, bits = 0, 8 * len(rle)

    def read(size: int) -> int:
        nonlocal place
        start, place = place, place + size
        if place > bits:
            raise ValueError("the run lengths end too early")
        window = int.from_bytes(rle[start >> 3 : (place + 7) >> 3], "big")
        return window >> (-place & 7) & ((1 << size) - 1)

    total = read(32)
    if total != shape[0] * shape[1] * CHANNELS:
        raise ValueError(f"the run lengths hold {total // CHANNELS} pixels, the image {shape[0] * shape[1]}")
    value_bits = read(5) + 1
    length_bits = [read(4) + 1 for _ in range(4)]
    painted = np.zeros(total, np.bool_)
    start = 0
    for _ in range(MOST_RUNS):
        if start >= total:
            return painted.reshape(*shape, CHANNELS)[..., -1]
        repeated = read(1)
        length = min(read(length_bits[read(2)]) + 1, total - start)
        if repeated:
            painted[start : start + length] = read(value_bits) > 0
        else:
            first, place = place, place + length * value_bits
            if place > bits:
                raise ValueError("the run lengths end too early")
            values = np.unpackbits(np.frombuffer(rle[first >> 3 : (place + 7) >> 3], np.uint8))[first & 7 :]
            painted[start : start + length] = values[: length * value_bits].reshape(length, value_bits).any(axis=1)
        start += length
    raise ValueError(f"the mask has more than {MOST_RUNS:,} runs; export it as COCO")
