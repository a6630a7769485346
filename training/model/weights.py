"""Weights of an encoder from a file: safetensors, or a state dictionary that PyTorch saved. No code in it is run.

The tensors have timm's names of that encoder, as `timm.create_model(name).state_dict()` has them. A dictionary that
holds them under "state_dict", "model" or "teacher", and names that begin with "module.", "backbone.", "encoder." or
"model.", are understood as well. Those of a head may be there or not; they are not read.
"""

import hashlib
import io
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from alserve.errors import DataError
from alserve.files import irregular

WRAPPERS = ("state_dict", "model", "teacher")
"""Keys under which a file may hold its state dictionary."""

PREFIXES = re.compile(r"((module|backbone|encoder|model)\.)+")
"""What networks that wrap an encoder put before its names."""

MOST_HEADER = 16 << 20
"""Largest header of a safetensors file, in bytes: it is parsed in memory, and a large network's has 0.1 MB."""

COUNTERS = "num_batches_tracked"
"""End of the names of batch normalisation's counters, which nothing depends on."""


def fingerprint(path: Path | None) -> str | None:
    """Return the SHA-256 of a file of weights, in hexadecimal; None where there is no file.

    Raises:
        DataError: It cannot be read.
    """
    return None if path is None else hashlib.sha256(_read(path)).hexdigest()


def load_weights(encoder: nn.Module, path: Path, name: str) -> None:
    """Load an encoder's weights from a file.

    Args:
        encoder: As `training.model.encoders` builds it.
        path: The file.
        name: The encoder's name, for messages.

    Raises:
        DataError: The file cannot be read, is damaged, holds code, weights of another network, NaN or infinity.
    """
    found = read_weights(path)
    stored = {_plain(key): value for key, value in found.items()}
    own = encoder.state_dict()
    places = {_plain(key): key for key in own}
    wanted = [key for key in places if not key.endswith(COUNTERS)]
    if missing := [places[key] for key in wanted if key not in stored]:
        raise DataError(
            f"{path}: holds weights of another network: {len(wanted) - len(missing)} of the {len(wanted)} tensors of "
            f"encoder '{name}' are there, and {_without_prefix(missing[0])} is not; see --encoder"
        )
    parts = tuple({f"{_without_prefix(key).partition('.')[0]}_" for key in own})
    if larger := [key for key in found if _plain(key) not in places and _plain(key).startswith(parts)]:
        raise DataError(
            f"{path}: holds weights of a larger network than encoder '{name}', which has no {larger[0]}; see --encoder"
        )
    for key in wanted:
        _check(path, _without_prefix(places[key]), stored[key], own[places[key]])
    encoder.load_state_dict({place: stored[key] for key, place in places.items() if key in stored}, strict=False)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a file by their names, those of a wrapped state dictionary included.

    Raises:
        DataError: The file cannot be read, is damaged, holds code, or holds no tensor.
    """
    data = _read(path)
    try:
        content: object = _from_safetensors(data) if data[8:9] == b"{" else _from_pickle(data)
    except pickle.UnpicklingError as error:
        if _CODE.search(str(error)):
            raise DataError(f"{path}: contains code; only weights are read; convert it to safetensors") from None
        raise DataError(f"{path}: is damaged, or no file of weights; {_WANTED}") from None
    except (ArithmeticError, AttributeError, LookupError, MemoryError, OSError, RecursionError) as error:
        raise DataError(f"{path}: is damaged, or no file of weights ({type(error).__name__}); {_WANTED}") from None
    except (SafetensorError, EOFError, RuntimeError, TypeError, ValueError, zipfile.BadZipFile):
        raise DataError(f"{path}: is damaged, or no file of weights; {_WANTED}") from None
    while isinstance(content, Mapping) and (inner := [content[key] for key in WRAPPERS if _is_mapping(content, key)]):
        content = inner[0]
    if not isinstance(content, Mapping):
        raise DataError(f"{path}: holds no weights by their names; {_WANTED}")
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if len({_plain(key) for key in tensors}) < len(tensors):
        raise DataError(f"{path}: holds weights of several networks; save the encoder's alone")
    return tensors


_CODE = re.compile(r"unsupported global|unrecognized function|TorchScript", re.IGNORECASE)
"""What is said of a pickle that names functions or classes."""

_WANTED = "name a safetensors file, or a state dictionary that torch.save wrote"


def _read(path: Path) -> bytes:
    if kind := irregular(path):
        raise DataError(f"{path}: is a {kind}; {_WANTED}")
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file; {_WANTED}") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise DataError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None


def _from_safetensors(data: bytes) -> dict[str, Tensor]:
    if int.from_bytes(data[:8], "little") > MOST_HEADER:
        raise ValueError
    return load(data)


def _from_pickle(data: bytes) -> object:
    """Read what `torch.save` wrote; of its objects only tensors and plain containers are made."""
    if zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > len(data):  # torch.save compresses nothing
                raise ValueError
            if any("/code/" in entry.filename for entry in archive.infolist()):
                raise pickle.UnpicklingError("TorchScript")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        content: object = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return content


def _is_mapping(content: Mapping[object, object], key: str) -> bool:
    return isinstance(content.get(key), Mapping)


def _without_prefix(name: str) -> str:
    return name[found.end() :] if (found := PREFIXES.match(name)) else name


def _plain(name: str) -> str:
    """Return a name as it compares: without prefixes, and with timm's two ways to write a stage as one."""
    return _without_prefix(name).replace(".", "_")


def _check(path: Path, name: str, found: Tensor, own: Tensor) -> None:
    if found.shape != own.shape or found.is_floating_point() != own.is_floating_point():
        raise DataError(f"{path}: {name} is {_describe(found)}, and the encoder's {_describe(own)}; see --encoder")
    if not torch.isfinite(found.to(own.dtype)).all():
        raise DataError(f"{path}: {name} holds NaN or infinity; make the file anew")


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
