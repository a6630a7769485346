"""A person as the oracle, who draws on a page while the run waits."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from alserve.measure.dataset import Sample
from alserve.terminal import say, watched
from training.annotate.browser.drawing import Drawing
from training.annotate.browser.server import serving, wait_for_report
from training.annotate.browser.session import Session
from training.annotate.oracle import FolderOracle

LOOK_SECONDS = 0.5
"""Ctrl-C is heeded as often."""


class BrowserOracle(FolderOracle):
    """A person, who draws masks on a page in the browser; a `FolderOracle` that waits for them.

    Args:
        folder: Of images, drafts and masks. The page opens when the first masks are wanted.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._session = Session(learns=True)
        self._page = ExitStack()
        self._address = ""

    def request(self, samples: Sequence[Sample], model: Path | None) -> bool:
        """Show the images on the page, and wait until the person says that all are drawn."""
        self.lay_out(samples, model)
        self._session.ask([Drawing(self.folder, sample.name) for sample in samples])
        if not self._address:
            self._address = self._page.enter_context(serving(self.folder, self._session))
            self._page.enter_context(watched(self._session.tell))
        if not samples:
            return False
        say(f"{len(samples)} {'mask' if len(samples) == 1 else 'masks'} to draw: open {self._address}")
        while not self._session.wait(LOOK_SECONDS):
            pass
        return True

    def end(self, report: Path | None) -> None:
        """Show the report on the page if it is open, and close the server."""
        self._session.end(report)
        if report is not None:
            wait_for_report(self._session)
        self._page.close()
