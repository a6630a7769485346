"""Open a bucket of an object store, with bounds on how long and how often a request is tried."""

import os
from datetime import datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from alserve.errors import RunError
from alserve.places.failures import failing
from alserve.places.place import Version

if TYPE_CHECKING:
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

PATIENT: "RetryConfig" = {
    "max_retries": 10,
    "retry_timeout": timedelta(seconds=60),
    "backoff": {"init_backoff": timedelta(milliseconds=200), "max_backoff": timedelta(seconds=10), "base": 2},
}
"""How a request is repeated that was throttled, answered with 5xx, or cut off."""

FIRST: "RetryConfig" = {
    "max_retries": 3,
    "retry_timeout": timedelta(seconds=10),
    "backoff": {"init_backoff": timedelta(milliseconds=200), "max_backoff": timedelta(seconds=2), "base": 2},
}
"""The same for the first request, which shows whether there are a store, a bucket and credentials at all."""


@lru_cache(maxsize=64)
def open_bucket(root: str, *, patient: bool) -> "ObjectStore":
    """Open a bucket, once in a process.

    Args:
        root: Scheme and bucket, such as "s3://bucket".
        patient: Repeat requests for a minute, not for 10 seconds.

    Raises:
        RunError: The environment does not say enough, such as whose bucket it is.
    """
    from obstore.store import from_url  # noqa: PLC0415  the extra may be missing

    try:
        with failing(root):
            return from_url(
                root, retry_config=PATIENT if patient else FIRST, client_options=client_options(patient=patient)
            )
    except OSError as error:
        raise RunError(f"{root}: {error.strerror}") from None


def client_options(*, patient: bool) -> "ClientConfig":
    """Return how requests are made: bounded in time, and without encryption only where the environment allows it."""
    allowed = (os.environ.get(f"{name}_ALLOW_HTTP", "") for name in ("AWS", "AZURE", "GOOGLE"))
    return {
        "connect_timeout": timedelta(seconds=3),
        "timeout": timedelta(seconds=120 if patient else 10),
        "allow_http": any(value.lower() in {"1", "true", "yes", "on"} for value in allowed),
    }


def version_of(meta: Any) -> Version:  # noqa: ANN401  obstore's type is not there at run time
    """Return the state of an object, of what a store says of it; stores tell the time in milliseconds."""
    modified: datetime = meta["last_modified"]
    return Version(meta["size"], round(modified.timestamp() * 1000) * 1_000_000)
