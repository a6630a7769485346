"""How progress is told."""

import re
import time

import pytest

from alserve import terminal
from alserve.terminal import describe_rate, progress, say, watched


@pytest.mark.parametrize(
    ("per_second", "said"),
    [
        (250.0, "250.0 runs/s"),
        (1.0, "1.0 runs/s"),
        (0.5, "30.0 runs/min"),
        (1 / 600, "6.0 runs/h"),
        (1 / 7200, "0.5 runs/h"),
        (0.0, "0.0 runs/h"),
    ],
)
def test_a_rate_is_told_by_the_span_that_sees_one(per_second: float, said: str) -> None:
    assert describe_rate(per_second, "runs") == said


def test_progress_without_a_terminal_is_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "PLAIN_LINE_SECONDS", 0.0)
    with progress(101, "glas", unit="runs") as show:
        show(0)
        time.sleep(0.1)
        show(1)
        show(1)
    first, second = capsys.readouterr().err.splitlines()
    assert first == "alserve: glas: 0 of 101 runs, 0.0 runs/h"
    assert re.fullmatch(r"alserve: glas: 1 of 101 runs, \d+\.\d runs/(s|min), 0:\d\d:\d\d left", second)


def test_others_may_watch_what_is_told() -> None:
    seen: list[tuple[str, float | None]] = []
    with watched(lambda message, share: seen.append((message, share))):
        with progress(4, "glas", unit="runs") as show:
            show(1)
        say("a line")
    say("nobody sees this")
    assert seen == [("glas: 1 of 4 runs", 0.25), ("a line", None)]
