"""Several processes on this machine, started by the first when it trains."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from alserve.errors import RunError
from alserve.runtime.device import available_cores
from alserve.terminal import say
from training.distributed.group import Numbered
from training.distributed.joined import AGAIN, Job, JoinedGroup
from training.distributed.ranks import Ranks

Result = TypeVar("Result")

LOOK_SECONDS = 0.2
"""Interval at which it is looked whether a process has ended."""

GRACE_SECONDS = 10
"""After that, a process that still waits for one that has ended is ended too: not every connection tells."""

LEAVING_SECONDS = 5
"""How long a process may take to end when there is no more work."""

LOOPBACK = {"linux": "lo", "darwin": "lo0"}
"""The network interface that nobody outside of the machine reaches, by `sys.platform`."""


class LocalGroup(JoinedGroup):
    """The processes of one machine.

    Args:
        rank: This one, from 0.
        size: Their number.
        accelerator: "cpu" or "gpu".
    """

    def __init__(self, rank: int, size: int, accelerator: str) -> None:
        super().__init__(Ranks(rank, size), size, Numbered(rank), accelerator)
        self._others: list[subprocess.Popen[bytes]] = []
        self._lost: str | None = None
        self._noticed, self._idle = threading.Event(), threading.Event()
        self._folder: TemporaryDirectory[str] | None = None

    def run(self, job: Job[Result]) -> Result:
        """See `training.distributed.group.Group.run`; the others are started for the first job."""
        if self._lost:
            raise RunError(f"{self._lost}; {AGAIN}")
        self._idle.clear()
        try:
            if not self._others:
                self._start()
            return super().run(job)
        finally:
            self._idle.set()

    def meet(self, file: Path) -> None:
        """Connect the processes, see `JoinedGroup.join`, by a file; no port is opened to other machines."""
        with _loopback():
            self.join(f"file://{file}")

    def close(self, code: int) -> None:
        """End the others, at once where they do not do so by themselves: they hold nothing."""
        others, self._others = self._others, []
        super().close(code)
        for process in others:
            with suppress(subprocess.TimeoutExpired):
                process.wait(0 if self._busy else LEAVING_SECONDS)
            process.kill()
            process.wait()
        if self._folder is not None:
            self._folder.cleanup()

    def what_is_lost(self) -> str:
        """Say in a few words which process has ended."""
        self._noticed.wait(GRACE_SECONDS)
        return self._lost or super().what_is_lost()

    def _start(self) -> None:
        self._folder = TemporaryDirectory(prefix="alserve-")
        file, size = Path(self._folder.name) / "processes", self.ranks.size
        threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, available_cores() // size))
        for rank in range(1, size):
            place = {"rank": rank, "size": size, "accelerator": self.accelerator, "file": str(file), "of": os.getpid()}
            command = [sys.executable, "-P", "-m", "training.distributed.worker", json.dumps(place)]
            environment = {**os.environ, "OMP_NUM_THREADS": threads}
            self._others.append(
                subprocess.Popen(command, stdin=subprocess.DEVNULL, env=environment, start_new_session=True)  # noqa: S603
            )
        threading.Thread(target=self._watch, args=[list(self._others)], daemon=True).start()
        self.meet(file)

    def _watch(self, others: list[subprocess.Popen[bytes]]) -> None:
        """Notice a process that ends while it is needed; end this one if that does not happen by itself."""
        while all(process.poll() is None for process in others):
            time.sleep(LOOK_SECONDS)
        if not self._others:
            return
        number, process = next((number, each) for number, each in enumerate(others, 2) if each.poll() is not None)
        self._lost = f"process {number} of {self.ranks.size} {_end(process.returncode)}"
        self._noticed.set()
        if not self._idle.wait(GRACE_SECONDS):
            say(f"{self._lost}; {AGAIN}")
            for each in others:
                each.kill()
            os._exit(2)


def _end(code: int) -> str:
    """Say how a process ended, of its exit code."""
    if code == -signal.SIGKILL:
        return "was ended by SIGKILL, as also happens where memory is short"
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"has ended with exit code {code}"


@contextmanager
def _loopback() -> Iterator[None]:
    """Let the processes talk inside of this machine only, unless an interface is named."""
    name = "GLOO_SOCKET_IFNAME"
    interface = LOOPBACK.get(sys.platform)
    if name in os.environ or interface is None:
        yield
        return
    os.environ[name] = interface
    try:
        yield
    finally:
        del os.environ[name]
