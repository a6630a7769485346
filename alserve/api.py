"""What the command line does, for Python programs: training and export, which the optional extra brings."""

from collections.abc import Callable, Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alserve.errors import AlserveError

if TYPE_CHECKING:
    from alserve.modelfile import Precision
    from alserve.places.urls import Location
    from training.export.run import Exported
    from training.run.result import RunResult

_TRAINING = Path(__file__).parent.parent / "training"
"""The package that makes models; it is installed beside this one."""


def train(
    data: "Location",
    *,
    out: "Location",
    masks: "Location | None" = None,
    oracle: str = "data",
    preset: str | None = None,
    method: str | None = None,
    query: str | None = None,
    initial: int | None = None,
    per_round: int | None = None,
    rounds: int | None = None,
    passes: int | None = None,
    steps: int | None = None,
    classifier_steps: int | None = None,
    short_side: int | None = None,
    encoder: str | None = None,
    encoder_weights: str | Path | None = None,
    decoder: str | None = None,
    encoder_lr: float | None = None,
    empty_classes: Iterable[str] | None = None,
    validation_masks: bool = False,
    seed: int = 0,
    device: str = "auto",
    devices: int = 1,
    nodes: int = 1,
    overwrite: bool = False,
    settings: Mapping[str, Any] | None = None,
    progress: Callable[[Mapping[str, Any]], None] | None = None,
) -> "RunResult":
    """Learn from class labels and a few masks, by rounds of active learning.

    The same call again continues a run that was stopped, or that waits for a person's masks.

    Args:
        data: A folder with a subfolder per class, or a CSV: image, label and perhaps mask, split. Either may be a URL
            of an object store, see `alserve.evaluate`: then images and masks are copied to the cache folder.
        out: Folder of the run, or its URL in an object store: then it works in a folder of the cache folder, and every
            state that it saves is copied to the store. The same call on any machine continues it.
        masks: Folder of masks, a mirror of the folders of `data`, or its URL; non-zero pixels are foreground.
        oracle: Where masks come from: "data"; "browser" for a person who draws them on a page while the call waits;
            "folder:DIR" for a person who draws them there; or "label-studio:PROJECT" for one who draws them in this
            project of Label Studio, "label-studio:PROJECT:consensus" for several.
        preset: Settings for a kind of data, see `training.settings.PRESETS`; what is passed here replaces its values.
        method: What is learned from, see `training.settings.METHODS`. Default of this and the following: the preset's,
            else that of `training.settings.Settings`.
        query: Which images to ask for, see `training.query`.
        initial: Number of masks asked for at first, per class.
        per_round: Number of masks asked for in every further round, per class.
        rounds: Number of rounds; each is one training at one budget.
        passes: Number of trainings a round of label-propagation; each further one learns from fresh pseudo-masks.
        steps: Training steps of one pass.
        classifier_steps: Training steps on the class labels, in each cycle of the learning rate.
        short_side: Working size: short side in pixels, a multiple of 32, 64 or more.
        encoder: Name of a timm encoder.
        encoder_weights: File of the encoder's first weights, in place of ImageNet's from an installed package or a
            model hub: safetensors, or a state dictionary of PyTorch. No code in it is run.
        decoder: "separable-unet", or the name of a segmentation-models-pytorch decoder.
        encoder_lr: Learning rate of the encoder while it learns masks; 0 keeps it frozen.
        empty_classes: Names of classes without foreground, such as "normal": no mask is asked for, all are known.
        validation_masks: Choose the threshold on the masks of split "valid", which count in the budget; else it is one
            half.
        seed: Determines everything that is random.
        device: "auto", "cpu" or "cuda".
        devices: Processes on each machine that share the training, each with a GPU of its own where there are GPUs.
        nodes: Machines; torchrun or Slurm starts every process, and each makes this call.
        overwrite: Replace an earlier run in `out`.
        settings: Any other of `training.settings.Settings`, by name.
        progress: Called after every round with its record.

    Returns:
        The run: its records, the paths of model and report, and `waiting` where masks are to be drawn first.

    Raises:
        AlserveError: The training extra is not installed; a setting, the data or the budget do not fit; the device
            cannot be used; or `out` holds something else.

    Example:
        >>> run = alserve.train("tissue.csv", out="runs/tissue", initial=4, per_round=1, rounds=5)
        >>> alserve.load(run.model).predict("new.png").label
    """
    arguments = locals()
    need_training()
    from training.settings import Settings  # noqa: PLC0415  the extra may be missing
    from training.train import train_run  # noqa: PLC0415

    chosen = Settings.of(preset, {**Settings.among(arguments), **(settings or {})})
    return train_run(
        data,
        out,
        chosen,
        masks=masks,
        oracle=oracle,
        device=device,
        devices=devices,
        nodes=nodes,
        overwrite=overwrite,
        progress=progress,
    )


def export(
    run: str | Path,
    *,
    out: str | Path,
    precision: "Precision" = "fp32",
    data: "Location | None" = None,
    force: bool = False,
    references: bool = True,
) -> "Exported":
    """Write a run's latest model as one ONNX file, compared with the trained network on real images.

    A reduced precision is measured against fp32 on the test images; what it costs is stored in the file.

    Args:
        run: Folder of a training run.
        out: The model file to write.
        precision: "fp32"; "fp16", for GPUs; or "int8", for CPUs, calibrated on training images.
        data: The run's data set, if it is no longer where it was.
        force: Write fp16 or int8 even if it loses more accuracy than is allowed.
        references: Include the pieces of training images by which a model checks itself.

    Returns:
        The file's path, what it says of itself, and what a reduced precision costs.

    Raises:
        AlserveError: The training extra is not installed; there is no finished round; the data set has changed; or the
            reduced model loses too much.

    Example:
        >>> alserve.export("runs/tissue", out="small.onnx", precision="int8").cost
    """
    need_training()
    from alserve.places.urls import on_disk  # noqa: PLC0415  slow to import
    from training.export.run import export_run  # noqa: PLC0415  the extra may be missing

    return export_run(
        on_disk(run),
        on_disk(out),
        precision,
        data=data,
        force=force,
        references=references,
    )


def need_training() -> None:
    """Check that models can be made here.

    Raises:
        AlserveError: The libraries of the training extra are missing, or another package takes the place of `training`.
    """
    found = find_spec("training")
    places = [] if found is None else [found.origin, *(found.submodule_search_locations or ())]
    place = next((Path(place) for place in places if place), None)
    if place is not None and _TRAINING.resolve() not in {place.resolve(), place.resolve().parent}:
        raise AlserveError(
            f"{place} is found in place of alserve's own package 'training' ({_TRAINING}); "
            "rename it, or run from another folder"
        )
    libraries = ("torch", "timm", "lightning", "segmentation_models_pytorch")
    if missing := [name for name in libraries if find_spec(name) is None]:
        raise AlserveError(f"training needs {', '.join(missing)}; run: pip install 'alserve[train]'")
