"""Algorithm 1 of Belharbi et al., "Deep Active Learning for Joint Classification & Segmentation with Weak Annotator".

WACV 2021, arXiv:2010.04889. Each verb is a method of `Learner`; the step numbers are those of the paper's listing.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from alserve.doctor import advise_against_int8, describe_cost
from alserve.engine import Engine
from alserve.errors import DataError, ModelError, RunError
from alserve.files import write_atomic
from alserve.modelfile import ClassNames, Precision, seal
from alserve.references import Reference
from alserve.terminal import print_facts, say
from training.dataset import Dataset, load_dataset
from training.fit import Trainer
from training.learner import Learner, read_images, weights_of
from training.oracle import Oracle, open_oracle
from training.report import report_run
from training.run import Run, read_config
from training.settings import Settings
from training.similarity import within_reach


def learn(learner: Learner, run: Run, settings: Settings) -> bool:
    """Go through all rounds, from where the state says; it is saved after every query and every pass.

    Returns:
        False where a person has to draw masks first.
    """
    state = run.load_state()
    if state.round > len(settings.schedule):
        return True
    theta0 = learner.theta0()  # 0: encoder and CAM head from class labels, a fresh decoder
    pool = learner.new_pool(state)
    nearest = learner.nearest()
    while state.round <= len(settings.schedule):
        if not learner.gather_masks(pool, theta0, state):  # 1 and 2d: query, the oracle gives masks, L grows
            return False
        while state.passes < settings.passes_a_round:
            net = learner.train(theta0, pool, state)  # 2a, 2b: from theta0, on L and P
            state.threshold = learner.choose_threshold(net, theta0, pool, state)  # 2c
            if settings.learns_from_pseudo:
                pool.add_pseudo(within_reach(pool.unlabelled, pool.labelled, nearest))  # 2e: P <- P and U''
                state.pseudo = learner.pseudo_label(net, pool, state.threshold)  # 2f
            state.weights = weights_of(net)
            state.passes += 1
            run.save_state(state)
        record = learner.publish(learner.network(state.weights), pool, state)  # 3: the model of this round
        state.records.append(record)
        state.round, state.passes = state.round + 1, 0
        run.save_state(state)
        say(describe(record))
    return True


def describe(record: Mapping[str, Any]) -> str:
    """Say a round's figures in one line."""
    measured = [(name, record.get(f"test_{name}")) for name in ("dice", "accuracy")]
    pseudo_dice = record.get("pseudo_dice")
    figures = [
        f"{record['masks_used']} masks",
        f"{record['pseudo_labels']} pseudo-masks{'' if pseudo_dice is None else f' (Dice {100 * pseudo_dice:.1f} %)'}",
        f"threshold {record['threshold']:.2f}",
        *(f"test {name} {100 * value:.1f} %" for name, value in measured if value is not None),
    ]
    return f"round {record['round']}: {', '.join(figures)}"


def train_run(
    data: Path,
    out: Path,
    settings: Settings,
    *,
    masks: Path | None = None,
    oracle: str = "data",
    device: str = "auto",
    overwrite: bool = False,
    cache: Path | None = None,
) -> Path:
    """Learn from a data set, by rounds; a run that was stopped, or waits for a person's masks, continues.

    Args:
        data: See `training.dataset.load_dataset`.
        out: Folder of the run.
        settings: What to learn with.
        masks: See `training.dataset.load_dataset`.
        oracle: Who gives the masks, see `training.oracle.open_oracle`.
        device: "auto", "cpu" or "cuda".
        overwrite: Drop what an earlier run left in `out`.
        cache: Folder through which runs share what they would all compute.

    Returns:
        The model file; it is not there yet where a person has to draw the first masks.

    Raises:
        DataError: The data do not fit together, a mask cannot be used, or the budget is larger than the pool.
        DeviceError: The device that was asked for cannot be used.
        RunError: `out` holds something else.
    """
    trainer = Trainer(settings, device)
    giver = open_oracle(oracle)
    dataset = load_dataset(data, masks)
    images = read_images(dataset, settings.short_side)
    check_budget(dataset, settings, giver)
    trainer.new_network(len(dataset.classes), settings.seed)  # an encoder that cannot be had: no folder is made
    fingerprint = dataset.fingerprint()
    run = Run(
        out,
        settings,
        source=data,
        masks=masks,
        oracle=oracle,
        fingerprint=fingerprint,
        overwrite=overwrite,
        shared=cache,
    )
    with run:
        if not learn(Learner(dataset, images, giver, trainer, run), run, settings):
            return run.model
        report_run(out, out / "report.html")
    say(f"{run.model} is the model, {out / 'report.html'} shows what it learned")
    return run.model


