"""Folder inference: find the images, predict them on all cores, write masks, CAMs, overlays and a manifest.

Every worker takes an image (or a batch) all the way from bytes to files. The main thread hands out the work,
never more than a few batches ahead, and takes the results in order: more images do not take more memory.
"""

import errno
import json
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from alserve.engine import available_cores, choose_device
from alserve.errors import DataError, ImageError, RunError
from alserve.imageio import SUFFIXES, encode_png, read_image, to_grey, write_atomic
from alserve.modelfile import default_model
from alserve.predictor import Prediction, Predictor, load
from alserve.render import Pixels, overlay
from alserve.terminal import interruptible, progress, say

FOLDERS = {"mask": "masks", "cam": "cams", "overlay": "overlays"}
"""What can be saved, and the folder in OUT that it goes to."""

MANIFEST = "predictions.jsonl"

CUDA_BATCH = 16

_ONE_NAME_ONLY = {errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST}
"""Reasons for which one file cannot be written though others can."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """One image to do."""

    source: Path
    targets: dict[str, Path]
    """Where each picture goes, by its name in `FOLDERS`."""


@dataclass
class Summary:
    """How a run went."""

    images: int = 0
    """Images done, failed ones included."""
    failed: int = 0
    seconds: float = 0.0
    interrupted: bool = False

    @property
    def rate(self) -> float:
        """Images a second."""
        return self.images / self.seconds if self.seconds else 0.0

    @property
    def exit_code(self) -> int:
        """0 all done, 1 some images failed, 130 interrupted."""
        return 130 if self.interrupted else int(self.failed > 0)


def segment_command(
    inputs: Sequence[Path],
    out: Path,
    *,
    model: Path | None,
    save: str,
    batch_size: int | None,
    device: str,
    threads: int | None,
    overwrite: bool,
) -> int:
    """Run `alserve segment`.

    Args:
        inputs: Images and folders of images.
        out: Folder for the results.
        model: Model file; `default_model` if left out.
        save: Names of `FOLDERS`, with commas.
        batch_size: Images a network call; 1 on the CPU and `CUDA_BATCH` on a GPU if left out.
        device: See `alserve.engine.choose_device`.
        threads: Images or batches worked on at once; the cores this process may use if left out.
        overwrite: Replace earlier results.

    Returns:
        The exit code, see `Summary`.

    Raises:
        AlserveError: Inputs, output folder, model or device cannot be used.
    """
    jobs = plan(inputs, out, save=parse_save(save), overwrite=overwrite)
    workers = min(threads or available_cores(), len(jobs))
    predictor = load(model or default_model(), device=device, threads=max(1, (threads or available_cores()) // workers))
    engine = predictor.engine
    if choose_device(device)[0] != engine.device.partition(":")[0]:
        say("WARNING: this machine has a GPU, but CUDA cannot be used; 'alserve doctor' says why")
    say(f"{_count(len(jobs))}, {engine.path.name} on {engine.device}, {workers} at once")
    with interruptible() as stop:
        summary = run(predictor, jobs, out, batch_size=batch_size, workers=workers, stop=stop)
    failed = f", {summary.failed} failed (see {MANIFEST})" if summary.failed else ""
    stopped = f"interrupted after {summary.images} of " if summary.interrupted else ""
    print(f"{stopped}{_count(len(jobs))}{failed}, {summary.rate:.1f} images/s, in {out}")
    return summary.exit_code


def segment_folder(
    predictor: Predictor,
    inputs: Sequence[Path],
    out: Path,
    *,
    save: Iterable[str] = tuple(FOLDERS),
    batch_size: int | None = None,
    workers: int | None = None,
    overwrite: bool = False,
) -> Summary:
    """Segment images and folders with a model that is loaded already; best loaded with `threads=1`.

    Args:
        predictor: The model.
        inputs: Images and folders of images.
        out: Folder for the results.
        save: Which of `FOLDERS` to write.
        batch_size: See `segment_command`.
        workers: Images or batches worked on at once; the cores this process may use if left out.
        overwrite: Replace earlier results.

    Returns:
        How it went. An image that cannot be read is noted in the manifest and does not stop the rest.

    Raises:
        DataError: No images, or two of them would write the same file.
        RunError: `out` holds earlier results, or cannot be written.
    """
    jobs = plan(inputs, out, save=tuple(save), overwrite=overwrite)
    return run(predictor, jobs, out, batch_size=batch_size, workers=workers or available_cores())


def _count(images: int) -> str:
    return f"{images} image{'s' if images > 1 else ''}"


def parse_save(text: str) -> tuple[str, ...]:
    """Read the `--save` option: names of `FOLDERS`, with commas.

    Raises:
        DataError: A word is none of them.
    """
    words = tuple(dict.fromkeys(word.strip() for word in text.split(",")))
    for word in words:
        if word not in FOLDERS:
            raise DataError(f"--save '{word}': unknown; use {', '.join(FOLDERS)}, with commas between")
    return words


def plan(inputs: Sequence[Path], out: Path, *, save: Sequence[str], overwrite: bool) -> list[Job]:
    """Find the images and settle where their pictures go; nothing is written yet.

    Returns:
        The jobs, sorted by the path of their image.

    Raises:
        DataError: An input is missing, no images are found, or two would write the same file.
        RunError: `out` is no folder, or holds earlier results and `overwrite` is not set.
    """
    if out.exists() and not out.is_dir():
        raise RunError(f"{out}: is a file; name a folder with --out")
    if not overwrite and (out / MANIFEST).exists():
        raise RunError(f"{out}: holds the results of an earlier run; use --overwrite or another --out")
    own = frozenset(path.resolve() for path in (out, *(out / folder for folder in FOLDERS.values())))
    found = [pair for given in inputs for pair in _find(given, own)]
    if not found:
        raise DataError(f"no images in {', '.join(map(str, inputs))} (looked for {' '.join(sorted(SUFFIXES))})")
    jobs: list[Job] = []
    sources: dict[Path, Path] = {}
    for source, name in sorted(found, key=lambda pair: pair[0].as_posix()):
        if name in sources:
            raise DataError(
                f"{sources[name]} and {source} would both be written to {name}; rename one, or use two runs"
            )
        sources[name] = source
        jobs.append(Job(source, {word: out / FOLDERS[word] / name for word in save}))
    _protect(jobs, out, overwrite=overwrite)
    return jobs


def _find(given: Path, own: frozenset[Path]) -> Iterator[tuple[Path, Path]]:
    """Give each image of one input, with the name of its pictures relative to masks/, cams/ and overlays/."""
    try:
        if given.is_dir():
            for path in _images_below(given, own | {given.resolve()}):
                yield path, _png(path.relative_to(given))
        elif given.exists():
            yield given, _png(Path(given.name))
        else:
            raise DataError(f"{given}: no such file or folder")
    except OSError as error:
        raise DataError(f"{error.filename or given}: cannot be read: {error.strerror}") from None


def _images_below(folder: Path, seen: frozenset[Path]) -> Iterator[Path]:
    """Walk a folder but for those in `seen`: our own, and the ones above, for links can lead in circles."""
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir():
            if (real := path.resolve()) not in seen:
                yield from _images_below(path, seen | {real})
        elif path.suffix.lower() in SUFFIXES and (
            path.is_file() or not path.exists()
        ):  # no pipes; broken links fail later
            yield path


def _png(name: Path) -> Path:
    return name.with_suffix(".png") if name.suffix.lower() in SUFFIXES else name.with_name(f"{name.name}.png")


def _protect(jobs: Sequence[Job], out: Path, *, overwrite: bool) -> None:
    """Refuse to write over an input, and over any file unless that was asked for."""
    inside = {real for job in jobs if (real := job.source.resolve()).is_relative_to(out.resolve())}
    for target in (target for job in jobs for target in job.targets.values()):
        if inside and target.resolve() in inside:
            raise RunError(f"{target}: is an input and would be written over; use another --out")
        if not overwrite and os.path.lexists(target):
            raise RunError(f"{target}: exists already; use --overwrite or another --out")


def run(
    predictor: Predictor,
    jobs: Sequence[Job],
    out: Path,
    *,
    batch_size: int | None,
    workers: int,
    stop: threading.Event | None = None,
) -> Summary:
    """Do the jobs and write the manifest, also when the run is cut short.

    Args:
        predictor: The model.
        jobs: What to do, from `plan`.
        out: Folder for the results.
        batch_size: See `segment_command`.
        workers: Batches worked on at once.
        stop: When set, no further batch is begun; those begun are finished.

    Raises:
        RunError: A file cannot be written for a reason that would stop the others too.
    """
    size = batch_size or (1 if predictor.engine.device == "cpu" else CUDA_BATCH)
    stop = stop or threading.Event()
    batches = (jobs[start : start + size] for start in range(0, len(jobs), size))
    begun = takewhile(lambda _: not stop.is_set(), batches)
    rows: list[str] = []
    summary, start = Summary(), time.perf_counter()
    with progress(len(jobs)) as advance:
        try:
            for row in _in_order(lambda batch: _do(predictor, batch), begun, workers):
                rows.append(json.dumps(row) + "\n")
                summary.images += 1
                if row["error"]:
                    summary.failed += 1
                    say(f"{row['path']!r}: {row['error']}")
                summary.seconds = time.perf_counter() - start
                advance(summary.images)
        finally:
            _write(out / MANIFEST, "".join(rows).encode())
    summary.interrupted = stop.is_set() and summary.images < len(jobs)
    return summary


def _in_order(
    work: Callable[[Sequence[Job]], list[Row]], batches: Iterable[Sequence[Job]], workers: int
) -> Iterator[Row]:
    """Work on batches in threads, a few ahead of the one whose rows are wanted next."""
    waiting: deque[Future[list[Row]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for batch in batches:
                waiting.append(pool.submit(work, batch))
                if len(waiting) > 2 * workers:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _do(predictor: Predictor, batch: Sequence[Job]) -> list[Row]:
    """Take some images from bytes to files, and give a manifest row for each."""
    images: dict[int, Pixels] = {}
    rows = [_row(job) for job in batch]
    for index, job in enumerate(batch):
        try:
            images[index] = read_image(job.source)
        except ImageError as error:
            rows[index] = _failed(job, str(error))
    for (index, image), prediction in zip(images.items(), predictor.predict(list(images.values())), strict=True):
        rows[index] = _finish(batch[index], image, prediction)
    return rows


def _finish(job: Job, image: Pixels, prediction: Prediction) -> Row:
    """Write the pictures of one image."""
    mask = prediction.mask()
    draw: dict[str, Callable[[], Pixels]] = {
        "mask": lambda: to_grey(mask),
        "cam": lambda: to_grey(prediction.cam()),
        "overlay": lambda: overlay(image, mask),
    }
    try:
        for word, target in job.targets.items():
            _write(target, encode_png(draw[word]()))
    except ImageError as error:
        return _failed(job, str(error))
    return _row(
        job,
        label=prediction.label,
        scores=prediction.scores,
        foreground=float(mask.mean()),
        width=prediction.width,
        height=prediction.height,
    )


def _row(job: Job, **values: Any) -> Row:  # noqa: ANN401
    """Give a manifest row; every row has all keys."""
    keys = ("error", "label", "scores", "foreground", "width", "height")
    return {"path": job.source.as_posix(), "status": "ok", **dict.fromkeys(keys), **values}


def _failed(job: Job, error: str) -> Row:
    """Give the row of an image that failed; pictures of it from an earlier run are taken away."""
    for target in job.targets.values():
        with suppress(OSError):
            target.unlink()
    return _row(job, status="error", error=error)


def _write(path: Path, data: bytes) -> None:
    """Write a file; tell a name that cannot be written from a folder that cannot."""
    try:
        write_atomic(path, data)
    except OSError as error:
        message = f"{path}: cannot be written: {error.strerror}"
        raise (ImageError if error.errno in _ONE_NAME_ONLY else RunError)(message) from None
