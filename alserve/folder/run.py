"""Folder inference: find the images, predict them on all cores, write masks, CAMs, overlays and a manifest.

Every worker takes an image (or a batch) all the way from bytes to files, so that reading, decoding, prediction,
encoding and writing overlap. The main thread hands out the work, never more than a few batches ahead, and notes the
results in order: more images do not take more memory. What the manifest says is done is not done again.
"""

import errno
import hashlib
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from alserve.arrays import Image
from alserve.errors import DataError, ImageError, RunError
from alserve.files import remove_unfinished, write_atomic
from alserve.folder.manifest import Manifest, Row, Version
from alserve.folder.plan import LEFT_OUT, Job, Plan, plan
from alserve.folder.shards import Shard
from alserve.geometry import working_shape
from alserve.images.codec import peek_shape, read_bytes
from alserve.images.decoders import Decoders
from alserve.images.header import MAX_PIXELS
from alserve.modelfile import default_model
from alserve.outputs import OUTPUTS, Case
from alserve.parallel import ordered_map
from alserve.predictor import Prediction, Predictor, load
from alserve.runtime.device import available_cores
from alserve.terminal import interruptible, progress, say
from alserve.tiling import Tiling

LARGE_PIXELS = 1_000_000_000
"""An image of more pixels is refused where images are cut into tiles, unless more is allowed."""

BUCKETS = 32
"""Batches whose images are sorted by shape together, so that the network calls are full."""

DEFAULT_SAVE = ("mask", "cam", "overlay")

DECODE_TIMEOUT = 60.0
"""Seconds that decoding an image may take, unless more is allowed."""

_ONE_NAME_ONLY = {errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.EINVAL, errno.EILSEQ}
"""Reasons for which one file cannot be written though others can."""


@dataclass(frozen=True)
class Options:
    """What decides the content of the results, besides the model."""

    save: tuple[str, ...] = DEFAULT_SAVE
    """Names of outputs, see `alserve.outputs`."""
    tiling: Tiling | None = None
    """How to cut large images."""
    max_pixels: int = MAX_PIXELS
    """A larger image is refused before it is decoded."""
    decode_timeout: float = DECODE_TIMEOUT
    """Seconds after which an image that is not decoded yet fails."""
    keep_extension: bool = False
    """Name the pictures of a.jpg a.jpg.png, not a.png."""

    def describe(self) -> dict[str, Any]:
        """Return the part that the manifest notes."""
        tiling = self.tiling
        cut = None if tiling is None else {"side": tiling.side, "overlap": tiling.overlap, "auto": tiling.automatic}
        named = {"keep_extension": True} if self.keep_extension else {}  # earlier manifests know nothing of it
        return {"save": sorted(self.save), "tile": cut, **named}


