"""Commands that make models: demo, data, train, export, experiment and report."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from alserve.api import need_training
from alserve.cli.options import TRAIN, Address, Command, Masks, Overwrite, Seed, TrainingCommand, TrainingDevice, one_of

if TYPE_CHECKING:
    from alserve.modelfile import Precision

WAITING = 3
"""Exit code of a training run for which a person has to draw masks first."""

commands = typer.Typer()


@commands.command(cls=Command, rich_help_panel=TRAIN)
def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything that the demo makes.")] = Path("runs/demo"),
    seed: Seed = 0,
) -> None:
    """See the whole path in a few minutes: draw a small data set, learn, export, segment, serve, report."""
    need_training()
    from training.demo import run_demo  # noqa: PLC0415

    run_demo(out, seed=seed)


@commands.command(cls=Command, rich_help_panel=TRAIN)
def data(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="The data set: {training.data.importers:IMPORTERS}.",
        ),
    ],
    archive: Annotated[
        Path, typer.Argument(metavar="ARCHIVE", help="The official archive: a zip for glas, CUB_200_2011.tgz for cub.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for images/, masks/ and data.csv.")],
    masks: Annotated[
        Path | None, typer.Option(help="segmentations.tgz of CUB.", show_default="beside the archive")
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Seed of a random split 'valid'.", show_default="the published split of glas, 0 for cub"),
    ] = None,
) -> None:
    """Turn the archive of a published data set into a folder and a CSV to train on.

    Example: alserve data glas warwick_qu_dataset.zip --out glas, then alserve train glas/data.csv --preset glas ...
    """
    need_training()
    from training.data.importers import IMPORTERS  # noqa: PLC0415

    IMPORTERS.find(name).unpack(archive, out, masks=masks, seed=seed)


@commands.command(cls=TrainingCommand, rich_help_panel=TRAIN)
def train(
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="A folder with a subfolder per class, or a CSV: image, label and perhaps mask, split; also "
            "s3://BUCKET/FOLDER or FILE, of which a copy is kept here.",
        ),
    ],
    out: Annotated[
        str,
        typer.Option(
            metavar="PATH",
            help="Folder of this run, also s3://BUCKET/FOLDER; the same command again continues a stopped run.",
        ),
    ],
    masks: Masks = None,
    oracle: Annotated[
        str,
        typer.Option(
            metavar="data|browser|folder:DIR|label-studio:PROJECT[:consensus]",
            help="Where masks come from: the data set; a person who draws them on a page in the browser; a person who "
            "finds in DIR what to draw and saves it there; or one who draws in a project of Label Studio, by its "
            "number, at LABEL_STUDIO_URL, with the token LABEL_STUDIO_API_KEY; of several people's masks of an image "
            "the latest counts, or the consensus.",
        ),
    ] = "data",
    preset: Annotated[
        str | None,
        typer.Option(
            help="Settings for a kind of data: {training.settings:PRESETS}. Other options replace its values.",
            show_default="none",
        ),
    ] = None,
    method: Annotated[str | None, typer.Option(help="What is learned from: {training.settings:Method}.")] = None,
    query: Annotated[str | None, typer.Option(help="Which images to ask for: {training.query:STRATEGIES}.")] = None,
    initial: Annotated[int | None, typer.Option(help="Number of masks asked for at first, per class.")] = None,
    per_round: Annotated[
        int | None, typer.Option(help="Number of masks asked for in every further round, per class.")
    ] = None,
    rounds: Annotated[int | None, typer.Option(help="Number of rounds; each is one training at one budget.")] = None,
    passes: Annotated[
        int | None,
        typer.Option(
            help="Number of trainings a round of label-propagation; each further one learns from fresh pseudo-masks."
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Training steps of one pass.")] = None,
    classifier_steps: Annotated[
        int | None, typer.Option(help="Training steps on the class labels, in each cycle of the learning rate.")
    ] = None,
    short_side: Annotated[
        int | None, typer.Option(help="Working size: short side in pixels, a multiple of 32, 64 or more.")
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(help="Name of a timm encoder, such as resnet34 or vit_small_patch14_dinov2.")
    ] = None,
    encoder_weights: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The encoder's first weights, where no model hub can be reached: safetensors, or a state dictionary "
            "of PyTorch.",
            show_default="an installed package's, or the hub's",
        ),
    ] = None,
    decoder: Annotated[
        str | None,
        typer.Option(
            help="separable-unet, or the name of a segmentation-models-pytorch decoder; a wrong name lists them all."
        ),
    ] = None,
    encoder_lr: Annotated[
        float | None,
        typer.Option(help="Learning rate of the encoder while it learns masks, such as 1e-4; 0 keeps it frozen."),
    ] = None,
    empty_classes: Annotated[
        list[str] | None,
        typer.Option(
            "--empty-class",
            metavar="NAME",
            help="A class without foreground, such as normal: no mask is asked for, all are known to be empty. "
            "May be repeated.",
            show_default="none",
        ),
    ] = None,
    validation_masks: Annotated[
        bool,
        typer.Option(
            "--validation-masks",
            help="Choose the threshold on the masks of split 'valid', which count in the budget; else it is one half.",
        ),
    ] = False,
    others: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Any other setting, such as --set k=0.1 --set pseudo_targets=soft; a wrong name lists them all.",
            show_default="each its own",
        ),
    ] = None,
    device: TrainingDevice = "auto",
    devices: Annotated[
        int,
        typer.Option(
            min=1,
            help="Processes on each machine that share the training: one for each GPU, or without GPUs for some cores.",
        ),
    ] = 1,
    nodes: Annotated[
        int, typer.Option(min=1, help="Machines; torchrun or Slurm starts the command in every process of each.")
    ] = 1,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """Learn from class labels and a few masks, by rounds of active learning.

    OUT then holds model.onnx (exported after every round), rounds.jsonl (one object a round),
    report.html, the settings, and the state that lets a stopped run continue.

    With --oracle browser it opens a page when it needs masks, and goes on when they are drawn. With --oracle folder:DIR
    or label-studio:PROJECT it stops then, with exit code 3, and says where to draw them; run the same command again
    afterwards.

    Example: alserve train tissue.csv --out runs/tissue --initial 4 --per-round 1 --rounds 5
    """
    arguments = locals()
    need_training()
    from alserve.measure.dataset import check_local  # noqa: PLC0415
    from training.settings import Settings, parse_assignments  # noqa: PLC0415

    assigned = parse_assignments(others or [])

    def typed(name: str, value: object) -> str:
        return f"--set {name}={value}" if name in assigned else f"--{name.replace('_', '-')} {value}"

    settings = Settings.of(preset, {**Settings.among(arguments), **assigned}, typed)
    check_local(data, masks)
    from training.train import train_run  # noqa: PLC0415  loads torch, which takes seconds

    result = train_run(
        data,
        out,
        settings,
        masks=masks,
        oracle=oracle,
        device=device,
        devices=devices,
        nodes=nodes,
        overwrite=overwrite,
    )
    if result.waiting:
        raise typer.Exit(WAITING)


@commands.command(cls=Command, rich_help_panel=TRAIN)
def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a training run.")],
    out: Annotated[Path, typer.Option(help="Where to write the model file.")],
    precision: Annotated[
        str,
        typer.Option(
            help="What it computes in: {alserve.modelfile:Precision}. fp16 is for GPUs, int8 for CPUs.",
            parser=one_of("alserve.modelfile:Precision"),
        ),
    ] = "fp32",
    data: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="The run's data set; also s3://BUCKET/FOLDER or FILE.",
            show_default="where it was when the run began",
        ),
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
    need_training()
    from training.export.run import export_run  # noqa: PLC0415

    export_run(run, out, cast("Precision", precision), data=data, force=force, references=not no_references)


@commands.command(cls=Command, rich_help_panel=TRAIN)
def experiment(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG", help="YAML file: data, preset, settings, methods, seeds.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for all runs; the same command again continues.")],
    data: Annotated[
        str | None, typer.Option(metavar="PATH", help="Folder or CSV, as for 'train'.", show_default="the file's")
    ] = None,
    masks: Masks = None,
    jobs: Annotated[
        int, typer.Option(min=1, help="Runs at once on each machine; they share the cores, and the GPUs in turn.")
    ] = 1,
    device: TrainingDevice = "auto",
    engine: Annotated[
        Literal["local", "ray"], typer.Option(help="What does the runs: local or ray; ray is for clusters.")
    ] = "local",
    address: Address = None,
) -> None:
    """Compare methods over seeds: a run of each, what they share computed once, and a report of all.

    OUT then holds a run NAME-SEED for each, report.html, results.md, figures/ and logs/. If a run fails, the others go
    on, and the exit code is 1.

    Example: alserve experiment benchmarks/glas.yaml --data glas/data.csv --out runs/glas --jobs 2
    """
    need_training()
    if data is not None:
        from alserve.measure.dataset import check_local  # noqa: PLC0415

        check_local(data, masks)
    from training.compare.experiment import run_experiment  # noqa: PLC0415  loads torch, which takes seconds

    failures = run_experiment(
        config, out, data=data, masks=masks, jobs=jobs, device=device, engine=engine, address=address
    )
    for failure in failures:
        print(f"alserve: {failure}", file=sys.stderr)
    raise typer.Exit(int(bool(failures)))


@commands.command(cls=Command, rich_help_panel=TRAIN)
def report(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Runs, or an experiment's folder.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder to write to.", show_default="DIR, if there is only one")
    ] = None,
    between: Annotated[
        str | None,
        typer.Option(
            metavar="M-N", help="Compare areas from M to N masks.", show_default="as far as all finished runs go"
        ),
    ] = None,
) -> None:
    """Show what runs learned: one HTML page, figures, and for several runs a table.

    Runs that differ by their seed alone are one line, with its spread; finished runs are compared by the area under
    Dice against masks.

    Example: alserve report runs/tissue runs/tissue-random --out compared
    """
    need_training()
    from training.report import report_folders  # noqa: PLC0415

    print(report_folders(folders, out, between=between))
