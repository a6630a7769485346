"""Names that come from files - a CSV, an archive, a program's JSON - as paths that cannot leave their folder."""

import os
import re
from pathlib import Path, PureWindowsPath

from alserve.errors import DataError

_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³]) *(\..*)?", re.IGNORECASE)
"""What Windows takes for a device, in any folder and with any suffix."""

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""Control characters and line breaks."""

_UNPRINTABLE = re.compile(f"{_CONTROL.pattern}|[\ud800-\udfff]")
"""These, and what is no character: bytes of a file name that are not in UTF-8."""


def below(folder: Path, name: str, source: object = "") -> Path:
    """Return the path of a file below a folder, by a name that need not be trusted.

    Args:
        folder: It need not exist.
        name: See `check_name`.
        source: What the name stands in, for the message.

    Returns:
        `folder / name`, which lies below the folder on every system, symbolic links followed.

    Raises:
        DataError: The name could lead out of the folder, or is none on some system.
    """
    check_name(name, source)
    path = folder / name
    try:
        inside = Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))
    except OSError as error:
        raise DataError(f"{path}: cannot be followed ({error.strerror})") from None
    if not inside:
        raise DataError(f"{path}: a symbolic link leads out of {folder}; remove the link, or name another folder")
    return path


def check_name(name: str, source: object = "") -> None:
    """Check that a name stays below whatever folder it is put into, on every system; no file is looked at.

    Args:
        name: Parts with forward slashes between them, such as "benign/1.png".
        source: What the name stands in, for the message.

    Raises:
        DataError: It is absolute or empty, has a part that is empty, "." or "..", a backslash, a drive letter or a
            control character, or a part that Windows reserves or shortens (CON, a dot or space at the end); or it
            cannot be written as a file name.
    """
    if fault := fault_of(name):
        where = f"{source}: " if source else ""
        raise DataError(f"{where}'{printable(name)}' {fault}; give the file another name below its folder")


def fault_of(name: str) -> str | None:
    """Return what `check_name` has against a name, as words that follow it; None if nothing."""
    parts = name.split("/")
    faults = {
        "is no name of a file": not name or "." in parts,
        "leads out of its folder": not parts[0] or any(part == ".." or PureWindowsPath(part).drive for part in parts),
        "has two slashes side by side, or one at its end": "" in parts,
        "has a backslash, which some systems take for a slash": "\\" in name,
        "has a control character": _CONTROL.search(name),
        "is no file name on Windows": any(part.endswith((".", " ")) or _RESERVED.fullmatch(part) for part in parts),
        "is no text": not _encodable(name),
    }
    return next((fault for fault, found in faults.items() if found), None)


def _encodable(name: str) -> bool:
    try:
        name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def printable(text: str) -> str:
    r"""Return a text as one line that any terminal, page or file takes: control characters become \x1b, \n, \udcff."""
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)
