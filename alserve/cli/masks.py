"""Commands by which a person draws masks: annotate, and masks import and export for annotation programs."""

from pathlib import Path
from typing import Annotated

import typer

from alserve.api import need_training
from alserve.cli.options import TRAIN, Command, one_of

commands = typer.Typer()
masks = typer.Typer(no_args_is_help=True, help="Carry masks and drafts between annotation programs and folders.")
commands.add_typer(masks, name="masks", rich_help_panel=TRAIN)


@commands.command(cls=Command, rich_help_panel=TRAIN)
def annotate(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of 'train --oracle folder:DIR'.")],
    port: Annotated[
        int,
        typer.Option(
            min=0, max=65535, help="Port of 127.0.0.1 to listen on; 0 is a free one, and later the same again."
        ),
    ] = 0,
    opens: Annotated[
        bool | None,
        typer.Option("--open/--no-open", help="Open the page in a browser.", show_default="where there is a display"),
    ] = None,
) -> None:
    """Draw, in the browser, the masks that a folder asks for.

    The page is answered on this machine only, by an address with a secret token. Every stroke is saved; a mask goes to
    DIR/masks when you say that its image is done.

    Example: alserve annotate drawing, then the same 'alserve train' command again
    """
    need_training()
    from training.annotate.browser.command import annotate_folder  # noqa: PLC0415

    annotate_folder(folder, port=port, opens=opens)


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
