"""Images out of a request's body. Nothing is ever fetched or written to disk."""

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartParser
from starlette.requests import Request

from alserve.web.settings import MAX_BODY_BYTES, MAX_IMAGES

FIELD = "image"
"""Name of the multipart field that holds the image."""

FIELDS = "images"
"""Name of the multipart field that comes once for each of several images."""

CHARSETS = frozenset({"utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1", "latin-1"})
"""Charsets of a form; Python knows others that are no charsets at all, such as rot13."""

MultiPartParser.spool_max_size = MAX_BODY_BYTES  # larger files would go to disk


async def read_image(request: Request) -> bytes:
    """Read the bytes of one image: the multipart field `FIELD`, else the whole body.

    Args:
        request: The request, not yet read, its body within limits (`alserve.web.bodies`).

    Raises:
        HTTPException: 400, where there is no image.
    """
    if not _is_form(request):
        if data := await request.body():
            return data
        raise HTTPException(400, f"no image: send it as the body, or as the field '{FIELD}' of multipart/form-data")
    form = await _form(request, 1)
    return await _file(form, FIELD).read()


async def read_images(request: Request) -> list[tuple[str, bytes]]:
    """Read the name and the bytes of each image: the multipart field `FIELDS`, as often as it comes.

    Args:
        request: As for `read_image`.

    Raises:
        HTTPException: 400, where there is no image, or more than `MAX_IMAGES`.
    """
    if not _is_form(request):
        raise HTTPException(400, f"no form: send multipart/form-data with a field '{FIELDS}' for each image")
    form = await _form(request, MAX_IMAGES)
    _file(form, FIELDS)
    files = [field for field in form.getlist(FIELDS) if isinstance(field, UploadFile)]
    return [(file.filename or "", await file.read()) for file in files]


def _is_form(request: Request) -> bool:
    return request.headers.get("content-type", "").lower().startswith("multipart/form-data")


async def _form(request: Request, files: int) -> FormData:
    """Read a form with so many files at most."""
    _, options = parse_options_header(request.headers["content-type"])
    charset = options.get(b"charset", b"utf-8").decode("latin-1").lower()
    if charset not in CHARSETS:
        raise HTTPException(400, f"a form's charset cannot be {charset[:40]!r}; send it in utf-8, or name none")
    try:
        return await request.form(max_files=files, max_fields=16)
    except FormParserError:
        raise HTTPException(400, "the form is damaged; with curl: -F image=@photo.jpg") from None


def _file(form: FormData, name: str) -> UploadFile:
    """Return the file in a form's field; a text, such as a URL, is refused."""
    field = form.get(name)
    if isinstance(field, UploadFile):
        return field
    if field is None:
        raise HTTPException(400, f"no field '{name}' in the form; with curl: -F {name}=@photo.jpg")
    raise HTTPException(
        400, f"the field '{name}' holds text, not a file; URLs are not fetched; with curl: -F {name}=@photo.jpg"
    )
