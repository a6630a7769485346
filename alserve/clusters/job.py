"""A folder run on a cluster: what it does and what each part of it may use, checked before anything is printed."""

import posixpath
import re
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from alserve.errors import OptionError, describe_fault
from alserve.paths import printable

Kind = Literal["k8s", "slurm", "ray"]

MOST_SHARDS = 10_000
"""Each shard lists the whole input: more of them bring nothing any more."""

_NAME = re.compile(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?")
"""A DNS label that leaves room for what Kubernetes and KubeRay add to it: at most 47 characters in all."""

_OBJECT = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
"""The name of a Secret or of a PersistentVolumeClaim."""

_PART = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_IMAGE = re.compile(
    rf"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]{{1,5}})?/)?{_PART}(?:/{_PART})*"
    r"(?::\w[\w.-]{0,127})?(?:@sha256:[0-9a-f]{64})?",
    re.ASCII,
)
"""[HOST[:PORT]/]NAME[:TAG][@DIGEST]."""


class Volume(NamedTuple):
    """A PersistentVolumeClaim and the folder at which the containers see it."""

    claim: str
    path: str


def _volume(text: object) -> Volume:
    claim, _, path = str(text).partition(":")
    plain = path.startswith("/") and posixpath.normpath(path) == path and not path.startswith("//") and ":" not in path
    if not _OBJECT.fullmatch(claim) or not plain or path in {"/", "/tmp"}:  # noqa: S108  the containers' own
        raise ValueError("give CLAIM:/FOLDER, the name of a PersistentVolumeClaim and where it is seen")
    return Volume(claim, path)


def _check(pattern: re.Pattern[str], advice: str) -> AfterValidator:
    def check(text: str) -> str:
        if not pattern.fullmatch(text):
            raise ValueError(advice)
        return text

    return AfterValidator(check)


def _text(word: str) -> str:
    """Check a word that is put into a file: UTF-8, as YAML and the shell have it."""
    try:
        word.encode()
    except UnicodeEncodeError:
        raise ValueError("is not UTF-8, which the file cannot hold; rename it") from None
    if "\0" in word:
        raise ValueError("has a null character, which no command can be given")
    return word


Word = Annotated[str, AfterValidator(_text)]
Place = Annotated[Word, Field(min_length=1)]


class Job(BaseModel):
    """A folder run on a cluster, see `alserve cluster-template`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    input: Annotated[tuple[Place, ...], Field(min_length=1)]
    """Images and folders of images: paths, or addresses in an object store."""
    out: Place
    model: Place | None = None
    """The model file. Default: what `alserve segment` finds by itself, in a container the packed model."""
    options: tuple[Word, ...] = ()
    """Other options of `alserve segment`."""
    shards: Annotated[int, Field(ge=1, le=MOST_SHARDS)]
    """Parts that are done at once: pods, tasks of the array, workers of Ray."""
    cpus: Annotated[int, Field(ge=1, le=1024)] = 4
    """Cores of each."""
    memory: Annotated[str, _check(re.compile("[1-9][0-9]{0,5}[MGT]i"), "give Mi, Gi or Ti, such as 4Gi")] = "8Gi"
    """Memory of each."""
    gpus: Annotated[int, Field(ge=0, le=64)] = 0
    """GPUs of each."""
    name: Annotated[
        str,
        _check(_NAME, "give at most 40 lower-case letters, digits and hyphens, with a letter first and no hyphen last"),
    ] = "alserve"
    image: Annotated[str, Field(max_length=1000)] | None = None
    """The container; for Slurm, also a file of Apptainer. Default: none, which only Slurm can do."""
    secret: Annotated[str, _check(_OBJECT, "is no name of a Secret")] | None = None
    """The Secret whose entries the containers have as environment variables."""
    volume: tuple[Annotated[Volume, BeforeValidator(_volume)], ...] = ()

    @model_validator(mode="after")
    def _fits(self) -> Self:
        """Check what depends on the kind of cluster."""
        is_file = self.kind == "slurm" and self.image is not None and re.fullmatch(r"[^-\0].*\.sif", self.image)
        if self.image is not None and not is_file and not _IMAGE.fullmatch(self.image):
            raise ValueError(f"--image '{self.image}': give [HOST/]NAME[:TAG], such as registry.example.org/tissue:1")
        if self.kind == "slurm":
            if self.secret or self.volume:
                raise ValueError("--secret and --volume are for Kubernetes; Slurm's nodes see folders and environment")
            return self
        if self.image is None:
            raise ValueError("--image: name the container, see 'alserve package'")
        if len({volume.path for volume in self.volume}) < len(self.volume):
            raise ValueError("--volume: two volumes cannot be seen at one folder")
        for option, place in (*(("--input", path) for path in self.input), ("--out", self.out)):
            if not self._is_seen(place):
                raise ValueError(
                    f"{option} '{place}': a container sees no such folder; give an address in an object store "
                    "(s3://...), or a folder below that of --volume CLAIM:/FOLDER"
                )
        if self.model is not None and "://" not in self.model and not self.model.startswith("/"):
            raise ValueError(
                f"--model '{self.model}': give its whole path in the container, or none for the packed one"
            )
        return self

    def _is_seen(self, place: str) -> bool:
        """Tell whether the containers see a place: it is in an object store, or on a volume."""
        folder = posixpath.normpath(place)
        return "://" in place or any(
            posixpath.commonpath([volume.path, folder]) == volume.path
            for volume in self.volume
            if folder.startswith("/")
        )

    @property
    def arguments(self) -> tuple[str, ...]:
        """What follows `alserve segment`."""
        model = () if self.model is None else (f"--model={self.model}",)
        device = ("--device=cuda",) if self.gpus else ()  # an option that is given again counts
        return (*device, f"--out={self.out}", *model, *self.options, "--", *self.input)


def read_job(**values: object) -> Job:
    """Check the values of a job.

    Args:
        **values: See `Job`.

    Raises:
        OptionError: One cannot be; the message names its option.
    """
    try:
        return Job.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        fault = describe_fault(first["msg"])
        if first["loc"]:
            fault = f"--{first['loc'][0]} '{first['input']}': {fault}"
        raise OptionError(printable(fault)) from None
