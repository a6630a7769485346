"""Broken requests: seeded mutations of good ones, in their body, their form and their head."""

from collections.abc import Callable, Iterator

import cv2
import numpy as np

from alserve.images.codec import decode

Broken = bytes
"""All of a request, from its first line to the end of its body."""

PAGES = ("/predict", "/segment", "/cam", "/overlay", "/predict_batch")
QUERIES = (*6 * ("",), "?threshold=0.5", "?threshold=nan", "?include=mask,,", "?label=%ff%00", "?x=../..")
KINDS = ("image/png", "image/jpg", "text/html; charset=\xff", "multipart/form-data", "application/json", "a/b;" * 50)
SUFFIXES = (".png", ".jpg", ".webp", ".tiff", ".bmp", ".gif")
BOUNDARY = b"----boundary"


def broken_requests(image: bytes, number: int, seed: int = 0) -> Iterator[Broken]:
    """Make requests: random bodies, mutated images, mutated forms, and mutated as a whole.

    Args:
        image: A good image, re-encoded in every kind that is read.
        number: How many requests.
        seed: Same seed, same requests.

    Yields:
        The bytes of one request.
    """
    random = np.random.default_rng(seed)
    pixels = cv2.resize(decode(image), (64, 48))
    images = [bytes(cv2.imencode(suffix, pixels)[1]) for suffix in SUFFIXES]
    ways: list[Callable[[np.random.Generator, bytes], Broken]] = [_noise, *3 * [_body, _form], _whole]
    for index in range(number):
        yield ways[index % len(ways)](random, images[int(random.integers(len(images)))])


def mutate(random: np.random.Generator, data: bytes) -> bytes:
    """Change some bytes, cut some out, put some in, or repeat some; up to four times over."""
    for _ in range(int(random.integers(1, 5))):
        start, end = sorted(int(place) for place in random.integers(0, len(data) + 1, 2))
        end = min(end, start + 64)
        other = random.bytes(end - start)
        data = (
            data[:start] + other + data[end:],
            data[:start] + data[end:],
            data[:start] + other + data[start:],
            data[:end] + data[start:],
            data[:start],
        )[int(random.integers(5))]
    return data


def _noise(random: np.random.Generator, _: bytes) -> Broken:
    return _request(random, random.bytes(int(random.integers(0, 4096))), _one(random, KINDS))


def _body(random: np.random.Generator, image: bytes) -> Broken:
    return _request(random, mutate(random, image), _one(random, KINDS))


def _form(random: np.random.Generator, image: bytes) -> Broken:
    return _request(random, mutate(random, _good_form(random, image)), _form_kind())


def _whole(random: np.random.Generator, image: bytes) -> Broken:
    return mutate(random, _request(random, _good_form(random, image), _form_kind()))


def _form_kind() -> str:
    return f"multipart/form-data; boundary={BOUNDARY.decode()}"


def _good_form(random: np.random.Generator, image: bytes) -> bytes:
    field = _one(random, ("image", "images", "../image", ""))
    head = f'Content-Disposition: form-data; name="{field}"; filename="../../a.png"\r\n\r\n'.encode()
    return b"--" + BOUNDARY + b"\r\n" + head + image + b"\r\n--" + BOUNDARY + b"--\r\n"


def _request(random: np.random.Generator, body: bytes, kind: str) -> Broken:
    line = f"POST {_one(random, PAGES)}{_one(random, QUERIES)} HTTP/1.1\r\n"
    head = f"Host: localhost\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return (line + head).encode("latin-1") + body


def _one(random: np.random.Generator, things: tuple[str, ...]) -> str:
    return things[int(random.integers(len(things)))]
