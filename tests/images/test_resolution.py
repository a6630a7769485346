"""The size of a pixel: believed where a microscope's file states it, and nowhere else."""

import time
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import pytest
from decoding import SECONDS
from hypothesis import given
from hypothesis import strategies as st
from pictures import encoded, picture
from PIL.TiffImagePlugin import IFDRational, ImageFileDirectory_v2

from alserve.images.decoders import Decoders
from alserve.images.header import read_header
from alserve.images.resolution import LEAST_UM, MOST_UM, stated_um_per_pixel

PIXELS = picture(30, 40)

IMAGEJ = "ImageJ=1.54f\nimages=1\nunit={}\nmin=0.0\nmax=255.0\n"

OME = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<!-- made by a program -->\n'
    '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0"><Pixels ID="Pixels:0" '
    'SizeX="40" SizeY="30" Type="uint8" {}><TiffData/></Pixels></Image><Image ID="Image:1"><Pixels SizeX="40" '
    'SizeY="30" PhysicalSizeX="9" PhysicalSizeY="9"/></Image></OME>'
)


def tiff(description: str | bytes = "", x: Any = None, y: Any = None, unit: int = 1, **options: Any) -> bytes:
    tags = ImageFileDirectory_v2()
    if description:
        tags[270] = description
    if x is not None:
        tags[282], tags[283] = x, x if y is None else y
        tags[296] = unit
    return encoded(PIXELS, "TIFF", tiffinfo=tags, **options)


def ome(text: str, **options: Any) -> bytes:
    return tiff(OME.format(text).encode(), **options)


def stated(data: bytes) -> float | None:
    return stated_um_per_pixel(data, read_header(data))


@pytest.mark.parametrize(
    ("unit", "a_unit", "side"),
    [
        ("micron", 4, 0.25),
        ("um", 4, 0.25),
        ("µm", 4, 0.25),
        ("\\u00B5m", 2.5, 0.4),
        ("mm", 1000, 1),
        ("nm", 0.02, 0.05),
    ],
)
def test_imagej_states_pixels_to_a_unit(unit: str, a_unit: float, side: float) -> None:
    data = tiff(IMAGEJ.format(unit).encode(), IFDRational(Fraction(str(a_unit))))
    assert stated(data) == pytest.approx(side, rel=1e-6)


