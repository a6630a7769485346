"""A lock in an object store: an object that is created only where there is none, and renewed as long as it is held.

A process that is killed cannot remove it. So a lock that was not renewed for `EXPIRY` seconds of the store's own clock
is taken over, and one of a process of this machine that has ended is, at once.
"""

import json
import os
import secrets
import socket
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
        RunError: On entering, another process holds it, or nothing can be written.
    """

    def __init__(self, store: "Store", name: str, path: str) -> None:
        self._store, self._name, self._path = store, name, path
        self._id = secrets.token_hex(8)
        self._tag: str | None = None
        self._beats = 0
        self._end, self._lost = Event(), Event()
        self._thread = Thread(target=self._renew, daemon=True)

    def __enter__(self) -> Self:
        from obstore.exceptions import AlreadyExistsError, NotSupportedError  # noqa: PLC0415  the extra may be missing

        try:
            with failing(self._path, AlreadyExistsError, NotSupportedError):
                self._put("create")
        except AlreadyExistsError:
            self._take_over()
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

    def _take_over(self) -> None:
        """Take over a lock whose owner is gone."""
        from obstore.exceptions import PreconditionError  # noqa: PLC0415

        try:
            with failing(self._path):
                now = self._now()
                key = self._store.key(self._name)
                meta = self._store.client.head(key)
            owner = _parse(self._store.read(self._name, _MOST_BYTES))
            age = (now - meta["last_modified"].timestamp()) if now else 0.0
            if age <= EXPIRY and not _has_ended(owner):
                raise self._held(owner, age)
            with failing(self._path, PreconditionError):
                self._put({"e_tag": meta["e_tag"]})
        except PreconditionError:
            raise self._held({}, 0.0) from None
        except FileNotFoundError:
            raise RunError(f"{self._path}: another process has just written to it; run this again") from None
        except OSError as error:
            raise RunError(f"{self._path}: cannot be locked: {error.strerror}") from None

    def _held(self, owner: dict[str, Any], age: float) -> RunError:
        who = f" (process {owner['process']} on {owner['host']}, seen {max(age, 0):.0f} s ago)" if owner else ""
        left = max(1, round(EXPIRY - age))
        return RunError(
            f"{self._path}: another process is writing to it{who}; wait for that, or for {left} s if it was killed, "
            "or use another folder"
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
