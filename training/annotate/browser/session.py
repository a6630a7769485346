"""What the page and the command behind it have in common: the images asked for, and how far the run is."""

import time
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from threading import Event, Lock
from typing import Any

from alserve.errors import OptionError
from alserve.paths import printable
from training.annotate.browser.drawing import DONE, Drawing, State

PRESENT_SECONDS = 5.0
"""A page that asked within this time is open; it asks every second or two."""


class Phase(StrEnum):
    """What the command does."""

    DRAWING = "drawing"
    """It waits for the person."""
    LEARNING = "learning"
    ENDED = "ended"
    """There is nothing more to draw, and the command ends."""


class Session:
    """The images that are asked for now, and what the page shows of the run. Used by several threads.

    Args:
        learns: Whether a run goes on when all is drawn.
    """

    def __init__(self, *, learns: bool) -> None:
        self.learns = learns
        self.lock = Lock()
        """Held while files are changed."""
        self.drawings: dict[str, Drawing] = {}
        """By their keys."""
        self.phase = Phase.DRAWING
        self.report: Path | None = None
        self.report_shown = Event()
        self._message = ""
        self._share: float | None = None
        self._drawn = Event()
        self._asked = -PRESENT_SECONDS

    def ask(self, drawings: Sequence[Drawing]) -> None:
        """Show these images in place of the earlier ones; where there are none, the run is learning."""
        self._drawn.clear()
        self.drawings = {drawing.key: drawing for drawing in drawings}
        self.phase = Phase.DRAWING if drawings else Phase.LEARNING

    def wait(self, seconds: float) -> bool:
        """Wait that long, at most, for the person to say that all is drawn; return whether that is so."""
        return self._drawn.wait(seconds)

    def tell(self, message: str, share: float | None) -> None:
        """Note what the run does and, 0 to 1, how much of it is done."""
        self._message, self._share = message, share

    def finish(self) -> None:
        """The person says that all is drawn.

        Raises:
            OptionError: It is not.
        """
        with self.lock:
            left = sum(drawing.examine()[0] not in DONE for drawing in self.drawings.values())
        if left:
            raise OptionError(f"{left} of {len(self.drawings)} images are still to be drawn")
        if self.phase == Phase.DRAWING:
            self.tell("reading the masks", None)
            self.phase = Phase.LEARNING if self.learns else Phase.ENDED
        self._drawn.set()

    def end(self, report: Path | None) -> None:
        """There is nothing more to draw."""
        self.report, self.phase = report, Phase.ENDED

    @property
    def page_is_open(self) -> bool:
        """Whether a page has asked a moment ago."""
        return time.monotonic() - self._asked < PRESENT_SECONDS

    def describe(self) -> dict[str, Any]:
        """Return what the page shows, as JSON has it; whoever asks is taken for an open page."""
        self._asked = time.monotonic()
        return {
            "phase": self.phase,
            "learns": self.learns,
            "message": self._message,
            "share": self._share,
            "report": printable(str(self.report.absolute())) if self.report else None,
            "images": [self._describe(drawing) for drawing in self.drawings.values()],
        }

    def _describe(self, drawing: Drawing) -> dict[str, Any]:
        with self.lock:
            state, problem = drawing.examine()
            version = drawing.version
        return {
            "key": drawing.key,
            "name": printable(drawing.name),
            "state": state,
            "done": state in DONE,
            "locked": state in {State.SKIPPED, State.EMPTY},
            "problem": printable(problem),
            "version": version,
        }
