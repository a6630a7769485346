"""Commands that carry masks and drafts between annotation programs and folders: masks import, masks export."""

from pathlib import Path
from typing import Annotated

import typer

from alserve.api import need_training
from alserve.cli.options import TRAIN, Command, one_of

commands = typer.Typer()
masks = typer.Typer(no_args_is_help=True, help="Carry masks and drafts between annotation programs and folders.")
commands.add_typer(masks, name="masks", rich_help_panel=TRAIN)


@masks.command(cls=Command, name="import")
def import_masks(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE",
            help="A folder of masks from a paint program, a COCO file, CVAT's XML, Label Studio's JSON export, or "
            "GeoJSON of QuPath.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the masks: PNG, 0 and 255.")],
    data: Annotated[
        Path | None,
        typer.Option(
            help="The data set: masks get its images' names, and must have their sizes.", show_default="not looked at"
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace masks that are there and differ.")] = False,
) -> None:
    """Import masks that were drawn in an annotation program.

    Any label, and any value that is not zero, is foreground; in CVAT and QuPath the label background cuts holes. An
    image skipped in Label Studio is skipped here as well.

    Example: alserve masks import project.json --out drawing/masks --data tissue.csv
    """
    need_training()
    from training.annotate.annotation_io import import_masks as run  # noqa: PLC0415

    run(source, out, data, overwrite=overwrite)


@masks.command(cls=Command, name="export")
def export_masks(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of 'train --oracle folder:DIR'.")],
    out: Annotated[Path, typer.Option(help="The file to write.")],
    format: Annotated[  # noqa: A002
        str,
        typer.Option(
            metavar="NAME",
            parser=one_of("training.annotate.formats:written_formats"),
            help="The annotation program's format: {training.annotate.formats:written_formats}.",
        ),
    ] = "coco",
    prefix: Annotated[
        str, typer.Option(help="Label Studio: what comes before an image's path in the address it loads.")
    ] = "/data/local-files/?d=",
) -> None:
    """Write what is to be drawn, with the drafts, for an annotation program.

    Example: alserve masks export drawing --out drafts.json --format label-studio
    """
    need_training()
    from training.annotate.annotation_io import export_masks as run  # noqa: PLC0415

    run(folder, out, format, prefix)
