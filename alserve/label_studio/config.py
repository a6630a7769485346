"""Label Studio's labelling configuration: the controls with which an image is labelled.

The XML may be a stranger's: a document type, which could declare entities, is refused.
"""

from dataclasses import dataclass, field
from typing import Literal, cast, get_args
from xml.parsers.expat import ExpatError, ParserCreate

from alserve.errors import OptionError

MOST_CHARACTERS = 100_000
"""A longer configuration is refused."""

FOREGROUND = "foreground"
"""The label of a mask, whatever the class of its image."""

SETUP = f"""\
<View>
  <Image name="image" value="$image"/>
  <BrushLabels name="tag" toName="image">
    <Label value="{FOREGROUND}"/>
  </BrushLabels>
</View>"""
"""The labelling configuration that tasks of our own making fit."""

MODEL = "alserve"
"""What Label Studio calls whoever made the masks of such tasks."""

Kind = Literal["BrushLabels", "PolygonLabels", "Choices"]

_LABEL = {"Label", "Choice"}


@dataclass(frozen=True)
class Control:
    """A control of the labelling configuration that labels an image."""

    kind: Kind
    name: str
    image: str
    """Name of the image that it labels."""
    key: str
    """Where a task's data has the address of that image."""
    labels: tuple[str, ...]

    def fits(self, classes: tuple[str, ...]) -> bool:
        """Tell whether `label_of` has a label for any of these classes."""
        return not set(classes).isdisjoint(self.labels) or self._any_class is not None

    def label_of(self, name: str, classes: tuple[str, ...]) -> str | None:
        """Return the label for the foreground of an image, or for the image itself.

        Args:
            name: The image's class.
            classes: All classes.

        Returns:
            The class itself, where some labels are classes. Else, for the foreground, `FOREGROUND` or the only label.
            None where there is no label for it.
        """
        if set(classes).isdisjoint(self.labels):
            return self._any_class
        return name if name in self.labels else None

    @property
    def _any_class(self) -> str | None:
        """The label for the foreground of images of any class."""
        if self.kind == "Choices":
            return None
        return FOREGROUND if FOREGROUND in self.labels else self.labels[0] if len(self.labels) == 1 else None


@dataclass
class _Open:
    """A control whose labels are being read."""

    kind: Kind
    name: str
    targets: list[str]
    labels: list[str] = field(default_factory=list)


def read_config(xml: str) -> tuple[Control, ...]:
    """Return the controls that label an image with a brush, polygons or choices, in order; others are passed over.

    Args:
        xml: The labelling configuration. A label with an alias is known by that.

    Raises:
        OptionError: It is too long, is no XML, or has a document type.
    """
    if len(xml) > MOST_CHARACTERS:
        raise OptionError(f"the labelling configuration has more than {MOST_CHARACTERS:,} characters")
    images: dict[str, str] = {}
    controls: list[_Open] = []
    parser = ParserCreate()

    def start(tag: str, attributes: dict[str, str]) -> None:
        name, value = attributes.get("name", ""), attributes.get("value", "")
        if tag == "Image" and value.startswith("$"):
            images[name] = value.removeprefix("$")
        elif tag in get_args(Kind):
            controls.append(_Open(cast("Kind", tag), name, attributes.get("toName", "").split(",")))
        elif tag in _LABEL and controls and (label := attributes.get("alias") or value):
            controls[-1].labels.append(label)

    def refuse(*_: object) -> None:
        raise OptionError("the labelling configuration has a document type, which is not read; remove <!DOCTYPE ...>")

    parser.StartElementHandler = start
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(xml, True)  # noqa: FBT003
    except (ExpatError, ValueError) as error:  # ValueError: what is no text
        raise OptionError(f"the labelling configuration cannot be read: {error}") from None
    return tuple(
        Control(found.kind, found.name, target, images[target], tuple(found.labels))
        for found in controls
        for target in found.targets[:1]
        if target in images
    )
