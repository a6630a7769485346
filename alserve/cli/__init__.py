"""The command line: names and flags are a promise; the work is done by the functions that each command calls.

Exit codes: 0 all done, 1 some images or runs failed (all others are done), 2 wrong usage or input, 3 a training run
waits for masks that a person has to draw, 130 interrupted.
"""

import io
import os
import sys
from typing import Annotated, Any, Never

import typer

from alserve import __version__
from alserve.cli import cluster, masks, model, segment, serve, train
from alserve.errors import AlserveError, describe_fault
from alserve.paths import printable

EXIT_CODES = """Exit codes: 0 all done · 1 some images or runs failed, all others are done · 2 wrong usage or input ·
3 a training run waits for masks that a person has to draw · 130 interrupted."""

app = typer.Typer(
    name="alserve",
    add_completion=False,
    rich_markup_mode="rich" if sys.stdout.isatty() else None,  # panels for people; plain, and sooner there, in a pipe
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Learn from image labels and a few pixel masks; segment, classify and explain with one ONNX file.",
    epilog=EXIT_CODES,
)
for group in (train, masks, model, segment, cluster, serve):
    app.add_typer(group.commands)


def _version(*, value: bool) -> None:
    if value:
        typer.echo(f"alserve {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    *,
    _: Annotated[
        bool,
        typer.Option(
            "--version", callback=lambda value: _version(value=value), is_eager=True, help="Show the version."
        ),
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(2)


def main() -> None:
    """Run the command line; an error that the user can correct is one line, without a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names need not be Unicode
    try:
        try:
            code = app(prog_name="alserve", standalone_mode=False)
        finally:
            sys.stdout.flush()
    except AlserveError as error:
        _fail(str(error))
    except typer.TyperException as error:
        _fail(_usage(error))
    except BrokenPipeError:  # whoever read what is printed has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes once more as it ends
        sys.exit(1)
    except OSError as error:  # a full disk, a folder that may not be written
        _fail(f"{error.filename or 'a file'}: {error.strerror or error}")
    except KeyboardInterrupt:
        code = 130
    if code == 130:  # noqa: PLR2004
        print("alserve: interrupted", file=sys.stderr)
    sys.exit(code)


def _usage(error: typer.TyperException) -> str:
    """Say in one line what is wrong with what was typed, and where its help is."""
    option = getattr(error, "param", None)
    if isinstance(error, typer.BadParameter) and error.message and option is not None:
        faults: list[Any] = getattr(error.__cause__, "errors", list)()  # pydantic's, which is slow to import
        value = f" {faults[0]['input']}" if faults else ""
        fault = describe_fault(error.message).removeprefix(f"'{value.strip()}' ")
        text = f"{(option.opts or [option.name])[0]}{value}: {fault}"
    else:
        text = error.format_message().rstrip(".")
        text = text[:1].lower() + text[1:]
    context = getattr(error, "ctx", None)
    return f"{text}; see '{context.command_path if context else 'alserve COMMAND'} --help'"


def _fail(message: str) -> Never:
    print(f"alserve: {printable(message)}", file=sys.stderr)
    sys.exit(2)
