"""From folders to a page: of one run, or of several beside each other."""

from collections.abc import Sequence
from pathlib import Path

from alserve.errors import RunError
from alserve.imageio import write_atomic
from training.report.figures import Curve, draw_curves
from training.report.groups import find_runs
from training.report.several import report_several
from training.report.single import report_run


def report_folders(folders: Sequence[Path], out: Path | None = None) -> Path:
    """Write `report.html` and `figures/` of the runs in folders, and for several runs `results.md`.

    Args:
        folders: Runs, or folders of runs such as an experiment's; at least one.
        out: Folder to write to; the folder itself if there is only one.

    Returns:
        The page.

    Raises:
        RunError: A folder holds no run, no round is finished yet, the runs learned from different data, or `out` is
            wanting.
    """
    if out is None and len(folders) > 1:
        raise RunError("where is the report of several folders to be? name a folder with --out")
    out = out or folders[0]
    runs = find_runs(folders)
    if not any(run.rounds for run in runs):
        raise RunError(f"{folders[0]}: no round is finished yet; run the same command again to continue")
    title = out.absolute().name
    if len(runs) > 1:
        return report_several(runs, out, title=title)
    curve = Curve.of_rounds(title, runs[0].rounds)
    for kind in ("svg", "png") if curve.points else ():
        write_atomic(out / "figures" / f"dice.{kind}", draw_curves([curve], kind=kind))
    report_run(runs[0].folder, out / "report.html")
    return out / "report.html"
