"""A lock in an object store: an object that is created only where there is none, and renewed as long as it is held.

A process that is killed cannot remove it. So a lock that was not renewed for `EXPIRY` seconds of the store's own clock
is taken over, and one of a process of this machine that has ended is, at once. Whoever finds the lock of a process
elsewhere waits so long, for that may have ended: a pod that is started again is another machine.
"""

import json
import os
import secrets
import socket
import time
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from alserve.errors import RunError
from alserve.places.failures import failing
from alserve.terminal import say

if TYPE_CHECKING:
    from alserve.places.store import Store

BEAT, EXPIRY = 15.0, 90.0
"""Seconds after which a lock is renewed, and after which one that was not is nobody's."""

LOOK = 5.0
"""Seconds after which whoever waits for a lock looks again."""

_MOST_BYTES = 1 << 12

_mine: set[str] = set()
"""The locks that this process holds."""


class StoreLock:
    """Keep other processes from writing to a file in an object store.

    Args:
        store: The folder.
        name: The name of the object that is the lock.
        path: What is locked, for messages.

    Raises:
        RunError: On entering, another process holds it, and on another machine did not let go of it for so long as a
            lock lasts that is not renewed; or nothing can be written.
    """

    def __init__(self, store: "Store", name: str, path: str) -> None:
        self._store, self._name, self._path = store, name, path
        self._id = secrets.token_hex(8)
        self._tag: str | None = None
        self._beats = 0
        self._end, self._lost = Event(), Event()
        self._thread = Thread(target=self._renew, daemon=True)

    def __enter__(self) -> Self:
        from obstore.exceptions import NotSupportedError  # noqa: PLC0415  the extra may be missing

        try:
            with failing(self._path, NotSupportedError):
                self._acquire()
        except NotSupportedError:
            say(f"{self._path}: this store has no locks; let no other process write there at the same time")
        except OSError as error:
            raise RunError(f"{self._path}: cannot be locked: {error.strerror}") from None
        _mine.add(self._id)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()
        _mine.discard(self._id)
        if self._tag and not self._lost.is_set():
            with suppress(OSError):
                self._store.remove(self._name)

    def check(self) -> None:
        """Check that the lock is still held.

        Raises:
            RunError: The store could not be reached for so long that another process has taken it over.
        """
        if self._lost.is_set():
            raise RunError(f"{self._path}: another process has begun to write to it; run this again when it has ended")

    def _put(self, mode: Any) -> None:  # noqa: ANN401  obstore's type is not there at run time
        self._beats += 1  # the content changes, and with it the tag
        owner = {"host": socket.gethostname(), "process": os.getpid(), "machine": _machine(), "id": self._id}
        body = json.dumps({**owner, "beats": self._beats}).encode()
        self._tag = self._store.client.put(self._store.key(self._name), body, mode=mode)["e_tag"]

    def _renew(self) -> None:
        from obstore.exceptions import PreconditionError  # noqa: PLC0415

        while self._tag and not self._end.wait(BEAT):
            try:
                with failing(self._path, PreconditionError):
                    self._put({"e_tag": self._tag})
            except PreconditionError:
                self._lost.set()
                return
            except OSError:
                continue  # the store is away; whoever writes to it will say so

    def _acquire(self) -> None:
        """Create the lock, or take it over where its owner is gone; wait where that may be so."""
        from obstore.exceptions import AlreadyExistsError, PreconditionError  # noqa: PLC0415

        end, told = time.monotonic() + EXPIRY + LOOK, False
        owner, age = dict[str, Any](), 0.0
        while time.monotonic() <= end:
            with suppress(AlreadyExistsError):
                self._put("create")
                return
            try:
                owner, age, tag = self._look()
                if age > EXPIRY or _has_ended(owner):
                    self._put({"e_tag": tag})
                    return
            except (FileNotFoundError, PreconditionError):  # it was given up, or taken over, since it was looked at
                continue
            if _is_here(owner):
                break
            if not told:
                left = f"waiting for that, {EXPIRY + LOOK:.0f} s at most"
                say(f"{self._path}: another process is writing to it{_who(owner, age)}, or was killed; {left}")
                told = True
            time.sleep(LOOK)
        raise self._held(owner, age)

    def _look(self) -> tuple[dict[str, Any], float, str | None]:
        """Return who holds the lock, how long ago it was renewed, in seconds, and its tag."""
        now = self._now()
        meta = self._store.client.head(self._store.key(self._name))
        owner = _parse(self._store.read(self._name, _MOST_BYTES))
        return owner, now - meta["last_modified"].timestamp(), meta["e_tag"]

    def _held(self, owner: dict[str, Any], age: float) -> RunError:
        left = max(1, round(EXPIRY - age))
        return RunError(
            f"{self._path}: another process is writing to it{_who(owner, age)}; wait for that, or for {left} s if it "
            "was killed, or use another folder"
        )

    def _now(self) -> float:
        """Return the time of the store's own clock."""
        probe = f"{self._name}.{secrets.token_hex(4)}"
        key = self._store.key(probe)
        self._store.client.put(key, b"")
        try:
            return float(self._store.client.head(key)["last_modified"].timestamp())
        finally:
            self._store.remove(probe)


def _parse(body: bytes) -> dict[str, Any]:
    """Read who holds a lock; empty if that is not to be read."""
    with suppress(ValueError, RecursionError):
        owner = json.loads(body)
        if isinstance(owner, dict) and isinstance(owner.get("process"), int) and isinstance(owner.get("host"), str):
            return {**owner, "host": owner["host"][:100]}
    return {}


def _who(owner: dict[str, Any], age: float) -> str:
    """Say who holds a lock, as words that follow others."""
    return f" (process {owner['process']} on {owner['host']}, seen {max(age, 0):.0f} s ago)" if owner else ""


def _is_here(owner: dict[str, Any]) -> bool:
    """Tell whether a lock is of a process of this machine; one that has not ended will renew it."""
    machine = _machine()
    return str(owner.get("id")) in _mine or (machine is not None and owner.get("machine") == machine)


def _has_ended(owner: dict[str, Any]) -> bool:
    """Tell whether a lock is of a process of this machine that has ended, or of this one, which has given it up."""
    import psutil  # noqa: PLC0415  slow to import

    machine = _machine()
    if machine is None or owner.get("machine") != machine:
        return False
    process = owner["process"]
    return str(owner.get("id")) not in _mine if process == os.getpid() else not psutil.pid_exists(process)


def _machine() -> str | None:
    """Return what tells this machine and this container from all others; None if nothing does."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:  # not Linux
        return None
