"""What `--oracle` may be."""

from collections.abc import Callable
from pathlib import Path

from alserve.errors import DataError
from alserve.registry import suggest
from training.annotate.browser.oracle import BrowserOracle
from training.annotate.label_studio import LabelStudioOracle
from training.annotate.oracle import FolderOracle, Oracle, SimulatedOracle

ORACLES: dict[str, Callable[[str, Path], Oracle]] = {
    "data": lambda _place, _run: SimulatedOracle(),
    "browser": lambda _place, run: BrowserOracle(run / "annotate"),
    "folder:DIR": lambda place, _run: FolderOracle(Path(place)),
    "label-studio:PROJECT": lambda place, _run: LabelStudioOracle(place),
}
"""How each is written, and what makes it of what follows the colon and of the run's folder."""


def open_oracle(name: str, run: Path) -> Oracle:
    """Return the oracle of a name.

    Args:
        name: "data", the data set's own masks; "browser", a person who draws them on a page while the run waits;
            "folder:DIR", a person who draws them in this folder; or "label-studio:PROJECT", one who draws them in this
            project of Label Studio, or "label-studio:PROJECT:consensus" for several, see `LabelStudioOracle`.
        run: Folder of the run.

    Raises:
        DataError: It is none of these.
    """
    for form, make in ORACLES.items():
        kind, colon, _ = form.partition(":")
        given, separator, place = name.partition(":")
        if (given, separator) == (kind, colon) and bool(place) == bool(colon):
            return make(place, run)
    raise DataError(f"unknown --oracle '{name}'; {suggest(name, ORACLES)}, to draw the masks yourself")
