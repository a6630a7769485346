"""What a folder run is to do: the images, the names of their output files, and what is left out and why."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from alserve.folder.shards import Shard
from alserve.images.codec import peek_shape
from alserve.outputs import OUTPUTS
from alserve.places.place import Place, SizeOf, Version

LEFT_OUT = "left-out.jsonl"
"""The file in OUT that lists what the latest run left out: a JSON object a file, path and reason."""

Item_co = TypeVar("Item_co", covariant=True)


class Many(Protocol[Item_co]):
    """Things that can be counted, and gone through more than once; there may be too many for the memory."""

    def __len__(self) -> int:
        """Return how many there are."""

    def __iter__(self) -> Iterator[Item_co]:
        """Go through them, from the first."""


@dataclass(frozen=True, slots=True)
class PlannedImage:
    """One image to do."""

    place: Place
    """Where it is."""
    source: str
    """Its name there."""
    name: str
    """The name of its PNG files, relative to masks/, cams/ and so on; other outputs have another suffix."""
    out: Place
    """Where its output files go."""
    save: tuple[str, ...]
    listed: Version | None = None
    """Its state when the place was listed, where the place is an object store."""

    @property
    def path(self) -> str:
        """What messages and the manifest call it."""
        return self.place.path(self.source)

    @property
    def targets(self) -> dict[str, str]:
        """The names of its files in `out`, by the name of their output."""
        return {word: OUTPUTS[word].file_name(self.name) for word in self.save}

    def look(self) -> Version | None:
        """Return its state; None if it is not there, or no regular file."""
        return self.listed or self.place.look(self.source)

    def peek_shape(self) -> tuple[int, int] | None:
        """Return its (height, width) from its header; None if it has none, or is not on a disk of this machine."""
        path = self.place.local(self.source)
        return peek_shape(path) if path and Version.of(path) else None


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A file or folder that is not done."""

    path: str
    reason: str
    """What it is, such as "HEIC" or "pipe"."""
    wanted: bool = False
    """It was named as an input, or is a folder that cannot be read: the run does not count as all done."""


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a run is to do."""

    out: Place
    """Where the results go."""
    images: Many[PlannedImage]
    """The images of this shard, sorted by path."""
    there: SizeOf
    """Tells the size of an output file that is there already."""
    left_out: Many[LeftOut] = ()
    """What is left out, of all shards, sorted by path."""
    total: int = 0
    """Number of images of all shards."""
    names: str = ""
    """Hash of the names of all shards: two shards with the same one saw the same folder."""
    shard: Shard = field(default_factory=Shard)
    gather: Callable[[Iterable[PlannedImage]], Many[PlannedImage]] = list
    """Holds some of the images."""

    def describe_left_out(self) -> str:
        """Return one line that counts by reason what is left out, with an example of each; empty if nothing is."""
        return describe_left_out(self.left_out)

    def list_left_out(self) -> Iterator[bytes]:
        """Return the lines of `LEFT_OUT`."""
        for item in self.left_out:
            yield json.dumps({"path": item.path, "reason": item.reason}).encode() + b"\n"


def describe_left_out(items: Iterable[LeftOut]) -> str:
    """Return one line that counts some files by reason, with an example of each; empty if there are none."""
    counts, examples = Counter[str](), dict[str, str]()
    for item in items:
        counts[item.reason] += 1
        examples.setdefault(item.reason, item.path)
    parts = (f"{count} {reason} ({examples[reason]!r})" for reason, count in sorted(counts.items()))
    return f"left out: {', '.join(parts)}" if counts else ""
