"""Folder inference: find the images, predict them on all cores, write masks, CAMs, overlays and a manifest.

Every worker takes an image (or a batch) all the way from bytes to files, so that reading, decoding, prediction,
encoding and writing overlap. The main thread hands out the work, never more than a few batches ahead, and notes the
results in order: more images do not take more memory. What the manifest says is done is not done again.
"""

import errno
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from alserve.device import available_cores
from alserve.errors import DataError, ImageError, RunError
from alserve.files import remove_unfinished, write_atomic
from alserve.geometry import working_shape
from alserve.header import MAX_PIXELS, SUFFIXES, read_header
from alserve.imageio import (
    decode_picture,
    encode_png,
    peek_shape,
    read_bytes,
    to_grey,
)
from alserve.manifest import Manifest, Row, Shard, Version
from alserve.modelfile import default_model
from alserve.parallel import ordered_map
from alserve.predictor import Prediction, Predictor, load
from alserve.render import Pixels, overlay
from alserve.terminal import interruptible, progress, say
from alserve.tiling import Tiling

FOLDERS = {"mask": "masks", "cam": "cams", "overlay": "overlays"}
"""What can be saved, and the folder in OUT that it goes to."""

LARGE_PIXELS = 1_000_000_000
"""An image of more pixels is refused where images are cut into tiles, unless more is allowed."""

BUCKETS = 32
"""Batches whose images are sorted by shape together, so that the network calls are full."""

_ONE_NAME_ONLY = {errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST}
"""Reasons for which one file cannot be written though others can."""


@dataclass(frozen=True)
class Options:
    """What decides the content of the results, besides the model."""

    save: tuple[str, ...] = tuple(FOLDERS)
    """Which of `FOLDERS` to write."""
    tiling: Tiling | None = None
    """How to cut large images."""
    max_pixels: int = MAX_PIXELS
    """A larger image is refused before it is decoded."""

    def describe(self) -> dict[str, Any]:
        """Give the part that the manifest notes."""
        tiling = self.tiling
        cut = None if tiling is None else {"side": tiling.side, "overlap": tiling.overlap, "auto": tiling.automatic}
        return {"save": sorted(self.save), "tile": cut}


@dataclass(frozen=True, slots=True)
class Job:
    """One image to do."""

    source: Path
    name: Path
    """The name of its pictures, relative to masks/, cams/ and overlays/."""
    out: Path
    save: tuple[str, ...]

    @property
    def targets(self) -> dict[str, Path]:
        """Where each picture goes, by its name in `FOLDERS`."""
        return {word: self.out / FOLDERS[word] / self.name for word in self.save}


