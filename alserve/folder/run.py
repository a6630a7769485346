"""Do what a folder run has planned: predict the images, write their output files and the manifest.

Every worker takes an image (or a batch) all the way from bytes to files, so that reading, decoding, prediction,
encoding and writing overlap. An engine (`alserve.folder.engines`) distributes the work; the main thread notes the
results as they come: more images do not take more memory. What the manifest says is done is not done again.
"""

import errno
import hashlib
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from alserve.errors import ImageError, ImageSizeError, RunError
from alserve.folder.manifest import Manifest, ManifestRow
from alserve.folder.parts import PartsManifest
from alserve.folder.planned import LEFT_OUT, Plan, PlannedImage
from alserve.folder.progress import show_progress
from alserve.folder.result import SegmentResult
from alserve.geometry import working_shape
from alserve.images.codec import read_file
from alserve.images.decoders import Decoded, Decoders
from alserve.images.header import MAX_PIXELS
from alserve.outputs import OUTPUTS, Case
from alserve.places.place import Place, Version
from alserve.places.urls import location
from alserve.postprocessing import UNCHANGED, PostProcessing
from alserve.predictor import Prediction, Predictor
from alserve.terminal import say
from alserve.tiling import Tiling

if TYPE_CHECKING:
    from alserve.folder.engines import Engine

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
    keep_extension: bool = False
    """Name the output files of a.jpg a.jpg.png, not a.png."""
    post: PostProcessing = UNCHANGED
    """What is done to the mask."""

    def describe(self) -> dict[str, Any]:
        """Return the part that the manifest notes."""
        tiling = self.tiling
        cut = None if tiling is None else {"side": tiling.side, "overlap": tiling.overlap, "auto": tiling.automatic}
        named = {"keep_extension": True} if self.keep_extension else {}  # earlier manifests know nothing of these
        return {"save": sorted(self.save), "tile": cut, **named, **self.post.describe()}


def run(
    engine: "Engine",
    planned: Plan,
    manifest: Manifest | PartsManifest,
    options: Options,
    *,
    batch_size: int | None,
    stop: threading.Event | None = None,
) -> SegmentResult:
    """Do the images that the manifest does not say are done, add a row for each, and list what is left out beside it.

    Args:
        engine: What does the images.
        planned: What to do.
        manifest: Where results are noted.
        options: What to make.
        batch_size: Images a network call. Default: `Engine.batch_size`.
        stop: When set, no further batch is begun.

    Raises:
        RunError: A file cannot be written for a reason that would stop the others too.
    """
    stop = stop or threading.Event()
    _list_left_out(planned)
    todo = planned.gather(image for image in planned.images if not manifest.is_done(image, planned.there))
    planned.out.remove_unfinished(target for image in todo for target in image.targets.values())
    spec = engine.predictor.spec
    batches = _batches(todo, batch_size or engine.batch_size, spec.short_side)
    tiling = options.tiling if engine.counts_tiles else None
    done, failed, start = 0, 0, time.perf_counter()
    with show_progress(todo, tiling, spec, options.max_pixels) as shown:
        counting = replace(options, tiling=shown.counted(options.tiling))
        for rows in engine.map(batches, counting, stop):
            for row in rows:
                manifest.add(row)
                done += 1
                failed += bool(row["error"])
                if note := row["error"] or row["warning"]:
                    say(f"{row['path']!r}: {note}")
                shown.finish(row)
    if done == len(todo):
        manifest.finish(planned)
    return SegmentResult(
        location(planned.out, planned.shard.manifest),
        images=done,
        failed=failed,
        skipped=len(planned.images) - len(todo),
        remaining=len(todo) - done,
        left_out=len(planned.left_out),
        wanted=sum(item.wanted for item in planned.left_out),
        seconds=time.perf_counter() - start,
    )


def _list_left_out(planned: Plan) -> None:
    """Say and write what is left out; where nothing is, there is no list."""
    path = planned.out.path(LEFT_OUT)
    try:
        if planned.left_out:
            planned.out.write_parts(LEFT_OUT, planned.list_left_out())
            say(f"{planned.describe_left_out()}; all in {path}")
        else:
            planned.out.remove(LEFT_OUT)
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror}") from None


