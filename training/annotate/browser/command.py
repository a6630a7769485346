"""The command `alserve annotate`: draw what a folder asks for."""

from pathlib import Path

from alserve.errors import DataError
from alserve.measure.folders import find_pictures
from alserve.terminal import say
from training.annotate.browser.drawing import Drawing
from training.annotate.browser.oracle import LOOK_SECONDS
from training.annotate.browser.server import serving
from training.annotate.browser.session import Session


def annotate_folder(folder: Path, *, port: int = 0, opens: bool | None = None) -> None:
    """Serve the page on which a folder's masks are drawn, until the person says that all are.

    Args:
        folder: That of `alserve train --oracle folder:DIR`.
        port: See `training.annotate.browser.server.serving`.
        opens: See there.

    Raises:
        DataError: Nothing is to be drawn there.
        RunError: Another process serves the folder.
        ServiceError: The port cannot be had.
    """
    images = folder / "images"
    drawings = [Drawing(folder, path.relative_to(images).as_posix()) for path in find_pictures(images).values()]
    if not drawings:
        raise DataError(
            f"{folder}: nothing is to be drawn here; 'alserve train --oracle folder:{folder}' asks for masks"
        )
    session = Session(learns=False)
    session.ask(drawings)
    with serving(folder, session, port=port, opens=opens) as address:
        say(f"draw at {address} until all is done, or until Ctrl-C; every stroke is saved")
        while not session.wait(LOOK_SECONDS):
            pass
    say(f"all is drawn, in {folder / 'masks'}; go on with the same 'alserve train' command as before")
