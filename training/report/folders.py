"""Reports of folders: of one run, or of several compared."""

import re
from collections.abc import Sequence
from pathlib import Path

from alserve.errors import OptionError, RunError
from alserve.files import write_atomic
from alserve.paths import printable
from training.report.figures import Curve, draw_curves
from training.report.groups import find_runs
from training.report.measures import measure_of
from training.report.several import report_several
from training.report.single import report_run


def report_folders(folders: Sequence[Path], out: Path | None = None, *, between: str | None = None) -> Path:
    """Write `report.html` and `figures/` of the runs in folders, and for several runs `results.md`.

    Args:
        folders: Runs, or folders of runs such as an experiment's; at least one.
        out: Folder to write to; the folder itself if there is only one.
        between: Range of masks over which areas are compared, such as "8-24". Default: as far as all runs go.

    Returns:
        The page.

    Raises:
        OptionError: `between` is no range.
        RunError: A folder holds no run, no round is finished yet, none of several runs of an earlier version has a
            model, they learned from different data, or `out` is wanting.
    """
    if out is None and len(folders) > 1:
        raise RunError("the report of several folders needs a folder of its own; name it with --out")
    out = out or folders[0]
    runs = find_runs(folders)
    if not any(run.rounds for run in runs):
        raise RunError(f"{folders[0]}: no round is finished yet; run the same command again to continue")
    title = printable(out.absolute().name)
    if len(runs) > 1:
        return report_several(runs, out, title=title, between=_range(between) if between else None)
    measure = measure_of(runs[0].rounds)
    curve = Curve.of_rounds(title, runs[0].rounds, measure.key)
    for kind in ("svg", "png") if curve.points else ():
        write_atomic(out / "figures" / f"dice.{kind}", draw_curves([curve], measure=f"{measure.name} (%)", kind=kind))
    report_run(runs[0].folder, out / "report.html")
    return out / "report.html"


def _range(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)-(\d+)", text)
    if found is None or int(found[1]) >= int(found[2]):
        raise OptionError(f"--between {text}: name two numbers of masks, the smaller first, such as 8-24")
    return int(found[1]), int(found[2])
