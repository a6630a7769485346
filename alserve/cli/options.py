"""What commands share: types of options, and help that looks up names and defaults when it is shown."""

import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import typer
from typer.core import TyperCommand

from alserve.registry import suggest

if TYPE_CHECKING:
    from collections.abc import Sequence

TRAIN = "Train (needs: pip install 'alserve\\[train]')"
USE = "Use a model"

ModelPlace = Annotated[
    str | None,
    typer.Option(
        metavar="PATH",
        help="Model file; also s3://BUCKET/FILE.",
        show_default="$ALSERVE_MODEL, else the one file in models/",
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        help="Where the Ray cluster is: HOST:PORT, or auto on one of its machines.",
        show_default="$RAY_ADDRESS, else Ray starts on this machine",
    ),
]
Masks = Annotated[
    str | None,
    typer.Option(
        metavar="PATH",
        help="Folder of masks, a mirror of DATA's folders, also s3://BUCKET/FOLDER; non-zero pixels are foreground.",
        show_default="the masks that a CSV names",
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is in the output folder.")]
NoSelfCheck = Annotated[
    bool,
    typer.Option(
        "--no-self-check", help="Use the model even if its answers here differ from those where it was trained."
    ),
]
Seed = Annotated[int, typer.Option(help="Determines everything that is random: same seed, same machine, same result.")]

TrainingDevice = Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to train.")]


_SCHEME = re.compile("([A-Za-z][A-Za-z0-9+.-]+):/[^/]")
"""How a path begins that was a URL."""


class Command(TyperCommand):
    """A command whose help is completed when it is shown, so that `alserve --help` imports nothing for it.

    In help texts "{module:name}" stands for the names that are in a registry, a mapping or a literal type. Where a path
    is wanted, a URL is refused: it would be the name of a folder such as "s3:".
    """

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401  Typer's own types are private
        """Run the command."""
        params: list[Any] = self.params
        for param in params:
            value = ctx.params.get(param.name)
            for path in value if isinstance(value, list) else [value]:
                if isinstance(path, Path) and (scheme := _SCHEME.match(path.as_posix())):
                    raise typer.BadParameter(
                        f"{scheme[1]}:// cannot be given here, only a path on the disk", ctx=ctx, param=param
                    )
        return super().invoke(ctx)

    def format_help(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401  Typer's own types are private
        """Write the help."""
        for param in self.params:
            if text := getattr(param, "help", None):
                param.help = re.sub(r"\{([\w.]+:\w+)\}", lambda found: _listed(found[1]), text)  # type: ignore[attr-defined]
        super().format_help(ctx, formatter)


class TrainingCommand(Command):
    """A command whose options without a default have that of the training setting of their name."""

    def format_help(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401
        """Write the help."""
        try:
            fields = import_module("training.settings").Settings.model_fields
        except ImportError:  # the extra is not installed
            fields = {}
        for param in self.params:
            if param.default is None and param.name in fields:
                param.default = fields[param.name].default
        super().format_help(ctx, formatter)


def names_in(place: str) -> "Sequence[str]":
    """Return the names in a registry, a mapping or a literal type, or those that a function returns.

    Args:
        place: "module:name".
    """
    module, _, name = place.partition(":")
    found = getattr(import_module(module), name)
    return get_args(found) or tuple(found() if callable(found) else found)


def one_of(place: str) -> Callable[[str], str]:
    """Return a parser of an option that is one of the names in a registry, a mapping or a literal type.

    Args:
        place: See `names_in`.
    """

    def parse(word: str) -> str:
        known = names_in(place)
        if word not in known:
            raise typer.BadParameter(f"'{word}' is unknown; {suggest(word, known)}")
        return word

    return parse


def number_or(word: str) -> Callable[[str], float | str]:
    """Return a parser of an option that is a number or this word."""

    def parse(text: str) -> float | str:
        try:
            return text if text == word else float(text)
        except ValueError:
            raise typer.BadParameter(f"'{text}' is no number; give one, or {word}") from None

    return parse


def _listed(place: str) -> str:
    try:
        *rest, last = names_in(place)
    except ImportError:
        return "(listed where alserve[train] is installed)"
    return f"{', '.join(rest)} or {last}" if rest else last
