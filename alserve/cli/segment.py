"""Commands that run a model over files: segment and merge."""

from typing import Annotated

import typer

from alserve.cli.options import USE, Address, Command, ModelPlace, NoSelfCheck, Overwrite, number_or

commands = typer.Typer()


@commands.command(cls=Command, rich_help_panel=USE)
def segment(
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT...", help="Images and folders of images; also s3://BUCKET/FOLDER.")
    ],
    out: Annotated[
        str,
        typer.Option(metavar="PATH", help="Folder for the results, with the inputs' folders; also s3://BUCKET/FOLDER."),
    ],
    model: ModelPlace = None,
    save: Annotated[
        str,
        typer.Option(help="What to write, with commas: {alserve.outputs:OUTPUTS}."),
    ] = "mask,cam,overlay",
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Probability above which a pixel is foreground.", show_default="the model's own"
        ),
    ] = None,
    smooth: Annotated[
        float, typer.Option(min=0, max=20, help="Smooth the mask's edges: standard deviation in pixels.")
    ] = 0.0,
    fill_holes: Annotated[bool, typer.Option("--fill-holes", help="Fill the holes of the mask.")] = False,
    min_area: Annotated[int, typer.Option(min=0, help="Remove objects of the mask of fewer pixels.")] = 0,
    split_touching: Annotated[
        float,
        typer.Option(min=0, help="Part objects of this width at least, in pixels, where they touch; not in the mask."),
    ] = 0.0,
    um_per_pixel: Annotated[
        str | None,
        typer.Option(
            parser=number_or("auto"),
            metavar="NUMBER|auto",
            help="Side of a pixel in micrometres, to measure objects in them, too; auto: what the file states.",
            show_default="pixels only",
        ),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images a network call.", show_default="1 on the CPU, 16 on a GPU")
    ] = None,
    device: Annotated[
        str,
        typer.Option(
            help="Where to run: {alserve.runtime.device:device_names}. What is asked for is used or refused.",
        ),
    ] = "auto",
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Images worked on at once.", show_default="the cores this process may use"),
    ] = None,
    tile: Annotated[
        str | None,
        typer.Option(
            help="Cut large images: auto (tiles as large as the training images) or a side in pixels.",
            show_default="not cut",
        ),
    ] = None,
    overlap: Annotated[
        int | None, typer.Option(min=0, help="Pixels that tiles share.", show_default="a quarter of a tile")
    ] = None,
    max_pixels: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Refuse images of more pixels before decoding them.",
            show_default="67 million, with tiles 1 billion",
        ),
    ] = None,
    decode_timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds after which an image that is not decoded yet fails.")
    ] = 60.0,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="Do a fixed N-th of the images; 'alserve merge' joins the manifests.",
            show_default="all images",
        ),
    ] = None,
    keep_extension: Annotated[
        bool,
        typer.Option("--keep-extension", help="Name the pictures of a.jpg a.jpg.png, not a.png: a.tif can lie beside."),
    ] = False,
    overwrite: Overwrite = False,
    no_self_check: NoSelfCheck = False,
    engine: Annotated[
        str,
        typer.Option(help="What does the images: {alserve.folder.engines:ENGINES}; ray is for clusters."),
    ] = "local",
    address: Address = None,
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
    from alserve.folder.segment import segment as segment_images  # noqa: PLC0415

    result = segment_images(
        inputs,
        out=out,
        model=model,
        save=save,
        device=device,
        threads=threads,
        threshold=threshold,
        smooth=smooth,
        fill_holes=fill_holes,
        min_area=min_area,
        split_touching=split_touching,
        um_per_pixel=um_per_pixel,  # type: ignore[arg-type]
        batch_size=batch_size,
        tile=tile,
        overlap=overlap,
        max_pixels=max_pixels,
        decode_timeout=decode_timeout,
        shard=shard,
        keep_extension=keep_extension,
        overwrite=overwrite,
        self_check=not no_self_check,
        engine=engine,
        address=address,
    )
    print(result)
    raise typer.Exit(result.exit_code)


@commands.command(cls=Command, rich_help_panel=USE)
def merge(
    outs: Annotated[list[str], typer.Argument(metavar="OUT...", help="The --out folders of all shards.")],
    out: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="File to write.", show_default="predictions.jsonl in the first OUT"),
    ] = None,
) -> None:
    """Join the manifests of a run in shards; says which shard is missing, unfinished, damaged or of another run.

    Example: alserve segment slides/ --out results --shard 1/2, the same with 2/2, then alserve merge results
    """
    from alserve.folder.shards import merge as merge_manifests  # noqa: PLC0415

    path, images, failed = merge_manifests(outs, out)
    print(f"{images} images{f', {failed} failed' if failed else ''}, in {path}")
    raise typer.Exit(int(failed > 0))
