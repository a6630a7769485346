"""The images of Label Studio's tasks: in folders that the operator names, or in the task. No URL is fetched."""

import base64
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from alserve.errors import DataError, ImageError
from alserve.images.codec import read_bytes
from alserve.paths import below

LOCAL_FILES = "/data/local-files/"
"""How Label Studio addresses a file below LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT: this, and ?d=PATH."""

UPLOADS = "/data/upload/"
"""How Label Studio addresses an uploaded file: this, the project and the name."""


@dataclass(frozen=True)
class TaskImages:
    """Where the images of tasks are."""

    files: Path | None = None
    """What is LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT for Label Studio."""
    media: Path | None = None
    """Label Studio's folder of uploads: `media` in its data folder."""

    def read(self, address: object) -> bytes:
        """Return the bytes of an image file.

        Args:
            address: As a task has it: of a local file or an upload, on any host, or a data URL with base64.

        Raises:
            ImageError: It is something else, or the file is gone, cannot be read, or lies outside of the folder.
        """
        if not isinstance(address, str) or not address:
            raise ImageError("the task has no image where the labelling configuration says")
        try:
            parts = urlsplit(address)
        except ValueError:
            raise ImageError(f"the address {address[:80]!r} cannot be read") from None
        if parts.scheme == "data":
            return _embedded(parts.path)
        if parts.scheme in {"", "http", "https"}:
            if parts.path.endswith(LOCAL_FILES):
                return _file(self.files, "FILES", parse_qs(parts.query).get("d", [""])[0])
            _, found, name = parts.path.partition(UPLOADS)
            if found:
                return _file(self.media, "MEDIA", f"upload/{unquote(name)}")
        raise ImageError(
            f"the address {address[:80]!r} is not fetched; use Label Studio's local files or uploads, or a data URL"
        )


def _file(folder: Path | None, setting: str, name: str) -> bytes:
    """Read a file of a folder; a message shows the name, and nothing of where the folder is."""
    if folder is None:
        raise ImageError(f"{name[:80]!r} is in no known folder; name it in ALSERVE_LABEL_STUDIO_{setting}")
    try:
        return read_bytes(below(folder, name))
    except DataError:
        raise ImageError(f"{name[:80]!r} is no name of a file below ALSERVE_LABEL_STUDIO_{setting}") from None
    except ImageError as error:
        raise type(error)(f"{name[:80]!r} {error}") from None


def _embedded(content: str) -> bytes:
    head, comma, data = content.partition(",")
    try:
        if comma and head.endswith(";base64"):
            return base64.b64decode(unquote(data), validate=True)
    except ValueError:  # not of these 64 characters
        pass
    raise ImageError("the task's data URL is damaged, or not in base64")
