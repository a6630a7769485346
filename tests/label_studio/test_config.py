"""Label Studio's labelling configuration: what can be filled is found, whatever else there is."""

import pytest

from alserve.errors import OptionError
from alserve.label_studio.config import MOST_CHARACTERS, Control, read_config

EVERYTHING = """\
<?xml version="1.0"?>
<View style="a: b">
  <!-- two images -->
  <Header value="Paint"/>
  <Image name="img" value="$picture"/><Image name="fixed" value="https://example.org/a.png"/>
  <View>
    <BrushLabels name="tag" toName="img"><Label value="Tumour" alias="malignant"/><Label value="x"/></BrushLabels>
  </View>
  <PolygonLabels name="outline" toName="img"><Label value="foreground"/></PolygonLabels>
  <Choices name="class" toName="img"><Choice value="benign"/><Choice value="malignant"/></Choices>
  <Choices name="other" toName="fixed"><Choice value="benign"/></Choices>
  <RectangleLabels name="box" toName="img"><Label value="foreground"/></RectangleLabels>
</View>"""


def test_controls_of_images_are_found() -> None:
    brush, outline, choices = read_config(EVERYTHING)
    assert brush == Control("BrushLabels", "tag", "img", "picture", ("malignant", "x"))
    assert outline == Control("PolygonLabels", "outline", "img", "picture", ("foreground",))
    assert choices == Control("Choices", "class", "img", "picture", ("benign", "malignant"))


@pytest.mark.parametrize(
    ("kind", "labels", "found"),
    [
        ("BrushLabels", ("malignant", "foreground"), [None, "malignant"]),
        ("BrushLabels", ("x", "foreground"), ["foreground", "foreground"]),
        ("PolygonLabels", ("x",), ["x", "x"]),
        ("BrushLabels", ("x", "y"), [None, None]),
        ("BrushLabels", (), [None, None]),
        ("Choices", ("x",), [None, None]),
        ("Choices", ("malignant", "benign"), ["benign", "malignant"]),
    ],
)
def test_the_label_of_a_class(kind: str, labels: tuple[str, ...], found: list[str | None]) -> None:
    control = Control(kind, "tag", "image", "image", labels)
    classes = ("benign", "malignant")
    assert control.fits(classes) == any(found)
    assert [control.label_of(name, classes) for name in classes] == found


ENTITIES = """<!DOCTYPE View [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]><View>&b;</View>"""


@pytest.mark.parametrize(
    ("xml", "words"),
    [
        (ENTITIES, "has a document type"),
        ('<!DOCTYPE View SYSTEM "file:///etc/passwd"><View/>', "has a document type"),
        ("<View>&a;</View>", "cannot be read: undefined entity"),
        ("<View>", "cannot be read: no element found"),
        ("", "cannot be read"),
        ("\ud800", "cannot be read"),
        ("<View/>" + " " * MOST_CHARACTERS, "more than 100,000 characters"),
    ],
)
def test_what_cannot_be_read_is_said(xml: str, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        read_config(xml)


def test_deep_elements_do_no_harm() -> None:
    assert read_config("<a>" * 10_000 + "</a>" * 10_000) == ()