@dataclass
class Summary:
    """How a run went."""

    images: int = 0
    """Images done in this run, failed ones included."""
    failed: int = 0
    skipped: int = 0
    """Images that an earlier run had done."""
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
    tile: str | None,
    overlap: int | None,
    max_pixels: int | None,
    shard: str | None,
    overwrite: bool,
    self_check: bool = True,
) -> int:
    """Run `alserve segment`.

    Args:
        inputs: Images and folders of images.
        out: Folder for the results.
        model: Model file; `default_model` if left out.
        save: Names of `FOLDERS`, with commas.
        batch_size: Images a network call; `Engine.batch_size` if left out.
        device: See `alserve.device.choose_device`.
        threads: Images or batches worked on at once; the cores this process may use if left out.
        tile: See `Tiling.of`; large images are not cut if left out.
        overlap: See `Tiling.of`.
        max_pixels: A larger image is refused; `MAX_PIXELS`, or `LARGE_PIXELS` with tiles, if left out.
        shard: "I/N", to do a stable N-th of the images.
        overwrite: Replace earlier results.
        self_check: Refuse a model that gives something else here than the trained network gave.

    Returns:
        The exit code, see `Summary`.

    Raises:
        AlserveError: Inputs, output folder, options, model or device cannot be used.
    """
    part, words = Shard.parse(shard) if shard else Shard(), parse_save(save)
    if overlap is not None and tile is None:
        raise DataError("--overlap is for tiles; give --tile too")
    jobs = plan(inputs, out, save=words, shard=part, overwrite=overwrite)
    cores = threads or available_cores()
    workers = min(cores, len(jobs)) or 1
    predictor = load(model or default_model(), device=device, threads=max(1, cores // workers), self_check=self_check)
    if note := predictor.engine.unchecked:
        say(note)
    tiling = None if tile is None else Tiling.of(tile, overlap, predictor.spec)
    options = Options(words, tiling, max_pixels or (MAX_PIXELS if tiling is None else LARGE_PIXELS))
    engine = predictor.engine
    with interruptible() as stop, _manifest(predictor, options, out, part, overwrite=overwrite) as manifest:
        say(f"{_count(len(jobs))}, {engine.path.name} on {engine.device} ({engine.device_reason}), {workers} at once")
        summary = run(predictor, jobs, manifest, options, batch_size=batch_size, workers=workers, stop=stop)
    skipped = f" ({summary.skipped} were done already)" if summary.skipped else ""
    failed = f", {summary.failed} failed (see {part.manifest})" if summary.failed else ""
    stopped = f"interrupted after {summary.images} of " if summary.interrupted else ""
    left = _count(len(jobs) - summary.skipped)
    print(f"{stopped}{left}{skipped}{failed}, {summary.rate:.1f} images/s, in {out}")
    return summary.exit_code


def segment_folder(
    predictor: Predictor,
    inputs: Sequence[Path],
    out: Path,
    *,
    save: Iterable[str] = tuple(FOLDERS),
    batch_size: int | None = None,
    workers: int | None = None,
    tiling: Tiling | None = None,
    overwrite: bool = False,
) -> Summary:
    """Segment images and folders with a model that is loaded already; best loaded with `threads=1`.

    Args:
        predictor: The model.
        inputs: Images and folders of images.
        out: Folder for the results; what an earlier run of the same model and options left there is kept.
        save: Which of `FOLDERS` to write.
        batch_size: Images a network call; `Engine.batch_size` if left out.
        workers: Images or batches worked on at once; the cores this process may use if left out.
        tiling: How to cut large images; not at all if left out.
        overwrite: Replace earlier results.

    Returns:
        How it went. An image that cannot be read is noted in the manifest and does not stop the rest.

    Raises:
        DataError: No images, or two of them would write the same file.
        RunError: `out` holds other results, or cannot be written.
    """
    options = Options(tuple(save), tiling, MAX_PIXELS if tiling is None else LARGE_PIXELS)
    jobs = plan(inputs, out, save=options.save, overwrite=overwrite)
    with _manifest(predictor, options, out, Shard(), overwrite=overwrite) as manifest:
        return run(predictor, jobs, manifest, options, batch_size=batch_size, workers=workers or available_cores())


def _manifest(predictor: Predictor, options: Options, out: Path, shard: Shard, *, overwrite: bool) -> Manifest:
    return Manifest(
        out / shard.manifest, model=predictor.engine.sha256, options=options.describe(), overwrite=overwrite
    )


def _count(images: int) -> str:
    return f"{images} image{'' if images == 1 else 's'}"


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


def plan(
    inputs: Sequence[Path], out: Path, *, save: tuple[str, ...], shard: Shard | None = None, overwrite: bool = False
) -> list[Job]:
    """Find the images and settle where their pictures go; nothing is written yet.

    Args:
        inputs: Images and folders of images.
        out: Folder for the results.
        save: Which of `FOLDERS` to write.
        shard: Leave out the images of all other shards.
        overwrite: Replace files that no manifest speaks of.

    Returns:
        The jobs, sorted by the path of their image.

    Raises:
        DataError: An input is missing, no images are found, or two would write the same file.
        RunError: `out` is no folder, or holds files that are not of a run.
    """
    if out.exists() and not out.is_dir():
        raise RunError(f"{out}: is a file; name a folder with --out")
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
        if shard is None or shard.takes(name.as_posix()):
            jobs.append(Job(source, name, out, save))
    _protect(jobs, out, overwrite=overwrite or any(out.glob("predictions*.jsonl")))
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
    """Refuse to write over an input, and over any file unless that was asked for or is of an earlier run."""
    inside = {real for job in jobs if (real := job.source.resolve()).is_relative_to(out.resolve())}
    for target in (target for job in jobs for target in job.targets.values()):
        if inside and target.resolve() in inside:
            raise RunError(f"{target}: is an input and would be written over; use another --out")
        if not overwrite and os.path.lexists(target):
            raise RunError(f"{target}: exists already; use --overwrite or another --out")


def run(
    predictor: Predictor,
    jobs: Sequence[Job],
    manifest: Manifest,
    options: Options,
    *,
    batch_size: int | None,
    workers: int,
    stop: threading.Event | None = None,
) -> Summary:
    """Do the jobs that the manifest does not hold, and note each in it.

    Args:
        predictor: The model.
        jobs: What to do, from `plan`.
        manifest: Where results are noted.
        options: What to make.
        batch_size: Images a network call; `Engine.batch_size` if left out.
        workers: Batches worked on at once.
        stop: When set, no further batch is begun; those begun are finished.

    Raises:
        RunError: A file cannot be written for a reason that would stop the others too.
    """
    stop = stop or threading.Event()
    todo = [job for job in jobs if not manifest.holds(job.name.as_posix(), job.source, job.targets.values())]
    remove_unfinished(target for job in todo for target in job.targets.values())
    size = batch_size or predictor.engine.batch_size
    begun = takewhile(lambda _: not stop.is_set(), _batches(todo, size, predictor.spec.short_side))
    summary, start = Summary(skipped=len(jobs) - len(todo)), time.perf_counter()
    with progress(len(todo)) as advance:
        for rows in ordered_map(lambda batch: _do(predictor, batch, options), begun, workers):
            for row in rows:
                manifest.add(row)
                summary.images += 1
                if row["error"]:
                    summary.failed += 1
                if note := row["error"] or row["warning"]:
                    say(f"{row['path']!r}: {note}")
            summary.seconds = time.perf_counter() - start
            advance(summary.images)
    summary.interrupted = stop.is_set() and summary.images < len(todo)
    return summary


def _batches(jobs: Sequence[Job], size: int, short_side: int) -> Iterator[Sequence[Job]]:
    """Part the jobs into batches; images of one working shape go together, as far as a look ahead finds them."""
    if size == 1:
        yield from ([job] for job in jobs)
        return
    for start in range(0, len(jobs), BUCKETS * size):
        buckets: dict[tuple[int, int] | None, list[Job]] = {}
        for job in jobs[start : start + BUCKETS * size]:
            shape = peek_shape(job.source)
            buckets.setdefault(shape and working_shape(*shape, short_side), []).append(job)
        for bucket in buckets.values():
            yield from (bucket[first : first + size] for first in range(0, len(bucket), size))


def _do(predictor: Predictor, batch: Sequence[Job], options: Options) -> list[Row]:
    """Take some images from bytes to files, and give a manifest row for each."""
    images: dict[int, Pixels] = {}
    rows: list[Row] = []
    for index, job in enumerate(batch):
        version = Version.of(job.source)
        row = _row(job, version)
        try:
            data = read_bytes(job.source, options.max_pixels)
            row["sha256"] = hashlib.sha256(data).hexdigest()
            images[index], row["warning"] = decode_picture(data, read_header(data, options.max_pixels))
        except ImageError as error:
            row = _failed(job, row, str(error))
        rows.append(row)
    predictions = predictor.predict(list(images.values()), tiling=options.tiling)
    for index, prediction in zip(list(images), predictions, strict=True):
        rows[index] = _finish(batch[index], rows[index], images.pop(index), prediction)
    return rows


def _finish(job: Job, row: Row, image: Pixels, prediction: Prediction) -> Row:
    """Write the pictures of one image."""
    mask = prediction.mask()
    draw: dict[str, Callable[[], Pixels]] = {
        "mask": lambda: to_grey(mask),
        "cam": prediction.cam_grey,
        "overlay": lambda: overlay(image, mask),
    }
    try:
        for word, target in job.targets.items():
            _write(target, encode_png(draw[word]()))
    except ImageError as error:
        return _failed(job, row, str(error))
    found = {
        "label": prediction.label,
        "scores": prediction.scores,
        "foreground": np.count_nonzero(mask) / mask.size,
        "width": prediction.width,
        "height": prediction.height,
    }
    return {**row, **found}


def _row(job: Job, version: Version | None) -> Row:
    """Give the manifest row of an image before anything is known of it; every row has all keys."""
    unknown = dict.fromkeys(("error", "warning", "label", "scores", "foreground", "width", "height"))
    size, mtime_ns, sha256 = version or (None, None, None)
    return {
        "path": job.source.as_posix(),
        "name": job.name.as_posix(),
        "status": "ok",
        **unknown,
        "bytes": size,
        "mtime_ns": mtime_ns,
        "sha256": sha256,
    }


def _failed(job: Job, row: Row, error: str) -> Row:
    """Give the row of an image that failed; pictures of it from an earlier run are taken away."""
    for target in job.targets.values():
        with suppress(OSError):
            target.unlink()
    return {**row, "status": "error", "error": error}


def _write(path: Path, data: bytes) -> None:
    """Write a file; tell a name that cannot be written from a folder that cannot."""
    try:
        write_atomic(path, data)
    except OSError as error:
        message = f"{path}: cannot be written: {error.strerror}"
        raise (ImageError if error.errno in _ONE_NAME_ONLY else RunError)(message) from None
