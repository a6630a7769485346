"""How a folder run went."""

from dataclasses import dataclass

from alserve.folder.manifest import ManifestRow
from alserve.folder.parts import read_rows
from alserve.folder.planned import LEFT_OUT
from alserve.places.urls import Location, open_file


@dataclass(frozen=True)
class SegmentResult:
    """How a folder run went; `str` of it is one line."""

    manifest: Location
    """The file with a row for each image, see `rows`: a path, or the URL of one in an object store; the other results
    lie beside it."""
    images: int = 0
    """Images done in this run, failed ones included."""
    failed: int = 0
    """Those among them that could not be read, or whose results could not be written."""
    skipped: int = 0
    """Images that an earlier run had done."""
    remaining: int = 0
    """Images that were not begun, since the run was interrupted."""
    left_out: int = 0
    """Files and folders that are listed in `left-out.jsonl`."""
    wanted: int = 0
    """Those among them that were named as inputs, or are folders that cannot be read."""
    seconds: float = 0.0
    """Time from the first image to the last."""

    @property
    def interrupted(self) -> bool:
        """Whether the run was stopped before all was done; the same call again continues it."""
        return self.remaining > 0

    @property
    def rate(self) -> float:
        """Images a second."""
        return self.images / self.seconds if self.seconds else 0.0

    @property
    def exit_code(self) -> int:
        """0 all done, 1 some images failed or were wanted but left out, 130 interrupted."""
        return 130 if self.interrupted else int(self.failed + self.wanted > 0)

    def rows(self) -> list[ManifestRow]:
        """Return the manifest's rows, one an image, sorted by path; those of earlier runs included.

        Raises:
            RunError: The manifest cannot be read any more.
        """
        return read_rows(*open_file(self.manifest))

    def describe(self) -> str:
        """Return one line: number of images, failed and left out, rate, and where the results are."""
        place, name = open_file(self.manifest)
        interrupted = f"interrupted after {self.images} of " if self.interrupted else ""
        skipped = f" ({self.skipped} were done already)" if self.skipped else ""
        failed = f", {self.failed} failed (see {name})" if self.failed else ""
        left_out = f", {self.left_out} left out (see {LEFT_OUT})" if self.left_out else ""
        images = count_images(self.images + self.remaining)
        return f"{interrupted}{images}{skipped}{failed}{left_out}, {self.rate:.1f} images/s, in {place.path()}"

    def __str__(self) -> str:
        return self.describe()


def count_images(images: int) -> str:
    """Return "1 image", "2 images" and so on."""
    return f"{images} image{'' if images == 1 else 's'}"
