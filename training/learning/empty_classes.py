"""Classes without foreground, such as "normal": whether the data set agrees, and which class may be one."""

from collections.abc import Sequence

from alserve.errors import DataError
from alserve.measure.dataset import Dataset, Sample, read_mask
from alserve.measure.rows import SPLITS
from alserve.parallel import ordered_map
from alserve.registry import suggest
from alserve.runtime.device import available_cores
from alserve.terminal import say_once


def check_empty_classes(dataset: Dataset, names: Sequence[str]) -> None:
    """Refuse classes without foreground that do not fit the data set.

    A mask of split "valid" or "test" with foreground is named only: it teaches nothing.

    Args:
        dataset: The data set; of its masks, those of these classes are read.
        names: The classes.

    Raises:
        DataError: One is no class of the data set, they are all of its classes, or a training mask has foreground.
    """
    for name in names:
        if name not in dataset.classes:
            raise DataError(
                f"{dataset.source}: has no class '{name}' (--empty-class); {suggest(name, dataset.classes)}"
            )
    if set(names) == set(dataset.classes):
        raise DataError(
            f"{dataset.source}: --empty-class names all classes ({', '.join(names)}); at least one class must have "
            "foreground"
        )
    for split, samples in _with_foreground(dataset, names).items():
        first = samples[0]
        name = dataset.classes[first.label]
        fault = (
            f"{first.mask}: has foreground, but --empty-class {name} says that its class has none "
            f"({len(samples)} such masks in split '{split}')"
        )
        if split == "train":
            raise DataError(f"{fault}; correct the masks, or leave --empty-class {name} out")
        say_once(f"{fault}; the figures count them as they are")


def _with_foreground(dataset: Dataset, names: Sequence[str]) -> dict[str, list[Sample]]:
    """Return the samples of these classes whose mask has foreground, by split, in order of the splits."""
    samples = [it for it in dataset.samples if dataset.classes[it.label] in names and it.mask is not None]
    full = ordered_map(_has_foreground, samples, available_cores())
    found = [sample for sample, is_full in zip(samples, full, strict=True) if is_full]
    by_split = {split: [sample for sample in found if sample.split == split] for split in SPLITS}
    return {split: members for split, members in by_split.items() if members}


def _has_foreground(sample: Sample) -> bool:
    return sample.mask is not None and bool(read_mask(sample.mask).any())
