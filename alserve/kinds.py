"""Kinds of image file, told from their first bytes and, where those do not tell enough, from the suffix.

Kinds that Pillow knows have its names, as in `alserve.imageio.FORMATS`. Images of a kind that is not read are told
from other files, so that they can be named.
"""

import re
import stat
from pathlib import Path, PurePath

HEAD = 512
"""Bytes, from the beginning of a file, that `kind_of` looks at."""

RAW, SLIDE = "raw photograph", "slide"

_SIGNATURES = (
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"GIF87a", "GIF"),
    (0, b"GIF89a", "GIF"),
    (8, b"CR\x02", RAW),  # Canon; before TIFF, which it is as well
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "TIFF"),  # BigTIFF
    (0, b"MM\0+", "TIFF"),
    (0, b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG2000"),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"P7\nWIDTH ", "PPM"),
    (0, b"8BPS", "PSD"),
    (0, b"\x76\x2f\x31\x01", "OpenEXR"),
    (0, b"#?RADIANCE\n", "Radiance HDR"),
    (0, b"#?RGBE\n", "Radiance HDR"),
    (0, b"SIMPLE  =", "FITS"),
    (128, b"DICM", "DICOM"),
    (344, b"n+1\0", "NIfTI"),
    (0, b"ZISRAWFILE", SLIDE),
    (0, b"FUJIFILMCCD-RAW", RAW),
    (0, b"FOVb", RAW),
    (0, b"IIRO", RAW),
    (0, b"IIRS", RAW),
    (0, b"MMOR", RAW),
    (0, b"IIU\0", RAW),
)
"""(offset, bytes that stand there, kind); the first that fits holds."""

_PPM = re.compile(rb"P[1-6]\s+(#[^\n]*\n\s*)*\d+\s+(#[^\n]*\n\s*)*\d+\s")

_BMP_HEADERS = {12, 16, 40, 52, 56, 64, 108, 124}
"""Lengths in bytes that the header of a BMP, behind its 14 first bytes, can have."""

_BRANDS = {b"avif": "AVIF", b"avis": "AVIF", b"crx ": RAW}
_BRANDS |= dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "HEIC")
"""Brands of ISO media files that hold pictures; AVIF first, which can call itself mif1 too."""

_RAW_SUFFIXES = frozenset(
    (
        ".3fr",
        ".arw",
        ".cr2",
        ".cr3",
        ".crw",
        ".dcr",
        ".dng",
        ".erf",
        ".iiq",
        ".kdc",
        ".mef",
        ".mos",
        ".mrw",
        ".nef",
        ".nrw",
        ".orf",
        ".pef",
        ".raf",
        ".raw",
        ".rw2",
        ".rwl",
        ".sr2",
        ".srf",
        ".srw",
        ".x3f",
    )
)
_SLIDE_SUFFIXES = frozenset(
    (
        ".bif",
        ".czi",
        ".isyntax",
        ".lif",
        ".mrxs",
        ".nd2",
        ".ndpi",
        ".ndpis",
        ".oir",
        ".qptiff",
        ".scn",
        ".svs",
        ".svslide",
        ".vms",
        ".vmu",
        ".vsi",
        ".zvi",
    )
)
_SUFFIXES = {
    ".avif": "AVIF",
    ".dcm": "DICOM",
    ".dicom": "DICOM",
    ".exr": "OpenEXR",
    ".hdr": "Radiance HDR",
    ".jxl": "JPEG XL",
    ".nii": "NIfTI",
    ".psd": "PSD",
    **dict.fromkeys((".heic", ".heif", ".hif"), "HEIC"),
    **dict.fromkeys((".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpm", ".jpx"), "JPEG2000"),
    **dict.fromkeys((".ppm", ".pgm", ".pbm", ".pnm", ".pam"), "PPM"),
}


def kind_of(head: bytes) -> str | None:
    """Tell the kind of an image file from its content.

    Args:
        head: Its first `HEAD` bytes.

    Returns:
        The name of the kind; None if it is no image, or of a kind that is not known here.
    """
    for offset, magic, kind in _SIGNATURES:
        if head.startswith(magic, offset):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    if head[4:8] == b"ftyp":
        end = int.from_bytes(head[:4])
        brands = {head[8:12], *(head[at : at + 4] for at in range(16, min(end, len(head)), 4))}
        return next((kind for brand, kind in _BRANDS.items() if brand in brands), None)
    return "PPM" if _PPM.match(head) else None


def kind_of_file(name: PurePath, head: bytes) -> str | None:
    """Tell the kind of an image file from its name and content.

    Raw photographs and slides go by their suffix: many begin as a TIFF or a JPEG that shows a thumbnail only.

    Args:
        name: The file's name.
        head: Its first `HEAD` bytes; none, where they cannot be had.

    Returns:
        The name of the kind; None if neither name nor content is an image's.
    """
    suffix = name.suffix.lower()
    if suffix in _RAW_SUFFIXES:
        return RAW
    if suffix in _SLIDE_SUFFIXES:
        return SLIDE
    return kind_of(head) or _SUFFIXES.get(suffix)


def irregular(path: Path) -> str | None:
    """Tell what is at a path that is no file to read: "folder", "pipe", "socket" or "device".

    Returns:
        What it is; None for a file, and where there is nothing that can be looked at.
    """
    try:
        mode = path.stat().st_mode
    except OSError:
        return None
    if stat.S_ISREG(mode):
        return None
    kinds = ((stat.S_ISDIR, "folder"), (stat.S_ISFIFO, "pipe"), (stat.S_ISSOCK, "socket"))
    return next((word for fits, word in kinds if fits(mode)), "device")