@dataclass
class Summary:
    """How a run went."""

    images: int = 0
    """Images done in this run, failed ones included."""
    failed: int = 0
    skipped: int = 0
    """Images that an earlier run had done."""
    left_out: int = 0
    """Files and folders that are listed in `LEFT_OUT`."""
    wanted: int = 0
    """Those among them that were named as inputs, or are folders that cannot be read."""
    seconds: float = 0.0
    interrupted: bool = False

    @property
    def rate(self) -> float:
        """Images a second."""
        return self.images / self.seconds if self.seconds else 0.0

    @property
    def exit_code(self) -> int:
        """0 all done, 1 some images failed or were wanted but left out, 130 interrupted."""
        return 130 if self.interrupted else int(self.failed + self.wanted > 0)


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
    decode_timeout: float,
    shard: str | None,
    keep_extension: bool,
    overwrite: bool,
    self_check: bool = True,
) -> int:
    """Run `alserve segment`.

    Args:
        inputs: Images and folders of images.
        out: Folder for the results.
        model: Model file. Default: `default_model`.
        save: Names of outputs, with commas.
        batch_size: Images a network call. Default: `Engine.batch_size`.
        device: See `alserve.runtime.device.choose_device`.
        threads: Images or batches worked on at once. Default: the cores this process may use.
        tile: See `Tiling.of`. Default: large images are not cut.
        overlap: See `Tiling.of`.
        max_pixels: A larger image is refused. Default: `MAX_PIXELS`, or `LARGE_PIXELS` with tiles,.
        decode_timeout: Seconds after which an image that is not decoded yet fails.
        shard: "I/N", to do a stable N-th of the images.
        keep_extension: Name the pictures of a.jpg a.jpg.png, not a.png.
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
    if not decode_timeout > 0:
        raise DataError(f"--decode-timeout {decode_timeout}: give more than 0 seconds")
    planned = plan(inputs, out, save=words, shard=part, keep_extension=keep_extension, overwrite=overwrite)
    cores = threads or available_cores()
    workers = min(cores, len(planned.jobs)) or 1
    threads = max(1, min(cores, available_cores()) // workers)
    with Decoders(workers, decode_timeout) as decoders:  # they start while the model is loaded
        predictor = load(model or default_model(), device=device, threads=threads, self_check=self_check)
        if note := predictor.engine.unchecked:
            say(note)
        tiling = None if tile is None else Tiling.of(tile, overlap, predictor.spec)
        pixels = max_pixels or (MAX_PIXELS if tiling is None else LARGE_PIXELS)
        options = Options(words, tiling, pixels, decode_timeout, keep_extension)
        engine, total = predictor.engine, len(planned.jobs)
        with interruptible() as stop, _manifest(predictor, options, out, part, overwrite=overwrite) as manifest:
            say(f"{_count(total)}, {engine.path.name} on {engine.device} ({engine.device_reason}), {workers} at once")
            summary = run(
                predictor, decoders, planned, manifest, options, batch_size=batch_size, workers=workers, stop=stop
            )
    skipped = f" ({summary.skipped} were done already)" if summary.skipped else ""
    failed = f", {summary.failed} failed (see {part.manifest})" if summary.failed else ""
    left_out = f", {summary.left_out} left out (see {LEFT_OUT})" if summary.left_out else ""
    stopped = f"interrupted after {summary.images} of " if summary.interrupted else ""
    left = _count(total - summary.skipped)
    print(f"{stopped}{left}{skipped}{failed}{left_out}, {summary.rate:.1f} images/s, in {out}")
    return summary.exit_code


def segment_folder(
    predictor: Predictor,
    inputs: Sequence[Path],
    out: Path,
    *,
    save: Iterable[str] = DEFAULT_SAVE,
    batch_size: int | None = None,
    workers: int | None = None,
    tiling: Tiling | None = None,
    keep_extension: bool = False,
    overwrite: bool = False,
) -> Summary:
    """Segment images and folders with a model that is loaded already; best loaded with `threads=1`.

    Args:
        predictor: The model.
        inputs: Images and folders of images.
        out: Folder for the results; what an earlier run of the same model and options left there is kept.
        save: Names of outputs, see `alserve.outputs`.
        batch_size: Images a network call. Default: `Engine.batch_size`.
        workers: Images or batches worked on at once. Default: the cores this process may use.
        tiling: How to cut large images. Default: not at all.
        keep_extension: Name the pictures of a.jpg a.jpg.png, not a.png.
        overwrite: Replace earlier results.

    Returns:
        How it went. An image that cannot be read is noted in the manifest and does not stop the rest.

    Raises:
        DataError: No images, or two of them would write the same file.
        RunError: `out` holds other results, another process writes to it, or it cannot be written.
    """
    pixels = MAX_PIXELS if tiling is None else LARGE_PIXELS
    options = Options(tuple(save), tiling, pixels, keep_extension=keep_extension)
    planned = plan(inputs, out, save=options.save, keep_extension=keep_extension, overwrite=overwrite)
    workers = min(workers or available_cores(), len(planned.jobs)) or 1
    with (
        Decoders(workers, options.decode_timeout) as decoders,
        _manifest(predictor, options, out, Shard(), overwrite=overwrite) as manifest,
    ):
        return run(predictor, decoders, planned, manifest, options, batch_size=batch_size, workers=workers)


def _manifest(predictor: Predictor, options: Options, out: Path, shard: Shard, *, overwrite: bool) -> Manifest:
    return Manifest(
        out / shard.manifest, model=predictor.engine.sha256, options=options.describe(), overwrite=overwrite
    )


def _count(images: int) -> str:
    return f"{images} image{'' if images == 1 else 's'}"


def parse_save(text: str) -> tuple[str, ...]:
    """Read the `--save` option: names of outputs, with commas.

    Raises:
        OptionError: There is no such output.
    """
    words = tuple(dict.fromkeys(word.strip() for word in text.split(",")))
    for word in words:
        OUTPUTS.find(word)
    return words


def run(
    predictor: Predictor,
    decoders: Decoders,
    planned: Plan,
    manifest: Manifest,
    options: Options,
    *,
    batch_size: int | None,
    workers: int,
    stop: threading.Event | None = None,
) -> Summary:
    """Do the jobs that the manifest does not hold, note each in it, and list what is left out beside it.

    Args:
        predictor: The model.
        decoders: What decodes the images.
        planned: What to do.
        manifest: Where results are noted.
        options: What to make.
        batch_size: Images a network call. Default: `Engine.batch_size`.
        workers: Batches worked on at once.
        stop: When set, no further batch is begun; those begun are finished.

    Raises:
        RunError: A file cannot be written for a reason that would stop the others too.
    """
    stop, jobs = stop or threading.Event(), planned.jobs
    _list_left_out(planned, manifest.path.with_name(LEFT_OUT))
    todo = [job for job in jobs if not manifest.holds(job.name.as_posix(), job.source, job.targets)]
    remove_unfinished(target for job in todo for target in job.targets.values())
    size = batch_size or predictor.engine.batch_size
    begun = takewhile(lambda _: not stop.is_set(), _batches(todo, size, predictor.spec.short_side))
    summary, start = Summary(skipped=len(jobs) - len(todo), left_out=len(planned.left_out)), time.perf_counter()
    summary.wanted = sum(item.wanted for item in planned.left_out)
    with progress(len(todo)) as advance:
        for rows in ordered_map(lambda batch: _do(predictor, decoders, batch, options), begun, workers):
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
    if planned.shard.count > 1 and not summary.interrupted:
        manifest.finish(shard=str(planned.shard), images=len(jobs), total=planned.images, names=planned.names)
    return summary


def _list_left_out(planned: Plan, path: Path) -> None:
    """Say and write what is left out; where nothing is, there is no list."""
    try:
        if planned.left_out:
            write_atomic(path, planned.list_left_out())
            say(f"{planned.describe_left_out()}; all in {path}")
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror}") from None


def _batches(jobs: Sequence[Job], size: int, short_side: int) -> Iterator[Sequence[Job]]:
    """Part the jobs into batches; images of one working shape go together, as far as a look ahead finds them."""
    if size == 1:
        yield from ([job] for job in jobs)
        return
    for start in range(0, len(jobs), BUCKETS * size):
        buckets: dict[tuple[int, int] | None, list[Job]] = {}
        for job in jobs[start : start + BUCKETS * size]:
            shape = peek_shape(job.source) if Version.of(job.source) else None
            buckets.setdefault(shape and working_shape(*shape, short_side), []).append(job)
        for bucket in buckets.values():
            yield from (bucket[first : first + size] for first in range(0, len(bucket), size))


def _do(predictor: Predictor, decoders: Decoders, batch: Sequence[Job], options: Options) -> list[Row]:
    """Take some images from bytes to files, and give a manifest row for each."""
    images: dict[int, Image] = {}
    rows: list[Row] = []
    for index, job in enumerate(batch):
        version = Version.of(job.source)
        row = _row(job, version)
        try:
            data = read_bytes(job.source, options.max_pixels)
            row["sha256"] = hashlib.sha256(data).hexdigest()
            images[index], row["warning"], *_ = decoders.decode(data, options.max_pixels)
        except ImageError as error:
            row = _failed(job, row, str(error))
        rows.append(row)
    predictions = predictor.predict(list(images.values()), tiling=options.tiling)
    for index, prediction in zip(list(images), predictions, strict=True):
        rows[index] = _finish(batch[index], rows[index], images.pop(index), prediction)
    return rows


def _finish(job: Job, row: Row, image: Image, prediction: Prediction) -> Row:
    """Write the pictures of one image."""
    case = Case(image, prediction)
    sizes: dict[str, int] = {}
    try:
        for word, target in job.targets.items():
            data = OUTPUTS[word].encode(case)
            _write(target, data)
            sizes[word] = len(data)
    except ImageError as error:
        return _failed(job, row, str(error))
    found = {
        "label": prediction.label,
        "scores": prediction.scores,
        "foreground": np.count_nonzero(case.mask) / case.mask.size,
        "width": prediction.width,
        "height": prediction.height,
        "output_bytes": sizes,
    }
    return {**row, **found}


def _row(job: Job, version: Version | None) -> Row:
    """Return the manifest row of an image before anything is known of it; every row has all keys."""
    unknown = dict.fromkeys(("error", "warning", "label", "scores", "foreground", "width", "height", "output_bytes"))
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
    """Return the row of an image that failed; pictures of it from an earlier run are taken away."""
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
    except RecursionError:  # Python makes missing folders one call inside the other
        raise ImageError("cannot be written: its folders are too deep") from None
