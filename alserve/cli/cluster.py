"""The command that prints what starts a folder run on a cluster: cluster-template."""

from collections.abc import Sequence
from typing import Annotated

import typer
from typer.main import get_command

from alserve.cli import segment
from alserve.cli.options import USE, Command, one_of
from alserve.errors import OptionError

commands = typer.Typer()

_SET_BY_TEMPLATES = ("shard", "engine", "address")
"""Options of `alserve segment` that say which part of the run is done, and where."""


@commands.command(
    cls=Command,
    rich_help_panel=USE,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def cluster_template(
    context: typer.Context,
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND",
            parser=one_of("alserve.clusters.job:Kind"),
            help="k8s: an indexed Job of Kubernetes. slurm: an array of Slurm. ray: a RayJob of KubeRay.",
        ),
    ],
    inputs: Annotated[
        list[str], typer.Option("--input", help="Images or a folder of images, as in 'segment'; repeatable.")
    ],
    out: Annotated[str, typer.Option(help="Folder for the results, as in 'segment'.")],
    shards: Annotated[int, typer.Option(help="Parts done at once: pods, tasks of the array, workers of Ray.")],
    model: Annotated[
        str | None,
        typer.Option(
            help="Model file, as the containers see it.", show_default="the one that is packed in the container"
        ),
    ] = None,
    image: Annotated[
        str | None,
        typer.Option(
            help="Container, see 'package'; for Slurm also an Apptainer file (.sif). Needed but for Slurm.",
            show_default="none",
        ),
    ] = None,
    name: Annotated[str, typer.Option(help="What to call the job.")] = "alserve",
    cpus: Annotated[int, typer.Option(help="Cores of each part.")] = 4,
    memory: Annotated[str, typer.Option(help="Memory of each part, in Mi, Gi or Ti.")] = "8Gi",
    gpus: Annotated[int, typer.Option(help="GPUs of each part.")] = 0,
    secret: Annotated[
        str | None,
        typer.Option(help="Secret of Kubernetes with credentials, as environment variables.", show_default="none"),
    ] = None,
    volume: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CLAIM:/FOLDER",
            help="PersistentVolumeClaim, and the folder where the containers see it; repeatable.",
            show_default="none",
        ),
    ] = None,
) -> None:
    """Print the file that starts a folder run on a cluster, for 'kubectl apply' or 'sbatch'.

    All other options are those of 'alserve segment', such as --save and --threshold, and are passed on.

    Example: alserve cluster-template k8s --input s3://bucket/slides --out s3://bucket/results --shards 8
    --image registry.example.org/tissue:1 --secret s3 --save mask
    """
    from alserve.clusters.job import read_job  # noqa: PLC0415
    from alserve.clusters.render import render  # noqa: PLC0415

    job = read_job(
        kind=kind,
        input=inputs,
        out=out,
        shards=shards,
        model=model,
        options=context.args,
        image=image,
        name=name,
        cpus=cpus,
        memory=memory,
        gpus=gpus,
        secret=secret,
        volume=volume or (),
    )
    _check_options(job.options)
    print(render(job), end="")


def _check_options(words: Sequence[str]) -> None:
    """Read what is passed on as `alserve segment` would, so that a slip is told here, not by every pod.

    Raises:
        OptionError: An option is set by the template, or a word belongs to none.
    """
    command = get_command(segment.commands).commands["segment"]  # type: ignore[attr-defined]
    given = command.make_context("alserve segment", ["INPUT", "--out=OUT", *words]).params
    for param in command.params:
        if param.name in _SET_BY_TEMPLATES and given[param.name] != param.default:
            raise OptionError(f"--{param.name} is set by the template; leave it out")
    if strays := [*map(str, given["inputs"][1:]), *(word for word in words if word == "--")]:
        raise OptionError(f"unexpected {strays[0]!r}; name images and folders with --input")
