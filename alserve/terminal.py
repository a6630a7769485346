"""What a person at a terminal sees and presses: lines, tables, progress, Ctrl-C.

Rich is imported where something is drawn, which a run in a script or a container never does: it starts sooner.
"""

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING

from alserve.paths import printable

if TYPE_CHECKING:
    from rich.progress import Progress

PLAIN_LINE_SECONDS = 10.0
"""Where there is no terminal, progress is a line, at most every this many seconds."""

SPANS = ((1, "s"), (60, "min"), (3600, "h"))
"""Spans of time, in seconds, that a rate is told by."""

_bars: list["Progress"] = []
"""The progress bars on the screen, the latest last."""

Watch = Callable[[str, float | None], None]

_watches: list[Watch] = []
"""Who wants to know what a person at the terminal is told, see `watched`."""


def say(message: str) -> None:
    """Print one line to standard error, above a progress bar if there is one."""
    message = printable(message)
    for watch in _watches:
        watch(message, None)
    if _bars:
        _bars[-1].console.print(f"alserve: {message}", highlight=False, markup=False, soft_wrap=True)
    else:
        print(f"alserve: {message}", file=sys.stderr, flush=True)


@cache
def say_once(message: str) -> None:
    """Print a line as `say` does, unless this process did so before."""
    say(message)


def print_facts(title: str, facts: Sequence[tuple[str, str]], *, alarm: str = "") -> None:
    """Print names and values: a table on a terminal, plain lines into a pipe.

    Args:
        title: Heading of the table.
        facts: (name, value) pairs.
        alarm: The name whose values are shown in red.
    """
    if not sys.stdout.isatty():
        print("\n".join(f"{name}: {value}" for name, value in facts))
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(title=Text(title, style="bold"), title_justify="left", show_header=False)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(name, Text(value, style="bold red" if name == alarm else ""))
    Console().print(table)


@contextmanager
def progress(total: int, what: str = "", unit: str = "images") -> Iterator[Callable[[int], None]]:
    """Show progress on standard error: a bar with rate and time left on a terminal, else a line now and then.

    Args:
        total: Number of things to do.
        what: The work, in front of the bar.
        unit: What the things are.

    Yields:
        A function to call with the number of things done.
    """
    with _shown(total, what, unit) as show:

        def tell(done: int) -> None:
            show(done)
            for watch in _watches:
                watch(f"{what}: {done} of {total} {unit}", done / max(total, 1))

        yield tell


@contextmanager
def watched(watch: Watch) -> Iterator[None]:
    """Call a function with every line that is said in the block, and with all progress, with the share that is done."""
    _watches.append(watch)
    try:
        yield
    finally:
        _watches.remove(watch)


@contextmanager
def _shown(total: int, what: str, unit: str) -> Iterator[Callable[[int], None]]:
    start = time.perf_counter()

    def rate(done: int) -> float:
        return done / (time.perf_counter() - start)

    if not sys.stderr.isatty():
        due, told = start + PLAIN_LINE_SECONDS, -1

        def line(done: int) -> None:
            nonlocal due, told
            if done != told and time.perf_counter() >= due:
                due, told = time.perf_counter() + PLAIN_LINE_SECONDS, done
                left = f", {timedelta(seconds=round((total - done) / rate(done)))} left" if done else ""
                say(f"{what}{': ' if what else ''}{done} of {total} {unit}, {describe_rate(rate(done), unit)}{left}")

        yield line
        return
    with _bar() as bar:
        task = bar.add_task(what, total=total, rate="")
        yield lambda done: bar.update(task, completed=done, rate=describe_rate(rate(done), unit))


def describe_rate(per_second: float, unit: str) -> str:
    """Say how fast things are done, by the second, the minute or the hour: whichever is the first to see one."""
    seconds, name = next((span for span in SPANS if per_second * span[0] >= 1), SPANS[-1])
    return f"{per_second * seconds:.1f} {unit}/{name}"


@contextmanager
def _bar() -> Iterator["Progress"]:
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    name = TextColumn("{task.description}")
    speed = TextColumn("{task.fields[rate]}")
    columns = (name, BarColumn(), MofNCompleteColumn(), speed, TimeRemainingColumn(), TextColumn("left"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        _bars.append(bar)
        try:
            yield bar
        finally:
            _bars.remove(bar)


@contextmanager
def interruptible() -> Iterator[threading.Event]:
    """Turn the first Ctrl-C, or SIGTERM, into a request to stop; a second Ctrl-C stops at once.

    Outside of the main thread, which alone gets signals, nothing is changed.

    Yields:
        The event that is set by it.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    earlier = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(*_: object) -> None:
        stop.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    for number in earlier:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
