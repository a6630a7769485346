"""A run on disk: its settings, its state after every pass, its results. Every file is whole or not there."""

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import ConfigDict, Field
from safetensors import SafetensorError
from safetensors.torch import load, save

from alserve.arrays import Grey
from alserve.errors import RunError
from alserve.files import locked, remove_unfinished, write_atomic
from alserve.places.urls import Location, path_of
from training.model.weights import fingerprint as fingerprint_of
from training.run.pixels import MaskFile, PixelFile
from training.run.records import TIMINGS, Count, Share, Stored, read_config
from training.run.state import State, Weights
from training.settings import BEFORE_0_3, Settings

IMAGES, PSEUDO = "images-", "pseudo-"
"""How the names of files of pixels begin in the folder of the state."""

CONFIG, LATEST = "config.json", "state/latest.safetensors"
"""The configuration, and the state after the last pass that was finished."""

RESULTS = ("model.onnx", "rounds.jsonl", TIMINGS, "report.html")
"""What else is in the folder of a run itself."""


class _Fields(Stored):
    model_config = ConfigDict(extra="forbid")

    round: Annotated[int, Field(ge=1)]
    passes: Count
    asked: list[list[Count]]
    threshold: Share
    threshold_reason: str = ""
    records: list[dict[str, Any]]
    pseudo: list[Count] = Field(default_factory=list)
    """The images in P, in the order of their pseudo-masks in `pseudo_file`; older versions kept them in this file."""
    pseudo_file: str | None = None


