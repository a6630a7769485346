"""Numbers by name for millions of names: of each name a hash of 64 bits is kept, in arrays."""

import hashlib
from array import array
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

UInt64 = npt.NDArray[np.uint64]


def digest(name: str) -> int:
    """Return 64 bits of a name's SHA-256; that two of ten million names share them has odds of 1 to 300,000."""
    return int.from_bytes(hashlib.sha256(name.encode(errors="surrogatepass")).digest()[:8])


class Table:
    """Whole numbers by name, of the same number of columns each.

    Args:
        columns: Numbers a name, from -2**63 to 2**63 - 1.
    """

    def __init__(self, columns: int = 1) -> None:
        self._names = array("Q")
        self._columns = tuple(array("q") for _ in range(columns))
        self._sorted: tuple[UInt64, npt.NDArray[np.int64]] | None = None

    def __len__(self) -> int:
        return len(self._names)

    def add(self, name: str, *values: int) -> None:
        """Note the numbers of a name; those that were added last hold."""
        self._names.append(digest(name))
        for column, value in zip(self._columns, values, strict=True):
            column.append(value)
        self._sorted = None

    def get(self, name: str) -> Sequence[int] | None:
        """Return the numbers of a name; None if it is unknown."""
        names, places = self._sorted or self._sort()
        wanted = np.uint64(digest(name))
        index = int(names.searchsorted(wanted))
        if index == len(names) or names[index] != wanted:
            return None
        return [column[places[index]] for column in self._columns]

    def count(self) -> int:
        """Return the number of different names."""
        return len((self._sorted or self._sort())[0])

    def _sort(self) -> tuple[UInt64, npt.NDArray[np.int64]]:
        """Sort the names; of equal ones the last is kept."""
        names = np.array(self._names, np.uint64)
        order = names.argsort(kind="stable")
        names = names[order]
        last = np.append(names[1:] != names[:-1], [True])[: len(names)]
        self._sorted = names[last], order[last]
        return self._sorted


class Names:
    """Many names: which occur twice, and a hash of all."""

    def __init__(self) -> None:
        self._digests = array("Q")

    def __len__(self) -> int:
        return len(self._digests)

    def add(self, name: str) -> None:
        """Add a name."""
        self._digests.append(digest(name))

    def _sort(self) -> UInt64:
        found = np.array(self._digests, np.uint64)
        found.sort()
        return found

    def twice(self) -> Sequence[int]:
        """Return the digests of names that occur more than once."""
        found = self._sort()
        return list(dict.fromkeys(found[1:][found[1:] == found[:-1]].tolist()))

    def hash(self) -> str:
        """Return a hash of all names, in whatever order they were added."""
        return hashlib.sha256(self._sort().astype("<u8").tobytes()).hexdigest()
