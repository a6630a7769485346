"""A whole training run: from a data set through all rounds to the model and its report."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from pydantic import TypeAdapter, ValidationError

from alserve.errors import DataError, OptionError
from alserve.measure.dataset import Dataset, load_dataset
from alserve.modelfile import ClassNames
from alserve.places.urls import Location, location, open_place, path_of
from alserve.terminal import say
from training.annotate.oracle import Oracle
from training.annotate.oracles import open_oracle
from training.data.local_copy import local_copy
from training.distributed.start import training_group
from training.learning.algorithm import Record, learn
from training.learning.data import read_images
from training.learning.empty_classes import check_empty_classes
from training.learning.learner import Learner
from training.model.trainer import Trainer
from training.report import report_run
from training.run.folder import Run
from training.run.result import RunResult
from training.run.stored import folder_of, kept_run
from training.settings import Settings


def train_run(
    data: Location,
    out: Location,
    settings: Settings,
    *,
    masks: Location | None = None,
    oracle: str = "data",
    device: str = "auto",
    devices: int = 1,
    nodes: int = 1,
    overwrite: bool = False,
    cache: Path | None = None,
    progress: Callable[[Record], None] | None = None,
) -> RunResult:
    """Learn from a data set, by rounds; a run that was stopped, or waits for a person's masks, continues.

    Args:
        data: See `alserve.measure.dataset.load_dataset`; of what is in an object store a copy is made here.
        out: Folder of the run; or its URL in an object store: then the run works in a folder of the cache folder, and
            is copied to the store whenever its state is saved. The same call on another machine goes on from there.
        settings: What to learn with.
        masks: See `alserve.measure.dataset.load_dataset`.
        oracle: Where masks come from, see `training.annotate.oracles.open_oracle`.
        device: "auto", "cpu" or "cuda".
        devices: Processes on each machine that share the training, each with a GPU of its own where there are GPUs.
        nodes: Machines; of more than one, each of their processes makes this call, started by torchrun or Slurm.
        overwrite: Remove what an earlier run left in `out`.
        cache: Folder for what several runs have in common, computed once. Default: nothing is shared.
        progress: Called with the record of each round that is finished.

    Returns:
        The run, in the folder in which it worked. Where a person has masks to draw first, it is `waiting`; before its
        first round is finished there is no model.

    Raises:
        DataError: The data do not fit together, a mask cannot be used, or the budget is larger than the pool.
        OptionError: Something that was asked for cannot be with a run in an object store.
        DeviceError: The device that was asked for cannot be used, or there are not so many.
        RunError: `out` holds something else, or one of several processes has ended.
    """
    started = time.monotonic()
    folder = folder_of(out)
    if path_of(out) is None:
        check_stored(out, oracle, nodes)
    trainer = Trainer(settings, device)
    check_shares(settings, devices * nodes)
    with training_group(devices, nodes, trainer.accelerator) as group:
        if group.ranks.rank == 0:
            _run(
                data,
                out,
                replace(trainer, group=group),
                masks=masks,
                oracle=oracle,
                overwrite=overwrite,
                cache=cache,
                progress=progress,
                started=started,
            )
    return RunResult.read(folder)


def _run(
    data: Location,
    out: Location,
    trainer: Trainer,
    *,
    masks: Location | None,
    oracle: str,
    overwrite: bool,
    cache: Path | None,
    progress: Callable[[Record], None] | None,
    started: float,
) -> None:
    """Run Algorithm 1; see `train_run`."""
    settings, folder = trainer.settings, folder_of(out)
    source = open_oracle(oracle, folder)
    dataset = local_copy(load_dataset(data, masks))
    check_budget(dataset, settings, source)
    trainer.new_network(len(dataset.classes), settings.seed)  # an encoder that cannot be had: no folder is made
    fingerprint = dataset.fingerprint()
    place, finished = open_place(out), False
    model, report = location(place, "model.onnx"), location(place, "report.html")
    with kept_run(out, overwrite=overwrite) as save:
        run = Run(
            folder,
            settings,
            source=data,
            masks=masks,
            oracle=oracle,
            fingerprint=fingerprint,
            classes=dataset.classes,
            train_images=len(dataset.split("train")),
            overwrite=overwrite,
            shared=cache,
            started=started,
            saved=save,
        )
        try:
            with run:
                shared = trainer.group.ranks.size > 1
                images = read_images(dataset, settings.short_side, run.image_file(settings.short_side), shared=shared)
                run.begin()  # an earlier run is replaced by none whose data cannot be read
                finished = learn(Learner(dataset, images, source, trainer, run), run, settings, progress)
                if finished:
                    threads = torch.get_num_threads()  # other runs may have the other cores
                    report_run(folder, folder / "report.html", dataset=dataset, model=model, threads=threads)
                    run.remove_images()
        finally:
            source.end(folder / "report.html" if finished else None)
    if finished:
        say(f"{model} is the model, {report} shows what it learned")


def check_stored(out: Location, oracle: str, nodes: int) -> None:
    """Refuse what a run in an object store cannot have.

    Raises:
        OptionError: Masks are drawn in its folder, or several machines share it.
    """
    if oracle == "browser":
        raise OptionError(f"--oracle browser keeps drawn masks in --out: give a folder on the disk in place of {out}")
    if nodes > 1:
        raise OptionError(f"--nodes {nodes}: all machines read --out: give a folder that they share in place of {out}")


def check_shares(settings: Settings, size: int) -> None:
    """Refuse batches that several processes cannot share evenly.

    Args:
        settings: The sizes of batches.
        size: Number of processes.

    Raises:
        DataError: Says which setting would do.
    """
    for name in ("batch", "class_batch") if settings.looks_at_all_images else ("batch",):
        if (images := getattr(settings, name)) % size:
            raise DataError(
                f"{size} processes cannot share {name} {images} evenly; add --set {name}={-(-images // size) * size}"
            )


def check_budget(dataset: Dataset, settings: Settings, oracle: Oracle) -> None:
    """Refuse a data set with too few classes or images for the settings, or an oracle without enough masks.

    Classes that no model file could name are refused as well, and classes without foreground that do not fit the data.

    Raises:
        DataError: Says which class has how many, and how many are wanted.
    """
    if len(dataset.classes) < 2:  # noqa: PLR2004
        raise DataError(
            f"{dataset.source}: only one class ({dataset.classes[0]}); at least two are needed to learn from"
        )
    try:
        TypeAdapter(ClassNames).validate_python(dataset.classes)
    except ValidationError as error:
        first = error.errors()[0]
        which = f"class {dataset.classes[int(first['loc'][0])][:40]!r}" if first["loc"] else "these classes"
        raise DataError(f"{dataset.source}: a model cannot have {which}: {first['msg']}") from None
    present = {sample.label for sample in dataset.split("train")}
    for label, name in enumerate(dataset.classes):
        if label not in present:
            raise DataError(f"{dataset.source}: class {name} has no image in split 'train'; add some")
    check_empty_classes(dataset, settings.empty_classes)
    oracle.check(dataset, settings)
