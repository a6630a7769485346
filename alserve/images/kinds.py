"""Kinds of image file that are not read, told from their first bytes and, where those are not enough, from the suffix.

They are told from files that are no images, so that a folder run can name what it leaves out.
"""

import re
from pathlib import PurePath

from alserve.images import header

RAW, SLIDE = "raw photograph", "slide"

_SIGNATURES = (
    (8, b"CR\x02", RAW),  # Canon; before TIFF, which it is as well
    (0, b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG2000"),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"P7\nWIDTH ", "PAM"),
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

_BRANDS = {b"avif": "AVIF", b"avis": "AVIF", b"crx ": RAW}
_BRANDS |= dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "HEIC")
"""Brands of ISO media files that hold pictures; AVIF first, which can call itself mif1 too."""

_RAW_SUFFIX = re.compile(
    r"\.(3fr|arw|cr[23w]|dcr|dng|erf|iiq|kdc|mef|mos|mrw|nef|nrw|orf|pef|raf|raw|rw[2l]|sr[2fw]|x3f)"
)
_SLIDE_SUFFIX = re.compile(r"\.(bif|czi|isyntax|lif|mrxs|nd2|ndpis?|oir|qptiff|scn|svs|svslide|vm[su]|vsi|zvi)")
_SUFFIXES = {
    ".avif": "AVIF",
    ".dcm": "DICOM",
    ".dicom": "DICOM",
    ".exr": "OpenEXR",
    ".hdr": "Radiance HDR",
    ".jxl": "JPEG XL",
    ".nii": "NIfTI",
    ".pam": "PAM",
    ".psd": "PSD",
    **dict.fromkeys((".heic", ".heif", ".hif"), "HEIC"),
    **dict.fromkeys((".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpm", ".jpx"), "JPEG2000"),
}


def kind_of(head: bytes) -> str | None:
    """Tell the kind of an image file from its content.

    Args:
        head: Its first `alserve.images.header.HEAD` bytes.

    Returns:
        The name of the kind, one of `alserve.images.header.FORMATS` where it is read; None if it is no image, or of
        a kind that is not known here.
    """
    for offset, magic, kind in _SIGNATURES:
        if head.startswith(magic, offset):
            return kind
    if head[4:8] == b"ftyp":
        end = int.from_bytes(head[:4])
        brands = {head[8:12], *(head[at : at + 4] for at in range(16, min(end, len(head)), 4))}
        return next((kind for brand, kind in _BRANDS.items() if brand in brands), None)
    return header.kind_of(head)


def kind_of_file(name: PurePath, head: bytes) -> str | None:
    """Tell the kind of an image file from its name and content.

    Raw photographs and slides go by their suffix: many begin as a TIFF or a JPEG that shows a thumbnail only.

    Args:
        name: The file's name.
        head: Its first `alserve.images.header.HEAD` bytes; none, where they cannot be had.

    Returns:
        The name of the kind; None if neither name nor content is an image's.
    """
    suffix = name.suffix.lower()
    if _RAW_SUFFIX.fullmatch(suffix):
        return RAW
    if _SLIDE_SUFFIX.fullmatch(suffix):
        return SLIDE
    return kind_of(head) or _SUFFIXES.get(suffix)
