"""A run in a process of its own, with a log; this module needs neither torch nor Ray."""

import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

Process = subprocess.Popen[bytes]


def run_process(job: str, log: Path, environment: Mapping[str, str], running: set[Process]) -> str | None:
    """Run one job in a process of its own, which Ctrl-C does not reach and which ends with this one.

    Args:
        job: What `RunJob.as_json` returned.
        log: File to which its output is appended.
        environment: Its environment variables.
        running: Has the process while it runs.

    Returns:
        What went wrong, if anything did.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-P", "-m", "training.compare.worker", job]
    with (
        log.open("ab") as file,
        subprocess.Popen(  # noqa: S603
            command, stdin=subprocess.PIPE, stdout=file, stderr=file, env=environment, start_new_session=True
        ) as process,
    ):
        running.add(process)
        code = process.wait()
        running.discard(process)
    if code < 0:
        return f"ended by {signal.Signals(-code).name}"
    return _last_words(log) if code else None


def _last_words(log: Path) -> str:
    """Return the last line of a log: the error, where a run has failed."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1].removeprefix("alserve: ") if lines else "its log is empty"
