"""Images out of a request, within limits: of bytes, of time, of files. Nothing is ever fetched or written to disk."""

from collections.abc import Iterator
from contextlib import contextmanager

from anyio import fail_after
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartParser
from starlette.requests import Request
from starlette.types import Message

FIELD = "image"
"""Name of the multipart field that holds the image."""

FIELDS = "images"
"""Name of the multipart field that comes once for each of several images."""

MAX_BODY_BYTES = 32 * 2**20
"""A larger request is answered 413, whether it says its length or comes in chunks."""

MAX_IMAGES = 64
"""Images in one request."""

CLOSE = {"Connection": "close"}
"""Header of an answer to a request whose body is not read to its end."""

MultiPartParser.spool_max_size = MAX_BODY_BYTES  # larger files would go to disk


async def read_image(request: Request, seconds: float) -> bytes:
    """Read the bytes of one image: the multipart field `FIELD`, else the whole body.

    Args:
        request: The request, not yet read.
        seconds: Time for its body to arrive.

    Raises:
        HTTPException: 400 where there is no image, 408 where it takes too long, 413 where there is too much.
    """
    bounded = _bounded(request)
    with _within(seconds):
        if not _is_form(bounded):
            if data := await bounded.body():
                return data
            raise HTTPException(400, f"no image: send it as the body, or as the field '{FIELD}' of multipart/form-data")
        async with bounded.form(max_files=1, max_fields=16) as form:
            return await _file(form, FIELD).read()


async def read_images(request: Request, seconds: float) -> list[tuple[str, bytes]]:
    """Read the name and the bytes of each image: the multipart field `FIELDS`, as often as it comes.

    Args:
        request: The request, not yet read.
        seconds: Time for its body to arrive.

    Raises:
        HTTPException: As for `read_image`; 400 also for more than `MAX_IMAGES`.
    """
    bounded = _bounded(request)
    if not _is_form(bounded):
        raise HTTPException(400, f"no form: send multipart/form-data with a field '{FIELDS}' for each image")
    with _within(seconds):
        async with bounded.form(max_files=MAX_IMAGES, max_fields=16) as form:
            _file(form, FIELDS)
            files = [field for field in form.getlist(FIELDS) if isinstance(field, UploadFile)]
            return [(file.filename or "", await file.read()) for file in files]


def _is_form(request: Request) -> bool:
    return request.headers.get("content-type", "").lower().startswith("multipart/form-data")


def _file(form: FormData, name: str) -> UploadFile:
    """Give the file in a form's field; a text, such as a URL, is refused."""
    field = form.get(name)
    if isinstance(field, UploadFile):
        return field
    if field is None:
        raise HTTPException(400, f"no field '{name}' in the form; with curl: -F {name}=@photo.jpg")
    raise HTTPException(
        400, f"the field '{name}' holds text, not a file; URLs are not fetched; with curl: -F {name}=@photo.jpg"
    )


@contextmanager
def _within(seconds: float) -> Iterator[None]:
    try:
        with fail_after(seconds):
            yield
    except TimeoutError:
        raise HTTPException(408, f"the request did not arrive within {seconds:g} s", CLOSE) from None


def _bounded(request: Request) -> Request:
    """Give the request with a limit on its body, as announced and as it comes."""
    length = request.headers.get("content-length", "")
    announced = int(length) if length.isdecimal() else 0
    received = 0

    async def receive() -> Message:
        nonlocal received
        if max(announced, received) <= MAX_BODY_BYTES:
            message = await request.receive()
            received += len(message.get("body", b""))
        if max(announced, received) > MAX_BODY_BYTES:
            raise HTTPException(
                413, f"the request is larger than {MAX_BODY_BYTES // 2**20} MiB; send a smaller image", CLOSE
            )
        return message

    return Request(request.scope, receive)
