"""Settings of the service, from environment variables."""

import os
from math import ceil
from typing import Annotated, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, DirectoryPath, Field, SecretStr, ValidationError

from alserve.errors import ServiceError
from alserve.runtime.device import available_cores
from alserve.service.hosts import ANY, host_name

PREFIX = "ALSERVE_"
"""What the variables' names begin with; the rest is the field's name in upper case."""

MAX_BODY_BYTES = 32 * 2**20
"""A larger request is answered 413, whether it says its length or comes in chunks."""

MAX_IMAGES = 64
"""Images in one request."""


class ServiceSettings(BaseModel):
    """Limits and choices of the service; `ALSERVE_TIMEOUT=10` sets `timeout`, and so on."""

    model_config = ConfigDict(frozen=True)

    device: str = "auto"
    """See `alserve.runtime.device.choose_device`."""
    timeout: Annotated[float, Field(gt=0, le=3600)] = 30
    """Seconds for a request's body to arrive, and again for its answer: 408 and 504 after that."""
    decode_timeout: Annotated[float, Field(gt=0, le=3600)] = 10
    """Seconds to decode an image, in a process that is killed after that: 504."""
    idle: Annotated[float, Field(gt=0, le=3600)] = 10
    """Seconds for a request's head to arrive, and the longest pause in its body: 408 after that."""
    rate: Annotated[float, Field(ge=0)] = 4000
    """Least bytes a second of a body, and of an answer that is being fetched, once `idle` seconds have passed."""
    connections: Annotated[int, Field(ge=1)] = Field(default_factory=lambda: min(500, open_files() // 2))
    """Open connections; for one more, the one that has kept us waiting longest for a request is closed."""
    memory: Annotated[int, Field(ge=32)] = 256
    """MiB of request bodies held at once; for more, the unfinished one that began first is answered 429. As much again
    of answers that are being fetched, and of those of unfinished batches."""
    queue: Annotated[int, Field(ge=0)] | None = None
    """Images that may wait while others are worked on, see `waiting_images`; further ones are answered 429."""
    batch: Annotated[int, Field(ge=1, le=256)] | None = None
    """Most images in a network call. Default: 1 on the CPU and 16 on a GPU."""
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    """Worker processes; each loads the model, and gets its share of cores, queue, connections and memory."""
    self_check: bool = True
    """Refuse a model whose answers here differ from those of the trained network."""
    token: Annotated[SecretStr, Field(min_length=1)] | None = None
    """Bearer token that every request but those for health and for the files of the page must carry."""
    hosts: Annotated[
        tuple[str, ...], BeforeValidator(lambda text: host_names(text) if isinstance(text, str) else text)
    ] = ()
    """Hosts that the service answers for beside localhost and its own address; `*` for any. Not looked at with a
    token."""
    label_studio_files: DirectoryPath | None = None
    """Folder below which Label Studio's local files are, see `alserve.label_studio.images.TaskImages`."""
    label_studio_media: DirectoryPath | None = None
    """Folder in which Label Studio's uploads are."""
    grace: Annotated[float, Field(gt=0, le=3600)] = 30
    """Seconds that requests under way have after SIGTERM; then the worker process ends, whatever it does."""

    @property
    def cores(self) -> int:
        """Cores for each worker process."""
        return max(1, available_cores() // self.workers)

    @property
    def waiting_images(self) -> int:
        """Images that may wait in each worker process: its share of `queue`, else 16 a core, at least `MAX_IMAGES`."""
        return max(MAX_IMAGES, 16 * self.cores) if self.queue is None else ceil(self.queue / self.workers)

    @property
    def body_bytes(self) -> int:
        """Bytes of bodies, and of answers, that each worker process holds at once: its share, at least one body."""
        return max(MAX_BODY_BYTES, self.memory * 2**20 // self.workers)

    @property
    def worker_connections(self) -> int:
        """Open connections of each worker process."""
        return ceil(self.connections / self.workers)

    @classmethod
    def from_environment(cls) -> Self:
        """Read the settings.

        Raises:
            ServiceError: A variable's value cannot be used; the message does not repeat the token.
        """
        names = {field: PREFIX + field.upper() for field in cls.model_fields}
        given = {field: os.environ[name] for field, name in names.items() if name in os.environ}
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            first = error.errors(include_input=False)[0]
            raise ServiceError(
                f"{names[str(first['loc'][0])]} cannot be used: {first['msg']}; see alserve serve --help"
            ) from None


def host_names(text: str) -> tuple[str, ...]:
    """Read a list of hosts, with commas between them; return them in lower case, without ports and brackets."""
    parts = [part.strip().lower() for part in text.split(",")]
    for part in parts:
        if part not in {"", ANY} and not host_name(part):
            raise ValueError(f"{part!r} is no host")
    return tuple(host_name(part) or part for part in parts if part)


def open_files() -> int:
    """Return how many files and sockets this process may have open at once."""
    try:
        import resource  # noqa: PLC0415  not on Windows
    except ImportError:
        return 512  # what a selector loop can watch there
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 2**20 if soft == resource.RLIM_INFINITY else soft
