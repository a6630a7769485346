"""Images out of a request's body. Nothing is ever fetched or written to disk."""

from starlette.exceptions import HTTPException
from starlette.requests import Request

from alserve.service.form import Field, parse_form
from alserve.service.settings import MAX_IMAGES

FIELD = "image"
"""Name of the multipart field that holds the image."""

FIELDS = "images"
"""Name of the multipart field that comes once for each of several images."""


async def read_image(request: Request) -> bytes:
    """Read the bytes of one image: the multipart field `FIELD`, else the whole body.

    Args:
        request: The request, not yet read, its body within limits (`alserve.service.bodies`).

    Raises:
        HTTPException: 400, where there is no image.
    """
    data = await request.body()
    if _is_form(request):
        (image, *_) = _files(data, request, FIELD, 1)
        return image.data
    if not data:
        raise HTTPException(400, f"no image: send it as the body, or as the field '{FIELD}' of multipart/form-data")
    return data


async def read_images(request: Request) -> list[tuple[str, bytes]]:
    """Read the name and the bytes of each image: the multipart field `FIELDS`, as often as it comes.

    Args:
        request: As for `read_image`.

    Raises:
        HTTPException: 400, where there is no image, or more than `MAX_IMAGES`.
    """
    if not _is_form(request):
        raise HTTPException(400, f"no form: send multipart/form-data with a field '{FIELDS}' for each image")
    return [(file.filename or "", file.data) for file in _files(await request.body(), request, FIELDS, MAX_IMAGES)]


def _is_form(request: Request) -> bool:
    return request.headers.get("content-type", "").lower().startswith("multipart/form-data")


def _files(body: bytes, request: Request, name: str, most: int) -> list[Field]:
    """Return the files of that name in a form, one at least; a text, such as a URL, is refused."""
    named = [field for field in parse_form(body, request.headers["content-type"], max_files=most) if field.name == name]
    if not named:
        raise HTTPException(400, f"no field '{name}' in the form; with curl: -F {name}=@photo.jpg")
    if any(field.filename is None for field in named):
        raise HTTPException(
            400, f"the field '{name}' holds text, not a file; URLs are not fetched; with curl: -F {name}=@photo.jpg"
        )
    return named
