"""What the service is told by environment variables, in one checked object."""

import os
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from alserve.device import available_cores
from alserve.errors import ServiceError

PREFIX = "ALSERVE_"
"""What the variables' names begin with; the rest is the field's name in upper case."""


class Settings(BaseModel):
    """Limits and choices of the service; `ALSERVE_TIMEOUT=10` sets `timeout`, and so on."""

    model_config = ConfigDict(frozen=True)

    device: str = "auto"
    """See `alserve.device.choose_device`."""
    timeout: Annotated[float, Field(gt=0, le=3600)] = 30
    """Seconds for a request's body to arrive, and again for its answer: 408 and 504 after that."""
    queue: Annotated[int, Field(ge=0)] = Field(default_factory=lambda: 16 * available_cores())
    """Requests that may wait while others are worked on; one more is answered 429."""
    batch: Annotated[int, Field(ge=1, le=256)] | None = None
    """Images a network call at most; 1 on the CPU and 16 on a GPU if left out."""
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    """Worker processes; each loads the model, and gets its share of the cores and of the queue."""
    self_check: bool = True
    """Refuse a model that gives something else here than the trained network gave."""
    token: Annotated[SecretStr, Field(min_length=1)] | None = None
    """Bearer token that every request but those for health and for the files of the page must carry."""

    @property
    def cores(self) -> int:
        """Cores for each worker process."""
        return max(1, available_cores() // self.workers)

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