def _batches(images: Iterable[PlannedImage], size: int, short_side: int) -> Iterator[Sequence[PlannedImage]]:
    """Part images into batches, those of one working shape together, as far as `BUCKETS` batches hold some."""
    if size == 1:
        yield from ([image] for image in images)
        return
    waiting = iter(images)
    while several := list(islice(waiting, BUCKETS * size)):
        buckets: dict[tuple[int, int] | None, list[PlannedImage]] = {}
        for image in several:
            shape = image.peek_shape()
            buckets.setdefault(shape and working_shape(*shape, short_side), []).append(image)
        for bucket in buckets.values():
            yield from (bucket[first : first + size] for first in range(0, len(bucket), size))


def segment_batch(
    predictor: Predictor, decoders: Decoders, batch: Sequence[PlannedImage], options: Options
) -> list[ManifestRow]:
    """Take some images from bytes to files, and return a manifest row for each.

    Args:
        predictor: The model.
        decoders: What decodes the images.
        batch: The images.
        options: What to make.

    Raises:
        DeviceError: The device gave up, most often for want of memory.
        RunError: A file cannot be written for a reason that would stop the others too.
    """
    images = dict[int, Decoded]()
    rows: list[ManifestRow] = []
    for index, image in enumerate(batch):
        row = _new_row(image, image.look())
        try:
            data = read_file(image.place, image.source, options.max_pixels)
            row["sha256"] = hashlib.sha256(data).hexdigest()
            images[index] = decoders.decode(data, options.max_pixels)
        except ImageSizeError as error:
            cut = "--tile to cut it, which allows more, or " if options.tiling is None else ""
            row = _failed_row(image, row, f"{error}; use {cut}--max-pixels to allow more")
        except ImageError as error:
            row = _failed_row(image, row, str(error))
        rows.append(row)
    predictions = predictor.predict([decoded.pixels for decoded in images.values()], tiling=options.tiling)
    for index, prediction in zip(list(images), predictions, strict=True):
        image, decoded = batch[index], images.pop(index)
        case = Case(decoded.pixels, prediction, options.post, image.path, decoded.um_per_pixel)
        row = {**rows[index], "warning": case.warning(decoded.warning)}
        rows[index] = _write_outputs(image, row, case, prediction)
    return rows


def _write_outputs(image: PlannedImage, row: ManifestRow, case: Case, prediction: Prediction) -> ManifestRow:
    """Write the output files of one image, and return its finished row."""
    sizes: dict[str, int] = {}
    try:
        for word, target in image.targets.items():
            data = OUTPUTS[word].encode(case)
            _write_file(image.out, target, data)
            sizes[word] = len(data)
    except ImageError as error:
        return _failed_row(image, row, str(error))
    found = {
        "label": prediction.label,
        "scores": prediction.scores,
        "foreground": np.count_nonzero(case.mask) / case.mask.size,
        "objects": case.count_objects(),
        "um_per_pixel": case.um_per_pixel,
        "width": prediction.width,
        "height": prediction.height,
        "output_bytes": sizes,
    }
    return {**row, **found}


def _new_row(image: PlannedImage, version: Version | None) -> ManifestRow:
    """Return the manifest row of an image before anything is known of it; every row has all keys."""
    found = ("label", "scores", "foreground", "objects", "um_per_pixel", "width", "height", "output_bytes")
    unknown = dict.fromkeys(("error", "warning", *found))
    size, mtime_ns, sha256 = version or (None, None, None)
    return {
        "path": image.path,
        "name": image.name,
        "status": "ok",
        **unknown,
        "bytes": size,
        "mtime_ns": mtime_ns,
        "sha256": sha256,
    }


def _failed_row(image: PlannedImage, row: ManifestRow, error: str) -> ManifestRow:
    """Return the row of an image that failed; its files from an earlier run are removed."""
    for target in image.targets.values():
        with suppress(OSError):
            image.out.remove(target)
    return {**row, "status": "error", "error": error}


def _write_file(place: Place, name: str, data: bytes) -> None:
    """Write a file; tell a name that cannot be written from a folder that cannot."""
    try:
        place.write(name, data)
    except OSError as error:
        message = f"{place.path(name)}: cannot be written: {error.strerror}"
        raise (ImageError if error.errno in _ONE_NAME_ONLY else RunError)(message) from None
    except RecursionError:  # Python makes missing folders one call inside the other
        raise ImageError("cannot be written: its folders are too deep") from None
