"""The end of a worker process: in time, whatever it is doing."""

import faulthandler
import signal
import threading
from types import FrameType


def end_within(seconds: float) -> None:
    """From the next SIGTERM or SIGINT on, let this process live so long at most.

    The server waits for the requests under way, which is for ever where a library does not return. A thread of
    `faulthandler`, which needs no Python to run, then says on the standard error where each thread was, and ends the
    process.

    Args:
        seconds: Time for the requests under way.
    """
    if threading.current_thread() is not threading.main_thread():
        return  # no server of our own: signals are somebody else's
    for number in (signal.SIGTERM, signal.SIGINT):
        _precede(number, seconds)


def _precede(number: signal.Signals, seconds: float) -> None:
    """Start the clock before what handles a signal by now."""
    handler = signal.getsignal(number)

    def handle(number: int, frame: FrameType | None) -> None:
        faulthandler.dump_traceback_later(seconds, exit=True)
        if callable(handler):
            handler(number, frame)

    signal.signal(number, handle)
