"""Read and write model files: an ONNX network with its contract as metadata.

A model file may come from a stranger: whatever is wrong with it is one `ModelError`, found in bounded time.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from alserve.errors import ModelError
from alserve.modelfile.protobuf import Budget, field, fields, needs_other_files
from alserve.modelfile.references import Reference, read_references, write_references
from alserve.modelfile.spec import FORMAT_VERSION, ModelSpec
from alserve.places.place import FileTooLargeError
from alserve.places.urls import Location, open_file, path_of

METADATA_KEY = "alserve"
REFERENCES_KEY = "alserve_references"
DIGEST_KEY = "alserve_sha256"

INPUT = "images"
OUTPUTS = ("scores", "cams", "mask")

MAX_SPEC = 1_000_000
"""Characters of the JSON object; a longer one is read as damaged."""


def to_metadata(spec: ModelSpec) -> dict[str, str]:
    """Return the metadata entry of a contract."""
    return {METADATA_KEY: spec.model_dump_json()}


def from_metadata(metadata: Mapping[str, str], where: str) -> ModelSpec:
    """Read the `ModelSpec` from a model file's metadata.

    Args:
        metadata: The file's metadata entries.
        where: The file, for the messages.

    Raises:
        ModelError: No alserve model, a newer format, or fields that do not fit.
    """
    if METADATA_KEY not in metadata:
        raise ModelError(
            f"{where}: an ONNX file, but not an alserve model (no '{METADATA_KEY}' metadata); "
            "make one with 'alserve export'"
        )
    try:
        found = json.loads(metadata[METADATA_KEY][:MAX_SPEC])
        version = int(found["format_version"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise ModelError(f"{where}: the alserve metadata is damaged; export the model again") from None
    if version > FORMAT_VERSION:
        raise ModelError(
            f"{where}: model format {str(version)[:20]} is newer than this alserve reads ({FORMAT_VERSION}); "
            "run 'pip install --upgrade alserve'"
        )
    try:
        return ModelSpec.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        place = ascii(".".join(str(part) for part in first["loc"]))[1:-1][:80]
        raise ModelError(f"{where}: the alserve metadata does not fit ({place}: {first['msg']})") from None


_METADATA = 14
"""Number of the field of ONNX's ModelProto that holds the metadata."""


class Contract(NamedTuple):
    """What a model file says besides its network."""

    spec: ModelSpec
    references: tuple[Reference, ...]
    """Images with the trained network's answers; none in older files, and where they were left out."""


def write_metadata(model: bytes, spec: ModelSpec, references: Sequence[Reference] | None = None) -> bytes:
    """Return a model file: an ONNX model with its contract, in place of one that it may have had.

    Args:
        model: The bytes of an ONNX model.
        spec: The contract.
        references: Images with the trained network's answers. Default: those that the model carries.
    """
    network, metadata = _parts(memoryview(model), Budget())
    entries = to_metadata(spec)
    if references:
        entries[REFERENCES_KEY] = write_references(references)
    elif references is None and REFERENCES_KEY in metadata:
        entries[REFERENCES_KEY] = metadata[REFERENCES_KEY]
    entries[DIGEST_KEY] = _digest(network, entries)
    written = (field(_METADATA, field(1, key.encode()) + field(2, text.encode())) for key, text in entries.items())
    return b"".join((*network, *written))


def read_metadata(data: bytes, where: str) -> Contract:
    """Read the contract of a model file, and check that the file is whole and as it was written.

    Args:
        data: The model file.
        where: Where it came from, for messages.

    Raises:
        ModelError: It is no model of ours, damaged, needs other files, or is of a newer format.
    """
    view, budget = memoryview(data), Budget()
    try:
        network, metadata = _parts(view, budget)
        needy = needs_other_files(view, budget)
    except ValueError:
        raise ModelError(f"{where}: not an ONNX model, or cut short; copy or export it again") from None
    spec = from_metadata(metadata, where)
    if metadata.get(DIGEST_KEY) != _digest(network, metadata):
        raise ModelError(f"{where}: damaged, its content does not match its hash; copy or export it again")
    if needy:
        raise ModelError(f"{where}: has weights in another file, which is not read; export it as one file")
    text = metadata.get(REFERENCES_KEY)
    return Contract(spec, read_references(text, len(spec.classes), spec.cam_stride, where) if text else ())


def _digest(network: Iterable[memoryview], metadata: Mapping[str, str]) -> str:
    digest = hashlib.sha256(metadata[METADATA_KEY].encode())
    for part in network:
        digest.update(part)
    digest.update(metadata.get(REFERENCES_KEY, "").encode())
    return digest.hexdigest()


def _parts(data: memoryview, budget: Budget) -> tuple[list[memoryview], dict[str, str]]:
    """Return all fields of an ONNX file but its metadata, as they stand in it, and its metadata."""
    network: list[memoryview] = []
    metadata: dict[str, str] = {}
    for number, content, whole in fields(data, budget):
        if number == _METADATA:
            entry = {name: bytes(text).decode() for name, text, _ in fields(content, budget)}
            metadata[entry.get(1, "")] = entry.get(2, "")
        else:
            network.append(whole)
    return network, metadata


MAX_BYTES = 2**31
"""An ONNX file is smaller than this: protobuf reads no larger message."""


def read_model(path: Location) -> bytes:
    """Read a model file.

    Args:
        path: Where it is: a path, or a URL of an object store.

    Raises:
        ModelError: It cannot be read, is too large, or no file at all but a folder, a pipe or a device.
        DataError: It is no URL of an object store.
    """
    place, name = open_file(path)
    try:
        return place.read(name, MAX_BYTES - 1)
    except FileTooLargeError:
        raise ModelError(f"{path}: the model cannot be read: it is larger than 2 GB, no ONNX model is") from None
    except OSError as error:
        raise ModelError(f"{path}: the model cannot be read: {error.strerror}") from error
    except ValueError:  # a null character in the name
        raise ModelError(f"{str(path)!r}: the model cannot be read: no such name can be") from None


def default_model() -> Location:
    """Find the model to use where none was named.

    Returns:
        `$ALSERVE_MODEL`, a path or a URL of an object store; else the one `.onnx` file in `./models`; else the one that
        comes with the package: in a container the packed model, elsewhere the demo model.

    Raises:
        ModelError: One of these folders holds several, or none is to be found.
    """
    if named := os.environ.get("ALSERVE_MODEL"):
        return path_of(named) or named
    package = Path(__file__).parents[1]
    for folder in (Path("models"), package / "models", package.parent / "models"):
        found = sorted(folder.glob("*.onnx"))
        if len(found) > 1:
            names = ", ".join(path.name for path in found)
            raise ModelError(f"{folder}/ holds several models ({names}); name one with --model or $ALSERVE_MODEL")
        if found:
            return found[0]
    raise ModelError("no model: name one with --model or $ALSERVE_MODEL, or put one in models/")
