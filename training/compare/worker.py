"""One run in a process of its own: `python -m training.compare.worker JOB`, with the job as JSON.

It ends when its standard input is closed, as happens when the process that started it is gone.
"""

import os
import sys
import threading

from alserve.errors import AlserveError
from alserve.paths import printable


def main() -> None:
    """Run the job; an error that a user can correct is one line."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from training.compare.jobs import RunJob  # noqa: PLC0415  torch takes seconds to load, in which the parent may end
    from training.train import train_run  # noqa: PLC0415

    job = RunJob.from_json(sys.argv[1])
    try:
        train_run(job.data, job.out, job.settings, masks=job.masks, device=job.device, cache=job.cache)
    except AlserveError as error:
        sys.exit(f"alserve: {printable(str(error))}")
    except OSError as error:  # a full disk, a folder that may not be written
        sys.exit(f"alserve: {printable(str(error.filename or 'a file'))}: {error.strerror or error}")


def _end_with_parent() -> None:
    os.read(sys.stdin.fileno(), 1)
    os._exit(1)


if __name__ == "__main__":
    main()
