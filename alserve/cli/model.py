"""Commands about a model file and this machine: evaluate, info and doctor."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from alserve.cli.options import USE, Command, Masks, NoSelfCheck

commands = typer.Typer()


@commands.command(cls=Command, rich_help_panel=USE)
def evaluate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Model file; also s3://BUCKET/FILE.")],
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="Folder with a subfolder per class, or CSV, as for 'train'; also s3://BUCKET/FOLDER or FILE.",
        ),
    ],
    masks: Masks = None,
    split: Annotated[Literal["train", "valid", "test"], typer.Option(help="Which images.")] = "test",
    json: Annotated[Path | None, typer.Option(help="Also write the figures to this file.", show_default="none")] = None,
    worst: Annotated[
        Path | None,
        typer.Option(
            help="Also draw the images of the lowest Dice and the largest false alarms, ten each: .png or .jpg.",
            show_default="none",
        ),
    ] = None,
    no_self_check: NoSelfCheck = False,
) -> None:
    """Measure a model file on labelled images, at their own size.

    Dice of the images with foreground, how many of them are found, and how many of the empty ones have a false alarm,
    with 95 % intervals, of all images and class by class; Dice of all images beside that of an empty mask and of a mask
    of everything; IoU and accuracy; PxAP of mask and CAM, and how far probabilities and scores are from the frequencies
    they claim to be (calibration error).

    Example: alserve evaluate tissue.onnx tissue.csv --json figures.json --worst worst.png
    """
    from alserve.files import write_atomic  # noqa: PLC0415
    from alserve.measure.evaluate import evaluate as measure  # noqa: PLC0415
    from alserve.measure.tables import print_figures  # noqa: PLC0415
    from alserve.places.urls import open_file  # noqa: PLC0415

    figures = measure(model, data, masks=masks, split=split, worst=worst, self_check=not no_self_check)
    print_figures(f"{open_file(model)[1]} on {figures.images} images of split '{split}'", figures)
    if json is not None:
        write_atomic(json, figures.model_dump_json(indent=2).encode())


@commands.command(cls=Command, rich_help_panel=USE)
def info(model: Annotated[Path, typer.Argument(metavar="MODEL", help="Model file.")]) -> None:
    """Show what a model file says of itself, and how far its answers here are from those of the trained network."""
    from alserve.cli.facts import print_model  # noqa: PLC0415

    print_model(model)


@commands.command(cls=Command, rich_help_panel=USE)
def doctor(
    models: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[MODEL]...", help="Model files, to find which is fastest here.", show_default="none"),
    ] = None,
) -> None:
    """Check this machine: versions, devices that work, packages that get in each other's way.

    With model files, such as an fp32 one and its int8 copy, each is measured on each device, and compared with the
    answers of the trained network that it carries.

    Example: alserve doctor tissue.onnx small.onnx
    """
    from alserve.cli.facts import print_machine, print_speeds  # noqa: PLC0415

    raise typer.Exit(print_speeds(models) if models else print_machine())
