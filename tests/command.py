"""The command line as a user types it, in this process."""

import sys

import pytest

from alserve.cli import main

Captured = tuple[int, str, str]


class Cli:
    """Run a command line in this process; give exit code, standard output and standard error."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch = monkeypatch
        self.capsys = capsys

    def __call__(self, *words: object) -> Captured:
        self.monkeypatch.setattr(sys, "argv", ["alserve", *map(str, words)])
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = self.capsys.readouterr()
        return int(caught.value.code or 0), out, err


def assert_refused(result: Captured, *words: str) -> None:
    code, out, err = result
    assert code == 2
    assert not out
    assert err.startswith("alserve: ")
    assert len(err.splitlines()) == 1
    assert all(word in err for word in words), err
