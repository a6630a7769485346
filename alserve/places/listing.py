"""List an object store in a stream, and go on behind keys that obstore refuses to name.

Keys with an empty part, "." or "..", or a control character end obstore's listing, and hide all others on the same page
of the store's answer. Where a store speaks Amazon's protocol, such a page is read as the store sent it; elsewhere the
listing goes on behind the key, and tells that others may be missing.
"""

import html
import os
import re
from collections.abc import Iterator
from datetime import datetime
from errno import EIO
from typing import NamedTuple
from urllib.parse import quote, unquote_plus

from alserve.paths import printable
from alserve.places.client import FIRST, client_options, open_bucket, version_of
from alserve.places.failures import failing
from alserve.places.place import Version

UNNAMEABLE = "name with an empty part, '.' or '..', or a control character"
HIDING = f"{UNNAMEABLE}, which can hide others that are listed with it; rename it"

_MOST_PAGE = 64 << 20
"""Bytes of a page: at most 1000 keys of 1024 bytes, written out."""

_BAD_PATH = re.compile(r'path: "((?:[^"\\]|\\.)*)"')
_ESCAPE = re.compile(r"\\(?:u\{([0-9a-f]{1,6})\}|(.))")
"""How obstore writes a key in a message."""

_CONTENTS = re.compile(r"<Contents>(.*?)</Contents>", re.DOTALL)
_CONTROL = re.compile("[\x00-\x1f\x7f]")


class Listed(NamedTuple):
    """An object of a store."""

    name: str
    """Relative to the folder."""
    version: Version | None
    fault: str = ""
    """Why it cannot be used; empty if it can."""


def list_bucket(root: str, prefix: str, after: str | None = None) -> Iterator[Listed]:
    """List all objects below a folder of a bucket, in the order of their keys, page by page.

    Args:
        root: Scheme and bucket, such as "s3://bucket".
        prefix: The folder, without slashes around it; empty for all of the bucket.
        after: A key; only those that follow it are listed.

    Raises:
        OSError: The bucket cannot be listed.
    """
    from obstore.exceptions import InvalidPathError  # noqa: PLC0415  the extra may be missing

    skip = len(prefix) + 1 if prefix else 0
    while True:
        try:
            with failing(root, InvalidPathError):
                for chunk in open_bucket(root, patient=True).list(prefix or None, offset=after, chunk_size=1000):
                    for item in chunk:
                        after = item["path"]
                        yield Listed(after[skip:], version_of(item))
        except InvalidPathError as error:
            refused = _key_of(str(error))
            if after is not None and refused <= after:  # the store begins anew, and so it would for ever
                raise OSError(EIO, f"this store does not list what follows '{printable(refused)}'; rename it") from None
        else:
            return
        try:
            after, found = _pages(root, prefix, after)
        except (OSError, ValueError):
            after, found = _behind(refused), [Listed(refused[skip:], None, HIDING)]
        yield from found
        if after is None:
            return


def _key_of(message: str) -> str:
    """Return the key that a message of obstore is about."""
    found = _BAD_PATH.search(message)
    escaped = found[1] if found else ""
    return _ESCAPE.sub(lambda part: chr(int(part[1], 16)) if part[1] else part[2], escaped)


def _behind(key: str) -> str | None:
    """Return what a listing can begin with to leave out a key that is refused, and all others for the same reason."""
    parts = key.split("/")
    for index, part in enumerate(parts):
        before = "/".join([*parts[:index], ""]) if index else ""
        if part in {"", ".", ".."} and index < len(parts) - 1:
            return f"{before}{part}0"  # "0" follows "/"
        if found := _CONTROL.search(part):
            return f"{before}{part[: found.start()]}{' ' if found[0] < ' ' else chr(0x80)}"
    return None


def _pages(root: str, prefix: str, after: str | None) -> tuple[str | None, list[Listed]]:
    """Read the next pages of a listing as an S3 server sends them, up to one that ends with a key that has no fault.

    Returns:
        (the last key; None at the end of the listing, what the pages hold).
    """
    found: list[Listed] = []
    skip = len(prefix) + 1 if prefix else 0
    while True:
        text = _request(root, prefix, after)
        for entry in _CONTENTS.findall(text):
            before, after = after, unquote_plus(html.unescape(_tag(entry, "Key")))
            if before is not None and after <= before:
                raise ValueError(after)  # the page does not begin where it was asked to
            modified = datetime.fromisoformat(_tag(entry, "LastModified"))
            version = version_of({"size": int(_tag(entry, "Size")), "last_modified": modified})
            if _is_refused(after):
                found.append(Listed(after[skip:], version, UNNAMEABLE))
            elif not after.endswith("/"):
                found.append(Listed(after[skip:], version))
        if _tag(text, "IsTruncated") != "true":
            return None, found
        if after and not (_is_refused(after) or after.endswith("/")):
            return after, found


def _is_refused(key: str) -> bool:
    return any(part in {"", ".", ".."} or _CONTROL.search(part) for part in key.removesuffix("/").split("/"))


def _tag(text: str, name: str) -> str:
    found = re.search(f"<{name}>(.*?)</{name}>", text, re.DOTALL)
    if found is None:
        raise ValueError(name)
    return found[1]


def _request(root: str, prefix: str, after: str | None) -> str:
    """Ask for a page: obstore signs a request for an object whose address is the listing's."""
    from obstore.store import S3Store  # noqa: PLC0415

    if not root.startswith("s3://"):
        raise ValueError(root)
    asked = {"list-type": "2", "encoding-type": "url", "prefix": f"{prefix}/" if prefix else ""}
    asked |= {"start-after": after} if after else {}
    words = "&".join(f"{name}={quote(value, safe='')}" for name, value in asked.items())
    address = f"{_bucket_url(root.removeprefix('s3://'))}?{words}&x-id=ListObjectsV2"
    with failing(root):
        listing = S3Store(
            "listing",
            aws_endpoint_url_s3=address,
            virtual_hosted_style_request=True,
            retry_config=FIRST,
            client_options=client_options(patient=False),
        )
        answer = listing.get("page")
        if answer.meta["size"] > _MOST_PAGE:
            raise ValueError(answer.meta["size"])
        return bytes(answer.bytes()).decode()


def _bucket_url(bucket: str) -> str:
    """Return the address of a bucket, as the environment has it."""
    own = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or os.environ.get("AWS_ENDPOINT")
    if own and os.environ.get("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "").lower() == "true":
        return own.rstrip("/")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    return f"{(own or f'https://s3.{region}.amazonaws.com').rstrip('/')}/{bucket}"