@pytest.mark.parametrize("options", [{}, {"big_tiff": True}])
@pytest.mark.parametrize(
    ("text", "side"),
    [
        ('PhysicalSizeX="0.25" PhysicalSizeY="0.25"', 0.25),
        ('PhysicalSizeX="0.5" PhysicalSizeXUnit="µm" PhysicalSizeY="0.5" PhysicalSizeYUnit="µm"', 0.5),
        ('PhysicalSizeX="250" PhysicalSizeXUnit="nm" PhysicalSizeY="2.5E-4" PhysicalSizeYUnit="mm"', 0.25),
    ],
)
def test_ome_states_the_sides_of_a_pixel_of_its_first_image(text: str, side: float, options: dict[str, Any]) -> None:
    assert stated(ome(text, **options)) == pytest.approx(side)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(encoded(PIXELS, "PNG", dpi=(96, 96)), id="png"),
        pytest.param(encoded(PIXELS, "JPEG", dpi=(300, 300)), id="jpeg"),
        pytest.param(tiff(x=72, unit=2), id="72 dots an inch"),
        pytest.param(
            tiff(x=40_000, unit=3), id="40,000 pixels a centimetre, for which any program can have written it"
        ),
        pytest.param(tiff(IMAGEJ.format("micron"), 4, 5), id="pixels that are not square"),
        pytest.param(tiff(IMAGEJ.format("micron"), 1), id="what nobody has set"),
        pytest.param(tiff(IMAGEJ.format("micron"), 4, unit=3), id="two units"),
        pytest.param(tiff(IMAGEJ.format("micron\nyunit=mm"), 4), id="two units of sides"),
        pytest.param(tiff(IMAGEJ.format("micron"), IFDRational(0, 1)), id="zero"),
        pytest.param(tiff(IMAGEJ.format("micron"), IFDRational(1, 0)), id="by zero"),
        pytest.param(tiff(IMAGEJ.format("micron")), id="no resolution"),
        pytest.param(tiff(IMAGEJ.format("pixel"), 4), id="pixels"),
        pytest.param(tiff(IMAGEJ.format("inch"), 72, unit=2), id="inches"),
        pytest.param(tiff("ImageJ=1.54f\n", 4), id="no unit"),
        pytest.param(ome(""), id="no size"),
        pytest.param(ome('PhysicalSizeX="0.25"'), id="one side"),
        pytest.param(ome('PhysicalSizeX="0.25" PhysicalSizeY="0.26"'), id="sides that differ"),
        pytest.param(ome('PhysicalSizeX="1" PhysicalSizeXUnit="pixel" PhysicalSizeY="1"'), id="a unit of no length"),
        *(
            pytest.param(ome(f'PhysicalSizeX="{size}" PhysicalSizeY="{size}"'), id=f"a side of {size}")
            for size in ("0", "-1", "nan", "inf", "1e300", "1e-300", "wide")
        ),
        pytest.param(
            ome('PhysicalSizeX="1" PhysicalSizeY="1"').replace(b'SizeX="40"', b'SizeX="80"', 1), id="of another"
        ),
        pytest.param(tiff("<OME><BinaryOnly/></OME>"), id="no image"),
    ],
)
def test_what_is_not_believed(data: bytes) -> None:
    assert stated(data) is None


_ENTITIES = '<!DOCTYPE OME [<!ENTITY a "0.25"><!ENTITY b "&a;&a;">]>'
HOSTILE = {
    "entities": OME.format('PhysicalSizeX="&a;" PhysicalSizeY="&a;"').replace("<!-- made by a program -->", _ENTITIES),
    "a document from elsewhere": '<!DOCTYPE OME SYSTEM "file:///etc/passwd"><OME/>',
    "deep": "<OME>" + "<a>" * 2_000_000,
    "long": f'<OME a="{"x" * 8_000_000}"/>',
    "many": "<OME " + " ".join(f'a{number}=""' for number in range(500_000)) + ">",
    "far": "<OME>" + " " * 2_000_000 + '<Pixels SizeX="40" SizeY="30" PhysicalSizeX="1" PhysicalSizeY="1"/>',
    "lines": "ImageJ=1\n" + "a=b\n" * 2_000_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_description_is_soon_done_with(name: str) -> None:
    data = tiff(HOSTILE[name].encode())
    start = time.process_time()
    assert stated(data) is None
    assert time.process_time() - start < 10


@given(st.binary(max_size=80), st.integers(0, 900))
def test_a_damaged_file_states_nothing_or_a_number(piece: bytes, at: int) -> None:
    whole = ome('PhysicalSizeX="0.25" PhysicalSizeY="0.25"')
    header = read_header(whole)
    for data in (whole[:at] + piece + whole[at + len(piece) :], whole[: at * 4]):
        found = stated_um_per_pixel(data, header)
        assert found is None or LEAST_UM <= found <= MOST_UM


@pytest.fixture(scope="module")
def decoders() -> Iterator[Decoders]:
    with Decoders(1, SECONDS) as decoders:
        yield decoders


def test_it_comes_with_the_pixels_at_any_size(decoders: Decoders) -> None:
    data = ome('PhysicalSizeX="0.25" PhysicalSizeY="0.25"')
    for short_side in (0, 16):
        assert decoders.decode(data, short_side=short_side).um_per_pixel == 0.25
    assert decoders.decode(encoded(PIXELS, "PNG", dpi=(96, 96))).um_per_pixel is None
