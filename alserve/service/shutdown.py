"""The end of the server and of its worker processes: in time, whatever they are doing."""

import faulthandler
import signal
import threading
from types import FrameType

from circus.controller import Controller
from circus.exc import ConflictError
from circus.sighandler import SysHandler

RETRY_SECONDS = 0.1
"""How often a stop is tried again while the server starts or ends a worker process."""


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


def stop_for_certain() -> None:
    """Stop the server that is about to start as soon as it can be stopped after a SIGTERM or SIGINT.

    circus, which runs the worker processes for BentoML, refuses one command while it carries out another, and forgets
    it: a signal that came while it started a worker process in place of a dead one was lost.
    """
    SysHandler.quit = _quit


def _quit(handler: SysHandler) -> None:
    handler.controller.loop.add_callback_from_signal(_stop, handler.controller)


def _stop(controller: Controller) -> None:
    try:
        controller.arbiter.stop()
    except ConflictError:
        controller.loop.call_later(RETRY_SECONDS, _stop, controller)
