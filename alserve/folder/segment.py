"""Segment images and folders: find the images, predict them on all cores, write their outputs and a manifest."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from alserve.errors import DataError, OptionError
from alserve.folder.engines import ENGINES, LOCAL, Setup
from alserve.folder.manifest import Manifest
from alserve.folder.parts import PartsManifest
from alserve.folder.plan import plan
from alserve.folder.planned import Plan
from alserve.folder.result import SegmentResult, count_images
from alserve.folder.run import DECODE_TIMEOUT, DEFAULT_SAVE, LARGE_PIXELS, Options, run
from alserve.folder.shards import Rows, Shard
from alserve.folder.streamed import plan_streamed
from alserve.folder.summary import PAGE, write_summary
from alserve.images.header import MAX_PIXELS
from alserve.modelfile import default_model
from alserve.outputs import OUTPUTS
from alserve.places.store import Store
from alserve.places.urls import Location, path_of
from alserve.postprocessing import PostProcessing
from alserve.predictor import Predictor
from alserve.runtime.device import AUTO
from alserve.terminal import interruptible, say
from alserve.tiling import Tiling


def segment(
    inputs: Location | Sequence[Location],
    *,
    out: Location,
    model: Location | Predictor | None = None,
    save: str | Sequence[str] = DEFAULT_SAVE,
    device: str = AUTO,
    threads: int | None = None,
    batch_size: int | None = None,
    threshold: float | None = None,
    smooth: float = 0.0,
    fill_holes: bool = False,
    min_area: int = 0,
    split_touching: float = 0.0,
    um_per_pixel: float | Literal["auto"] | None = None,
    tile: str | int | None = None,
    overlap: int | None = None,
    max_pixels: int | None = None,
    decode_timeout: float = DECODE_TIMEOUT,
    shard: str | None = None,
    keep_extension: bool = False,
    overwrite: bool = False,
    self_check: bool = True,
    engine: str = LOCAL,
    address: str | None = None,
) -> SegmentResult:
    """Segment images and folders of images; progress goes to standard error.

    What an earlier run of the same model and options left in `out` is kept, and only what is missing or has changed is
    done. Ctrl-C ends the run after the images that are being worked on.

    Args:
        inputs: Images and folders of images, or one of them: paths, or URLs of an object store (s3://, gs://, az://,
            abfss://), for which credentials come from the environment.
        out: Folder for the results: a folder for each output, with the inputs' structure, and the manifest. A path, or
            a URL as above.
        model: Model file, a path or a URL, or a loaded model (best loaded with `threads=1`). Default: `default_model`.
        save: Names of outputs, see `alserve.outputs`: a sequence, or a text with commas.
        device: See `alserve.runtime.device.choose_device`; of no effect on a loaded model.
        threads: Images or batches worked on at once. Default: the cores this process may use, or four times as many
            where images come from or go to an object store. With Ray, in each process that has a model, which takes as
            many cores. Default there: 1, and beside a GPU its share of the cores.
        batch_size: Images a network call. Default: `Engine.batch_size`.
        threshold: Probability, 0 to 1, above which a pixel is foreground. Default: the model's own.
        smooth: Standard deviation, in pixels, by which the edges of the mask are smoothed.
        fill_holes: Fill the holes of the mask.
        min_area: Remove objects of the mask of fewer pixels.
        split_touching: Part objects of this width at least, in pixels, where they touch; the mask stays the same.
        um_per_pixel: Side of a pixel in micrometres, to measure objects in them, too; "auto": what each image's file
            states, see `alserve.images.resolution`.
        tile: "auto", for tiles as large as the training images were, or their side in pixels. Default: large images
            are not cut.
        overlap: Pixels that tiles share. Default: a quarter of a tile.
        max_pixels: An image of more pixels is refused. Default: `MAX_PIXELS`, or `LARGE_PIXELS` with tiles.
        decode_timeout: Seconds after which an image that is not decoded yet fails.
        shard: "I/N", to do a stable N-th of the images.
        keep_extension: Name the output files of a.jpg a.jpg.png, not a.png.
        overwrite: Replace earlier results.
        self_check: Refuse a model whose answers here are not those of the trained network; of no effect on a loaded
            model.
        engine: What does the images, see `alserve.folder.engines`: "local" for this machine, "ray" for all machines of
            a Ray cluster.
        address: Where the Ray cluster is reached. Default: `RAY_ADDRESS`, else Ray is started on this machine.

    Returns:
        How it went. An image that cannot be read is noted in the manifest and does not stop the rest.

    Raises:
        OptionError: An output or the engine is unknown, or the mask cannot be made so.
        DataError: Another option is out of range, there are no images, or two of them would write the same file.
        ModelError: The model cannot be used.
        DeviceError: The device cannot be used, or the cluster cannot be reached or has no place for it.
        RunError: `out` holds other results, another process writes to it, or it cannot be written.

    Example:
        >>> alserve.segment(["slides"], out="results", model="tissue.onnx", save=["mask"]).failed
        0
    """
    part, names = Shard.parse(shard) if shard else Shard(), parse_save(save)
    post = PostProcessing(threshold, smooth, fill_holes, min_area, split_touching, um_per_pixel)
    if overlap is not None and tile is None:
        raise DataError("--overlap is for tiles; give --tile too")
    if not decode_timeout > 0:
        raise DataError(f"--decode-timeout {decode_timeout}: give more than 0 seconds")
    open_engine = ENGINES.find(engine)
    if address is not None and engine == LOCAL:
        raise OptionError("--address is of a cluster; give --engine ray too")
    places = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    planned = _plan(places, out, save=names, shard=part, keep_extension=keep_extension, overwrite=overwrite)
    count = len(planned.images)
    setup = Setup(
        model or default_model(),
        planned.out,
        part.manifest,
        count,
        device,
        threads,
        decode_timeout,
        self_check,
        waits=any(path_of(location) is None for location in (*places, out)),
        address=address,
    )
    with open_engine(setup) as opened:
        tiling = None if tile is None else Tiling.of(tile, overlap, opened.predictor.spec)
        pixels = max_pixels or (MAX_PIXELS if tiling is None else LARGE_PIXELS)
        options = Options(names, tiling, pixels, keep_extension, post)
        sha256 = opened.predictor.engine.sha256
        with interruptible() as stop, _open_manifest(planned, sha256, options, overwrite=overwrite) as notes:
            say(f"{count_images(count)}, {opened.describe()}")
            result = run(opened, planned, notes, options, batch_size=batch_size, stop=stop)
    if part.count == 1 and not result.interrupted:
        write_summary(planned.out, Rows({part: planned.out}))
        say(f"{planned.out.path(PAGE)} shows what was found")
    return result


def parse_save(save: str | Sequence[str]) -> tuple[str, ...]:
    """Read the `--save` option.

    Args:
        save: Names of outputs; a text has commas between them.

    Returns:
        The names, each once.

    Raises:
        OptionError: There is no such output.
    """
    words = [word.strip() for word in save.split(",")] if isinstance(save, str) else list(save)
    for word in words:
        try:
            OUTPUTS.find(word)
        except OptionError as error:
            raise OptionError(f"--save '{','.join(words)}': {error}") from None
    return tuple(dict.fromkeys(words))


def _plan(inputs: Sequence[Location], out: Location, **options: Any) -> Plan:  # noqa: ANN401  see `plan`
    """Plan a run; one whose files are all on the disk has all names in memory, which is sooner."""
    paths, folder = [path_of(given) for given in inputs], path_of(out)
    here = [path for path in paths if path is not None]
    if folder is None or len(here) < len(paths):
        return plan_streamed(inputs, out, **options)
    return plan(here, folder, **options)


def _open_manifest(planned: Plan, model: str, options: Options, *, overwrite: bool) -> Manifest | PartsManifest:
    name, made = planned.shard.manifest, options.describe()
    if isinstance(planned.out, Store):
        return PartsManifest(planned.out, name, model=model, options=made, overwrite=overwrite)
    return Manifest(Path(planned.out.path(name)), model=model, options=made, overwrite=overwrite)
