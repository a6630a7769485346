"""The sets of Algorithm 1 over the training images D: L has an expert's mask, P a pseudo-mask, U has none.

Images of classes without foreground, whose masks are known without being asked for, are in none of these sets:
U = D - L - known_empty.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from alserve.errors import DataError


@dataclass
class Pool:
    """Which training images have a mask, and from whom; images are named by their index in D."""

    labels: tuple[int, ...]
    """Class of every image in D."""
    askable: frozenset[int]
    """Images that may be offered to the oracle: it has or can draw their mask, and was not asked for it yet."""
    known_empty: frozenset[int] = frozenset()
    """Images whose mask is known to be empty: never offered, never in U or P."""
    labelled: set[int] = field(default_factory=set)
    """L: images with a mask of the oracle."""
    pseudo: set[int] = field(default_factory=set)
    """P, a subset of U: images with a pseudo-mask of the model."""

    def __post_init__(self) -> None:
        self.askable -= self.known_empty

    @property
    def unlabelled(self) -> set[int]:
        """U = D - L - known_empty."""
        return set(range(len(self.labels))) - self.labelled - self.known_empty

    def of_class(self, label: int, images: Iterable[int]) -> list[int]:
        """Return those of the images that are of one class, in order."""
        return sorted(index for index in images if self.labels[index] == label)

    def candidates(self, label: int, wanted: int) -> list[int]:
        """Return the images of a class that may be offered to the oracle.

        Images in P are protected: they are offered only where too few others remain.

        Args:
            label: The class.
            wanted: How many masks are to be asked for.

        Raises:
            DataError: The class has fewer than `wanted` images left to ask for.
        """
        left = self.of_class(label, self.unlabelled & self.askable)
        if len(left) < wanted:
            raise DataError(f"class {label}: {wanted} masks wanted, but only {len(left)} images are left to ask for")
        unprotected = [index for index in left if index not in self.pseudo]
        return unprotected if len(unprotected) >= wanted else left

    def ask(self, images: Collection[int]) -> None:
        """Note that the oracle is asked for these images: they are not offered again."""
        self.askable -= set(images)

    def add_masks(self, images: Collection[int]) -> None:
        """Move images into L, and out of P, once their masks are there."""
        self.labelled |= set(images)
        self.pseudo -= set(images)

    def add_pseudo(self, images: Collection[int]) -> None:
        """Put images of U into P.

        Raises:
            ValueError: One of them is not in U.
        """
        if not self.unlabelled.issuperset(images):
            raise ValueError("an image in L, or known to be empty, cannot have a pseudo-mask")
        self.pseudo |= set(images)


def evenly(members: Sequence[int], most: int) -> list[int]:
    """Return that many of the images, or all if they are fewer, at even steps from the first to the last."""
    places = np.linspace(0, len(members) - 1, min(most, len(members)))
    return [members[place] for place in places.round().astype(int)]
