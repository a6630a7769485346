"""The command line: names and flags are a promise; the work is done in the rooms that each command calls.

Exit codes: 0 all done, 1 some images failed (all others are written), 2 wrong usage or input, 130 interrupted.
"""

import io
import os
import sys
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Never

import typer

from alserve import __version__
from alserve.errors import AlserveError
from alserve.paths import printable

app = typer.Typer(
    name="alserve",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich" if sys.stdout.isatty() else None,  # panels for people; plain, and sooner there, in a pipe
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Learn from image labels and a few pixel masks; segment, classify and explain with one ONNX file.",
    epilog="Exit codes: 0 all done · 1 some images failed, all others are written · 2 wrong usage or input · "
    "130 interrupted.",
)

TRAIN = "Train (needs: pip install 'alserve\\[train]')"
USE = "Use a model"

Model = Annotated[
    Path | None,
    typer.Option(help="Model file. Default: $ALSERVE_MODEL, else the one file in models/.", show_default=False),
]
Masks = Annotated[
    Path | None,
    typer.Option(help="Folder of masks, a mirror of DATA's folders; non-zero pixels are foreground."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is in the output folder.")]
NoSelfCheck = Annotated[
    bool,
    typer.Option(
        "--no-self-check", help="Use the model even if it gives other answers here than where it was trained."
    ),
]
Seed = Annotated[int, typer.Option(help="Drives everything that is random; same seed, same machine, same result.")]


class Precision(StrEnum):
    """What a model file computes in."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"


def _version(*, value: bool) -> None:
    if value:
        typer.echo(f"alserve {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    *,
    _: Annotated[
        bool,
        typer.Option(
            "--version", callback=lambda value: _version(value=value), is_eager=True, help="Show the version."
        ),
    ] = False,
) -> None:
    pass


def _need_training() -> None:
    """Say how to get the training half where its libraries are missing."""
    missing = [
        name for name in ("torch", "timm", "lightning", "segmentation_models_pytorch") if find_spec(name) is None
    ]
    if missing:
        raise AlserveError(f"training needs {', '.join(missing)}; run: pip install 'alserve[train]'")


@app.command(rich_help_panel=TRAIN)
def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything that the demo makes.")] = Path("runs/demo"),
    seed: Seed = 0,
) -> None:
    """See the whole path in a few minutes: draw a small data set, learn, export, segment, serve, report."""
    _need_training()
    from training.demo import run_demo  # noqa: PLC0415

    run_demo(out, seed=seed)


@app.command(rich_help_panel=TRAIN)
def data(
    name: Annotated[str, typer.Argument(help="glas (Warwick-QU, GlaS challenge) or cub (CUB-200-2011).")],
    archive: Annotated[Path, typer.Argument(help="The official archive: a zip for glas, CUB_200_2011.tgz for cub.")],
    out: Annotated[Path, typer.Option(help="Folder for images/, masks/ and data.csv.")],
    masks: Annotated[
        Path | None, typer.Option(help="segmentations.tgz of CUB. Default: beside the archive.", show_default=False)
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Draw split 'valid'. Default: the published one for glas, 0 for cub.")
    ] = None,
) -> None:
    """Turn the archive of a published data set into a folder and a CSV to train on.

    Example: alserve data glas warwick_qu_dataset.zip --out glas, then alserve train glas/data.csv --preset glas ...
    """
    _need_training()
    from training.data.importers import IMPORTERS  # noqa: PLC0415

    IMPORTERS.find(name).unpack(archive, out, masks=masks, seed=seed)


@app.command(rich_help_panel=TRAIN)
def train(
    data: Annotated[
        Path,
        typer.Argument(help="A folder with a subfolder per class, or a CSV: image, label and perhaps mask, split."),
    ],
    out: Annotated[Path, typer.Option(help="Folder of this run; the same command again continues a stopped run.")],
    masks: Masks = None,
    oracle: Annotated[
        str,
        typer.Option(
            metavar="data|folder:DIR",
            help="Who gives the masks: the data set, or a person, who finds in DIR what to draw and saves it there.",
        ),
    ] = "data",
    preset: Annotated[str | None, typer.Option(help="Settings for a kind of data: glas or cub.")] = None,
    method: Annotated[
        str,
        typer.Option(help="label-propagation, random (no pseudo-labels), wsl (no masks at all) or full (all masks)."),
    ] = "label-propagation",
    query: Annotated[
        str | None,
        typer.Option(
            help="Which images to ask for: random, entropy, mc-dropout, disagreement (of CAM and mask), core-set or "
            "typical. Default: random."
        ),
    ] = None,
    initial: Annotated[int | None, typer.Option(min=1, help="Masks asked at first, per class.")] = None,
    per_round: Annotated[int | None, typer.Option(min=1, help="Masks added a round, per class.")] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Rounds; each is one training at one budget.")] = None,
    passes: Annotated[
        int | None,
        typer.Option(min=1, help="Trainings a round; each further one learns from fresh pseudo-masks."),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps of one pass.")] = None,
    classifier_steps: Annotated[int | None, typer.Option(min=1, help="Training steps on the class labels.")] = None,
    short_side: Annotated[
        int | None, typer.Option(help="Working size: short side in pixels, of whole 32s, 64 or more.")
    ] = None,
    encoder: Annotated[str | None, typer.Option(help="Any timm encoder, by its timm name.")] = None,
    decoder: Annotated[
        str | None,
        typer.Option(help="Any decoder of segmentation-models-pytorch: unet, fpn, deeplabv3plus ... Default: unet."),
    ] = None,
    encoder_lr: Annotated[
        float | None,
        typer.Option(min=0, help="Fine-tune the encoder with the masks, at this rate (1e-4). Default: frozen."),
    ] = None,
    validation_masks: Annotated[
        bool,
        typer.Option(
            "--validation-masks",
            help="Choose thresholds on the masks of split 'valid', counted in the budget, not by cross-validation.",
        ),
    ] = False,
    others: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Any other setting, such as --set k=0.1 --set pseudo_targets=soft; a wrong name lists them all.",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="Where to train: auto, cpu or cuda.")] = "auto",
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """Learn from class labels and a few masks, by rounds of active learning.

    OUT then holds model.onnx (exported after every round), rounds.jsonl (one object a round),
    report.html, the settings, and the state that lets a stopped run continue.

    With --oracle folder:DIR it stops when it needs masks and says where to draw them; run the same command again.

    Example: alserve train tissue.csv --out runs/tissue --initial 4 --per-round 1 --rounds 5
    """
    _need_training()
    from training.settings import Settings, parse_assignments  # noqa: PLC0415
    from training.train import train_run  # noqa: PLC0415

    given = {
        "method": method,
        "query": query,
        "initial": initial,
        "per_round": per_round,
        "rounds": rounds,
        "passes": passes,
        "steps": steps,
        "classifier_steps": classifier_steps,
        "short_side": short_side,
        "encoder": encoder,
        "decoder": decoder,
        "encoder_lr": encoder_lr,
        "seed": seed,
        "validation_masks": validation_masks,
    }
    named = {name: value for name, value in given.items() if value is not None}
    settings = Settings.of(preset, {**named, **parse_assignments(others or [])})
    train_run(data, out, settings, masks=masks, oracle=oracle, device=device, overwrite=overwrite)


masks_app = typer.Typer(no_args_is_help=True, help="Carry masks and drafts between annotation programs and folders.")
app.add_typer(masks_app, name="masks", rich_help_panel=TRAIN)


@masks_app.command("import")
def import_masks(
    source: Annotated[
        Path, typer.Argument(help="A folder of masks from a paint program, a COCO file, or Label Studio's JSON export.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the masks: PNG, 0 and 255.")],
    data: Annotated[
        Path | None,
        typer.Option(help="The data set: masks get its images' names, and must have their sizes.", show_default=False),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace masks that are there and differ.")] = False,
) -> None:
    """Take in masks that were drawn in an annotation program.

    Any label, and any value that is not zero, is foreground. An image skipped in Label Studio is skipped here as well.

    Example: alserve masks import project.json --out drawing/masks --data tissue.csv
    """
    _need_training()
    from training.annotate.annotation_io import import_masks as run  # noqa: PLC0415

    run(source, out, data, overwrite=overwrite)


@masks_app.command("export")
def export_masks(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of 'train --oracle folder:DIR'.")],
    out: Annotated[Path, typer.Option(help="The JSON file to write.")],
    format: Annotated[str, typer.Option(help="Whose: coco or label-studio.")] = "coco",  # noqa: A002
    prefix: Annotated[
        str, typer.Option(help="Label Studio: what comes before an image's path in the address it loads.")
    ] = "/data/local-files/?d=",
) -> None:
    """Hand out what is to be drawn, with the drafts, to an annotation program.

    Example: alserve masks export drawing --out drafts.json --format label-studio
    """
    _need_training()
    from training.annotate.annotation_io import export_masks as run  # noqa: PLC0415

    run(folder, out, format, prefix)


@app.command(rich_help_panel=TRAIN)
def export(
    run: Annotated[Path, typer.Argument(help="Folder of a training run.")],
    out: Annotated[Path, typer.Option(help="Where to write the model file.")],
    precision: Annotated[
        Precision, typer.Option(help="fp32; fp16, for GPUs; or int8, for CPUs, calibrated on training images.")
    ] = Precision.FP32,
    data: Annotated[
        Path | None, typer.Option(help="The run's data set, if it is no longer where it was.", show_default=False)
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Write fp16 or int8 even if it loses more than 0.5 Dice points or 1 % labels."),
    ] = False,
    no_references: Annotated[
        bool,
        typer.Option(
            "--no-references",
            help="Leave out the pieces of training images (one a class, up to 4) by which a model checks itself.",
        ),
    ] = False,
) -> None:
    """Write a run's latest model as one ONNX file, compared with the trained network on real images.

    A reduced precision is measured against fp32 on the test images; what it costs is printed and stored in the file.

    Example: alserve export runs/tissue --out small.onnx --precision int8
    """
    _need_training()
    from training.export.run import export_run  # noqa: PLC0415

    export_run(run, out, precision.value, data=data, force=force, references=not no_references)


@app.command(rich_help_panel=TRAIN)
def experiment(
    config: Annotated[Path, typer.Argument(help="YAML file: data, preset, settings, methods, seeds.")],
    out: Annotated[Path, typer.Option(help="Folder for all runs; the same command again continues.")],
    data: Annotated[
        Path | None, typer.Option(help="Folder or CSV, as for 'train', in place of the file's.", show_default=False)
    ] = None,
    masks: Masks = None,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at once; they share the cores, and the GPUs in turn.")] = 1,
    device: Annotated[str, typer.Option(help="Where to train: auto, cpu or cuda.")] = "auto",
) -> None:
    """Compare methods over seeds: a run of each, what they share computed once, and a report of all.

    OUT then holds a run NAME-SEED for each, report.html, results.md, figures/ and logs/. A run that fails stops no
    other; the exit code is 1 then.

    Example: alserve experiment benchmarks/glas.yaml --data glas/data.csv --out runs/glas --jobs 2
    """
    _need_training()
    from training.compare.experiment import run_experiment  # noqa: PLC0415

    failures = run_experiment(config, out, data=data, masks=masks, jobs=jobs, device=device)
    for failure in failures:
        print(f"alserve: {failure}", file=sys.stderr)
    raise typer.Exit(int(bool(failures)))


@app.command(rich_help_panel=TRAIN)
def report(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Runs, or an experiment's folder.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder to write to. Default: DIR, if there is only one.", show_default=False)
    ] = None,
    between: Annotated[
        str | None,
        typer.Option(metavar="M-N", help="Compare areas from M to N masks. Default: as far as all finished runs go."),
    ] = None,
) -> None:
    """Show what runs learned: one HTML page, figures, and for several runs a table.

    Runs that differ by their seed alone are one line, with its spread; finished runs are compared by the area under
    Dice against masks.

    Example: alserve report runs/tissue runs/tissue-random --out compared
    """
    _need_training()
    from training.report import report_folders  # noqa: PLC0415

    print(report_folders(folders, out, between=between))


@app.command(rich_help_panel=USE)
def evaluate(
    model: Annotated[Path, typer.Argument(help="Model file.")],
    data: Annotated[Path, typer.Argument(help="Folder with a subfolder per class, or CSV, as for 'train'.")],
    masks: Masks = None,
    split: Annotated[str, typer.Option(help="Which images: train, valid or test.")] = "test",
    json: Annotated[Path | None, typer.Option(help="Also write the figures to this file.")] = None,
    worst: Annotated[
        Path | None, typer.Option(help="Also draw the ten images of the lowest Dice, as a picture: .png or .jpg.")
    ] = None,
    no_self_check: NoSelfCheck = False,
) -> None:
    """Measure a model file on labelled images, at their own size.

    Dice with its 95 % interval, IoU and accuracy, of all images and class by class; PxAP of mask and CAM, and how far
    probabilities and scores are from the frequencies they claim to be (calibration error).

    Example: alserve evaluate tissue.onnx tissue.csv --json figures.json --worst worst.png
    """
    from alserve.files import write_atomic  # noqa: PLC0415
    from alserve.measure.evaluate import evaluate as run  # noqa: PLC0415
    from alserve.measure.evaluate import print_figures  # noqa: PLC0415
    from alserve.terminal import say  # noqa: PLC0415

    figures = run(model, data, masks=masks, split=split, worst=worst, self_check=not no_self_check)
    print_figures(figures, f"{model.name} on {figures.images} images of split '{split}'")
    if json is not None:
        write_atomic(json, figures.model_dump_json(indent=2).encode())
    if worst is not None:
        say(f"{worst} shows the {len(figures.worst)} images of the lowest Dice")


@app.command(rich_help_panel=USE)
def segment(
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT...", help="Images and folders of images.")],
    out: Annotated[Path, typer.Option(help="Folder for the results; the inputs' folder structure is kept.")],
    model: Model = None,
    save: Annotated[
        str, typer.Option(help="What to write, of mask, cam and overlay, with commas.")
    ] = "mask,cam,overlay",
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images a network call. Default: 1 on the CPU, 16 on a GPU.")
    ] = None,
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda, cuda:N or openvino; what is asked for is used or refused.")
    ] = "auto",
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Images worked on at once. Default: the cores this process may use."),
    ] = None,
    tile: Annotated[
        str | None,
        typer.Option(help="Cut large images: auto (tiles as large as the training images) or a side in pixels."),
    ] = None,
    overlap: Annotated[
        int | None, typer.Option(min=0, help="Pixels that tiles share. Default: a quarter of a tile.")
    ] = None,
    max_pixels: Annotated[
        int | None,
        typer.Option(
            min=1, help="Refuse larger images before decoding them. Default: 50 million, with tiles 1 billion."
        ),
    ] = None,
    decode_timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds after which an image that is not decoded yet fails.")
    ] = 60.0,
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Do a stable N-th of the images; 'alserve merge' joins the manifests."),
    ] = None,
    keep_extension: Annotated[
        bool,
        typer.Option("--keep-extension", help="Name the pictures of a.jpg a.jpg.png, not a.png: a.tif can lie beside."),
    ] = False,
    overwrite: Overwrite = False,
    no_self_check: NoSelfCheck = False,
) -> None:
    """Segment images and folders.

    OUT then holds masks/ (0 and 255), cams/ (8-bit, predicted class) and overlays/, each picture of the image's own
    size under the image's own name, and predictions.jsonl, one object an image. The same command again does
    what is missing or has changed. One process at a time writes to OUT; shards of one run may at once.

    In a folder, images are told by their suffix, or else by their content. Images of kinds that are not read (HEIC,
    JPEG 2000, DICOM, raw photographs, slides, ...), broken links and pipes are left out, named, and listed in
    left-out.jsonl. Hidden files, whose names begin with a dot, and files that are no images are passed over.

    Example: alserve segment slides/ --out results --save mask
    """
    from alserve.folder.run import segment_command  # noqa: PLC0415

    code = segment_command(
        inputs,
        out,
        model=model,
        save=save,
        batch_size=batch_size,
        device=device,
        threads=threads,
        tile=tile,
        overlap=overlap,
        max_pixels=max_pixels,
        decode_timeout=decode_timeout,
        shard=shard,
        keep_extension=keep_extension,
        overwrite=overwrite,
        self_check=not no_self_check,
    )
    raise typer.Exit(code)


@app.command(rich_help_panel=USE)
def merge(
    outs: Annotated[list[Path], typer.Argument(metavar="OUT...", help="The --out folders of all shards.")],
    out: Annotated[
        Path | None, typer.Option(help="File to write. Default: predictions.jsonl in the first OUT.")
    ] = None,
) -> None:
    """Join the manifests of a run in shards; says which shard is missing, unfinished, damaged or of another run.

    Example: alserve segment slides/ --out results --shard 1/2, the same with 2/2, then alserve merge results
    """
    from alserve.folder.shards import merge as merge_manifests  # noqa: PLC0415

    path, images, failed = merge_manifests(outs, out)
    print(f"{images} images{f', {failed} failed' if failed else ''}, in {path}")
    raise typer.Exit(int(failed > 0))


SERVE_EPILOG = """Environment variables: ALSERVE_TOKEN the bearer token that requests must carry (none) · ALSERVE_HOSTS
without a token, the hosts that it may be asked for beside localhost and its own address, with commas (none) ·
ALSERVE_TIMEOUT seconds for a body, and again for the answer (30) · ALSERVE_IDLE seconds for a request's head, and the
longest pause in its body (10) · ALSERVE_RATE bytes a second, at least, of a body, and of an answer on its way, once
ALSERVE_IDLE is over (4000) · ALSERVE_DECODE_TIMEOUT seconds to decode an image (10) · ALSERVE_MEMORY MiB of bodies
held at once, and again of answers (256; 32 is the largest body) · ALSERVE_CONNECTIONS open connections (500, or half
of the files that may be open) · ALSERVE_QUEUE images that may wait (16 a core, at least 64) · ALSERVE_BATCH images a
network call (1 on the CPU, 16 on a GPU) · ALSERVE_GRACE seconds for requests under way when it is told to stop (30) ·
ALSERVE_WORKERS processes that answer (1: it uses all cores by itself; more share cores, queue, connections and
memory, and when one dies the others go on, at the price of a model in memory each) · ALSERVE_DEVICE auto, cpu, cuda
or cuda:N (auto) · ALSERVE_SELF_CHECK no: serve the model even if it gives other answers here than where it was
trained (yes) · ALSERVE_MODEL the model file."""


@app.command(rich_help_panel=USE, epilog=SERVE_EPILOG)
def serve(
    model: Model = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 opens it to the network.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 3000,
) -> None:
    """Answer over HTTP; the page /docs of the service lists what it answers."""
    from alserve.service.serve import serve_model  # noqa: PLC0415

    serve_model(model, host=host, port=port)


@app.command(rich_help_panel=USE)
def package(
    model: Annotated[Path, typer.Argument(help="Model file.")],
    *,
    gpu: Annotated[bool, typer.Option("--gpu", help="For an NVIDIA GPU: Linux on x86-64.")] = False,
    tag: Annotated[
        str, typer.Option(metavar="NAME[:VERSION]", help="What to call it. Without a version: a new one.")
    ] = "alserve",
) -> None:
    """Pack a model and the service, without torch, into a bento, from which BentoML makes a container.

    Example: alserve package tissue.onnx --tag tissue, then run the line that it prints
    """
    from alserve.service.packaging import package_model  # noqa: PLC0415

    print(package_model(model, gpu=gpu, tag=tag))


@app.command(rich_help_panel=USE)
def info(model: Annotated[Path, typer.Argument(help="Model file.")]) -> None:
    """Show what a model file says of itself, and how far its answers here are from those of the trained network."""
    from alserve.doctor import print_model  # noqa: PLC0415

    print_model(model)


@app.command(rich_help_panel=USE)
def doctor(
    models: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[MODEL]...", help="Model files, to find out which is fastest here, and where."),
    ] = None,
) -> None:
    """Check this machine: versions, devices that work, packages that get in each other's way.

    With model files, such as an fp32 one and its int8 copy, each is measured on each device, and compared with the
    answers of the trained network that it carries.

    Example: alserve doctor tissue.onnx small.onnx
    """
    from alserve.doctor import print_machine, print_speeds  # noqa: PLC0415

    raise typer.Exit(print_speeds(models) if models else print_machine())


def main() -> None:
    """Run the command line; an error that the user can mend is one line, without a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names need not be Unicode
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except AlserveError as error:
        _fail(str(error))
    except BrokenPipeError:  # whoever read what is printed has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes once more as it ends
        sys.exit(1)
    except OSError as error:  # a full disk, a folder that may not be written
        _fail(f"{error.filename or 'a file'}: {error.strerror or error}")
    except KeyboardInterrupt:
        print("alserve: interrupted", file=sys.stderr)
        sys.exit(130)


def _fail(message: str) -> Never:
    print(f"alserve: {printable(message)}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
