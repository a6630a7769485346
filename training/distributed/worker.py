"""One of the other processes of a training on one machine: `python -m training.distributed.worker PLACE`, as JSON.

It ends when the first process does.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path

LOOK_SECONDS = 0.5
"""Interval at which it is looked whether the first process is there."""


def main() -> None:
    """Join the first process; an error that a user can correct is one line."""
    place = json.loads(sys.argv[1])
    threading.Thread(target=_end_with_first, args=[place["of"], place["rank"]], daemon=True).start()
    from alserve.errors import AlserveError  # noqa: PLC0415  torch takes seconds to load
    from alserve.paths import printable  # noqa: PLC0415
    from training.distributed.local import GRACE_SECONDS, LocalGroup  # noqa: PLC0415

    group = LocalGroup(place["rank"], place["size"], place["accelerator"])
    try:
        group.meet(Path(place["file"]))
        group.serve()
    except AlserveError:
        time.sleep(GRACE_SECONDS)  # the first process tells what is wrong, and ends this one
    except OSError as error:
        sys.exit(f"alserve: {printable(str(error.filename or 'a file'))}: {error.strerror or error}")


def _end_with_first(first: int, rank: int) -> None:
    while os.getppid() == first:
        time.sleep(LOOK_SECONDS)
    if rank == 1:
        print(
            "alserve: the first process of the training was ended; the same command continues the run", file=sys.stderr
        )
    os._exit(1)


if __name__ == "__main__":
    main()