def check_budget(dataset: Dataset, settings: Settings, oracle: Oracle) -> None:
    """Refuse a data set that has too few classes or images for what the settings ask for, or an oracle that cannot.

    Classes that no model file could name are refused as well.

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
    oracle.check(dataset, settings)


def export_run(
    run: Path,
    out: Path,
    precision: Precision = "fp32",
    *,
    data: Path | None = None,
    force: bool = False,
    references: bool = True,
) -> None:
    """Hand out the model file of a run's last finished round, as it is or reduced.

    It was compared with the network when it was written; a reduced copy is compared with it on the images of split
    test (else valid, else train).

    Args:
        run: The run's folder.
        out: The file to write.
        precision: "fp32", "fp16" or "int8".
        data: The data set, where it is not where it was when the run began.
        force: Hand out a reduced model though it loses more than `training.reduce` allows.
        references: Leave the pieces of training images, by which the model checks itself, in the file.

    Raises:
        RunError: There is no run, or none of its rounds is finished.
        DataError: The data set of the run, which a reduced copy is measured on, is not there or has changed.
        ModelError: The run's model file is damaged, or the reduced copy loses too much.
    """
    config = read_config(run)
    model = run / "model.onnx"
    if not model.is_file():
        raise RunError(f"{run}: no round is finished yet; run 'alserve train' with the same --out to continue")
    engine = Engine(model, device="cpu", self_check=False)
    spec, kept = engine.spec, engine.references if references else ()
    if precision != "fp32":
        _export_reduced(model, out, precision, _dataset_of(run, config, data), kept, force=force)
        return
    write_atomic(out, seal(model.read_bytes(), spec, kept))
    say(describe_references(out, kept))
    from training.reduce import blank_speed  # noqa: PLC0415  slow to import

    worst = max(figure.max_difference for figure in spec.parity)
    made = spec.provenance
    figures = {"test Dice": made.test_dice, "test IoU": made.test_iou, "test accuracy": made.test_accuracy}
    measured = "".join(f"{name} {100 * value:.1f} %; " for name, value in figures.items() if value is not None)
    say(
        f"{out}: {', '.join(spec.classes)}; {made.masks_used} masks; {measured}"
        f"{out.stat().st_size / 1e6:.2f} MB; {blank_speed(out)} images/s on one thread; "
        f"largest difference from the trained network {worst:.1e}"
    )


def _dataset_of(run: Path, config: dict[str, Any], data: Path | None) -> Dataset:
    masks = config.get("masks")
    dataset = load_dataset(data or Path(config["source"]), Path(masks) if masks else None)
    if dataset.fingerprint() != config["fingerprint"]:
        raise DataError(
            f"{dataset.source}: is not the data that {run} learned from, or has changed; name it with --data"
        )
    return dataset


def describe_references(model: Path, references: Sequence[Reference]) -> str:
    """Say what of the training images a model file carries, for it may be passed on."""
    if not references:
        return f"{model}: carries no reference images, so it cannot check itself where it runs"
    height, width = references[0].image.shape[:2]
    return (
        f"{model}: carries {len(references)} pieces of training images ({height} x {width} pixels) to check itself by "
        "where it runs; if nobody may see them, export with --no-references"
    )


def _export_reduced(
    model: Path, out: Path, precision: Precision, dataset: Dataset, references: Sequence[Reference], *, force: bool
) -> None:
    from training.reduce import CALIBRATION_IMAGES, reduce_model  # noqa: PLC0415  slow to import

    train = dataset.split("train")
    samples = dataset.split("test") or dataset.split("valid") or train
    scratch = out.with_name(f".{out.name}.part")
    try:
        calibration = train[:: 1 + len(train) // CALIBRATION_IMAGES]
        reduced = reduce_model(model, scratch, precision, calibration, samples, references)
        print_facts(f"{out}: {precision}", describe_cost(reduced.cost))
        if precision == "int8" and (advice := advise_against_int8(reduced.cost)):
            say(advice)
        if reduced.loss and not force:
            raise ModelError(f"{precision} loses {reduced.loss}; nothing is written, --force writes it all the same")
        scratch.replace(out)
        say(describe_references(out, reduced.references))
    finally:
        scratch.unlink(missing_ok=True)