class Run:
    """The folder of one run; one process at a time works in it, from `begin` on.

    Args:
        folder: Where it is; made if it is not there.
        settings: What to learn with.
        source: The data set, to be found again.
        masks: Its folder of masks.
        oracle: Where masks come from, see `training.annotate.oracles.open_oracle`.
        fingerprint: The data set's fingerprint.
        classes: Its classes, noted for reports.
        train_images: Number of its training images, likewise.
        overwrite: Remove what an earlier run left there.
        shared: Folder for what several runs have in common, computed once. Default: nothing is shared.
        started: Since when time counts, by `time.monotonic`. Default: now.
        saved: Called whenever a state was saved.

    Raises:
        DataError: The file of the encoder's weights cannot be read.
        RunError: The folder holds a run of other data, settings or encoder weights, something else than a run, or a
            run that another process is writing to.
    """

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        *,
        source: Location,
        masks: Location | None = None,
        oracle: str = "data",
        fingerprint: str,
        classes: Sequence[str] = (),
        train_images: int = 0,
        overwrite: bool = False,
        shared: Path | None = None,
        started: float | None = None,
        saved: Callable[[], None] = lambda: None,
    ) -> None:
        self.folder = folder
        self._saved = saved
        self._noted = time.monotonic() if started is None else started
        self._round = 0
        self._begun = False
        self.shared = shared
        self.fingerprint = fingerprint
        self._overwrite = overwrite
        self._config = {
            "source": _whole(source),
            "masks": _whole(masks) if masks else None,
            "oracle": oracle,
            "fingerprint": fingerprint,
            "classes": list(classes),
            "train_images": train_images,
            "encoder_weights": fingerprint_of(settings.encoder_weights),
            "settings": settings.model_dump(mode="json"),
        }
        path = folder / CONFIG
        if folder.exists() and not path.is_file() and (not folder.is_dir() or any(map(_visible, folder.iterdir()))):
            raise RunError(f"{folder}: is not empty and holds no run; name another --out")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"{folder}: cannot be made ({error.strerror}); name another --out") from None
        with ExitStack() as opened:
            opened.enter_context(locked(folder))
            if path.is_file():
                before = read_config(folder)
                if not overwrite:
                    self._check_same(before, self._config)
            self._opened = opened.pop_all()

    def begin(self) -> Self:
        """Write the configuration; what an earlier run left is removed first where it is to be overwritten."""
        if self._overwrite:
            self._clear()
        write_atomic(self.folder / CONFIG, json.dumps(self._config, indent=2).encode())
        self._begun = True
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error is not None and self._begun:
            self.note_time(self._round, "stopped")
        if not self._begun:
            for path in (self.folder / "state").glob(f"{IMAGES}*.lock"):
                path.unlink()
            for folder in (self.folder / "state", self.folder):
                with suppress(OSError):  # a folder that holds something stays
                    folder.rmdir()
        self._opened.close()

    @property
    def model(self) -> Path:
        """The model file, exported at the end of every round."""
        return self.folder / "model.onnx"

    @property
    def theta0(self) -> Path:
        """The weights that every pass starts from."""
        return self.folder / "state" / "theta0.safetensors"

    @property
    def latest(self) -> Path:
        """The state after the last pass that was finished."""
        return self.folder / LATEST

    @property
    def cache(self) -> Path:
        """Folder of what depends on the data alone, in files named by all that they depend on; runs may share it."""
        return self.shared or self.folder / "state"

    def image_file(self, short_side: int) -> Path:
        """Return where the training images are kept at the working size; those of other data or sizes are removed.

        Runs that share a folder share the file, and none removes another's.
        """
        key = hashlib.sha256(repr((self.fingerprint, short_side)).encode()).hexdigest()
        path = self.cache / f"{IMAGES}{key[:16]}.pixels"
        if self.shared is None:
            remove_images(self.cache, but=path)
        return path

    def remove_images(self) -> None:
        """Remove the training images from the run's folder; where runs share them they stay."""
        if self.shared is None:
            remove_images(self.cache)

    def _clear(self) -> None:
        """Remove the files of a run, and no others that may be in the folder; the images are those of the new run."""
        for path in (self.folder / "state").glob("*"):
            if not path.name.startswith(IMAGES):
                path.unlink()
        with suppress(OSError):
            (self.folder / "state").rmdir()
        for name in RESULTS:
            (self.folder / name).unlink(missing_ok=True)

    def _check_same(self, before: dict[str, Any], now: dict[str, Any]) -> None:
        instead = "name another --out, or replace it with --overwrite"
        if before["fingerprint"] != now["fingerprint"]:
            raise RunError(f"{self.folder}: this run belongs to other data ({before['source']}); {instead}")
        if _kind(oracle := before.get("oracle", "data")) != _kind(now["oracle"]):
            raise RunError(f"{self.folder}: the masks of this run come from --oracle {oracle}; give that, {instead}")
        if (weights := before.get("encoder_weights")) != now["encoder_weights"]:
            raise RunError(
                f"{self.folder}: this run began with other encoder weights (SHA-256 {_short(weights)}, now "
                f"{_short(now['encoder_weights'])}); give the file that it began with, {instead}"
            )
        new = now["settings"]
        # What is not among the stored settings was added later.
        old = {**Settings().model_dump(mode="json"), **BEFORE_0_3, **before["settings"]}
        # "references" decides what the model file holds, not what is learned; the file of weights may be moved.
        same = {"references", "encoder_weights"}
        if changed := sorted(name for name in {*old, *new} - same if old.get(name) != new.get(name)):
            changes = ", ".join(f"{name} was {old.get(name)}, now {new.get(name)}" for name in changed)
            raise RunError(
                f"{self.folder}: this run has other settings ({changes}); give those to continue it, {instead}"
            )

    def load_theta0(self) -> Weights | None:
        """Read the weights that every pass starts from; None before they were trained.

        Raises:
            RunError: The file is damaged.
        """
        if not self.theta0.is_file():
            return None
        with _undamaged(self.theta0):
            return load(self.theta0.read_bytes())  # safetensors opens no path that is not in UTF-8

    def save_theta0(self, weights: Weights) -> None:
        """Save the weights that every pass starts from."""
        write_atomic(self.theta0, save(dict(weights)))
        self._saved()

    def load_state(self) -> State:
        """Read the saved state, of a new run its beginning; the results are written once more from it.

        Raises:
            RunError: The file is damaged.
        """
        if not self.latest.is_file():
            return State()
        with _undamaged(self.latest):
            data = self.latest.read_bytes()
            tensors = load(data)
            header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
            fields = _Fields.model_validate(json.loads(header["__metadata__"]["state"]))
            state = State(**fields.model_dump(exclude={"pseudo", "pseudo_file"}))
            pseudo: dict[int, Grey] = {}
            for key, tensor in tensors.items():
                kind, _, name = key.partition("/")
                if kind == "weights":
                    state.weights[name] = tensor
                else:  # of an older version
                    pseudo[int(name)] = tensor.numpy()
            state.pseudo = pseudo
            if fields.pseudo_file:
                state.pseudo = MaskFile(fields.pseudo, PixelFile(self.latest.parent / Path(fields.pseudo_file).name))
        self._write_rounds(state)
        return state

    def save_state(self, state: State) -> None:
        """Save the state, and write the results from it; pseudo-masks of an earlier state are removed."""
        tensors = {f"weights/{name}": tensor for name, tensor in state.weights.items()}
        pseudo = state.pseudo
        if pseudo and not isinstance(pseudo, MaskFile):
            pseudo = self.save_pseudo(state.round, state.passes, list(pseudo), pseudo.values())
        name = pseudo.masks.path.name if isinstance(pseudo, MaskFile) else None
        values = {field: getattr(state, field) for field in _Fields.model_fields if hasattr(state, field)}
        values |= {"pseudo": list(pseudo), "pseudo_file": name}
        write_atomic(self.latest, save(tensors, metadata={"state": json.dumps(values)}))
        for path in self.latest.parent.glob(f"{PSEUDO}*"):
            if path.name != name:
                path.unlink()
        self._write_rounds(state)
        self._saved()

    def save_pseudo(self, round_: int, pass_: int, images: Sequence[int], masks: Iterable[Grey]) -> MaskFile:
        """Write the pseudo-masks of a pass into a file of their own; the next saved state names it.

        Args:
            round_: The round.
            pass_: The pass, from 1.
            images: The images.
            masks: Their pseudo-masks, drawn one by one: uint8 [height, width].
        """
        path = self.latest.parent / f"{PSEUDO}{round_}-{pass_}.pixels"
        remove_unfinished([path])
        return MaskFile(images, PixelFile.write(path, masks))

    def _write_rounds(self, state: State) -> None:
        lines = "".join(json.dumps(record) + "\n" for record in state.records)
        write_atomic(self.folder / "rounds.jsonl", lines.encode())

    def leave_time_out(self) -> None:
        """Note none of the time since the last note: the run only waited."""
        self._noted = time.monotonic()

    def note_time(self, round_: int, what: str) -> float:
        """Add the time since the last note, or since the run was opened, to `timings.jsonl`.

        So the notes of a round add up to the time that passed in it. They are kept apart from the results, which are
        the same to the byte when a run is repeated.

        Args:
            round_: The round; 0 before the first.
            what: What was done.

        Returns:
            The time, in seconds.
        """
        now = time.monotonic()
        seconds, self._noted, self._round = now - self._noted, now, round_
        with (self.folder / TIMINGS).open("a") as file:
            file.write(json.dumps({"round": round_, "what": what, "seconds": round(seconds, 2)}) + "\n")
        return seconds


@contextmanager
def _undamaged(path: Path) -> Iterator[None]:
    """Turn what reading a damaged file of the state raises into one line."""
    try:
        yield
    except (SafetensorError, OSError, ValueError, TypeError, LookupError, RecursionError):
        raise RunError(f"{path}: is damaged; begin the run anew with --overwrite") from None


def remove_images(folder: Path, but: Path | None = None) -> None:
    """Remove training images at the working size from a folder, and what a kill left of them."""
    for path in (*folder.glob(f"{IMAGES}*"), *folder.glob(f".{IMAGES}*")):
        if but is None or not path.name.startswith(but.name):
            path.unlink(missing_ok=True)


def _whole(location: Location) -> str:
    """Return a place as it can be found again from anywhere: a path from the root on, or a URL."""
    path = path_of(location)
    return str(location if path is None else path.absolute())


def _kind(oracle: str) -> str:
    """Return what comes before the colon: a person's folder may be moved."""
    return oracle.partition(":")[0]


def _short(fingerprint: str | None) -> str:
    return fingerprint[:12] if fingerprint else "none"


def _visible(path: Path) -> bool:
    """Tell a user's file from what is left where a run was killed while it read its images."""
    return not path.name.startswith(".") and path.name != "state"
