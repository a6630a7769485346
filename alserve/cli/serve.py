"""Commands that answer over HTTP: serve and package."""

from pathlib import Path
from typing import Annotated

import typer

from alserve.cli.options import USE, Command, ModelPlace, one_of

commands = typer.Typer()

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
trained (yes) · ALSERVE_LABEL_STUDIO_FILES the folder of Label Studio's local files (none) ·
ALSERVE_LABEL_STUDIO_MEDIA the folder of its uploads (none) · ALSERVE_MODEL the model
file, or its address in an object store."""


@commands.command(cls=Command, rich_help_panel=USE, epilog=SERVE_EPILOG)
def serve(
    model: ModelPlace = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 opens it to the network.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 3000,
) -> None:
    """Answer over HTTP; the page /docs of the service lists what it answers."""
    from alserve.service.serve import serve_model  # noqa: PLC0415

    serve_model(model, host=host, port=port)


@commands.command(cls=Command, rich_help_panel=USE)
def package(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Model file.")],
    *,
    gpu: Annotated[bool, typer.Option("--gpu", help="For an NVIDIA GPU: Linux on x86-64.")] = False,
    extra: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            parser=one_of("alserve.service.packaging:EXTRAS"),
            help="Also install an extra: {alserve.service.packaging:EXTRAS}; repeatable.",
            show_default="none",
        ),
    ] = None,
    tag: Annotated[
        str, typer.Option(metavar="NAME[:VERSION]", help="What to call it. Without a version: a new one.")
    ] = "alserve",
) -> None:
    """Pack a model, the service and 'alserve segment', without torch, into a bento: BentoML makes a container of it.

    Example: alserve package tissue.onnx --tag tissue, then run the line that it prints
    """
    from alserve.service.packaging import package_model  # noqa: PLC0415

    print(package_model(model, gpu=gpu, extras=extra or (), tag=tag))
