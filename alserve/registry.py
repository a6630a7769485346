"""Named parts of one kind, such as the outputs: each in a module of one folder, which is all that adding one takes."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from importlib import import_module
from pkgutil import iter_modules
from typing import TypeVar

from alserve.errors import OptionError

Part = TypeVar("Part")


class Registry(Mapping[str, Part]):
    """Parts of one kind by name, in order of their names.

    The modules of a folder each add theirs as they are imported, which happens at the first look. Other distributions
    add theirs by an entry point that names a module, in the group of the folder's dotted name (`alserve.outputs`);
    programs by `add`.

    Args:
        kind: What they are, for messages, such as "output".
        package: Dotted name of the folder.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self._package = package
        self._parts: dict[str, Part] = {}
        self._own_are_loaded = self._all_are_loaded = False

    def add(self, name: str) -> Callable[[Part], Part]:
        """Return a decorator that adds a part under a name.

        Raises:
            ValueError: Another part has the name.
        """

        def enter(part: Part) -> Part:
            if self._parts.setdefault(name, part) is not part:
                raise ValueError(f"there is another {self.kind} '{name}'")
            return part

        return enter

    def find(self, name: str) -> Part:
        """Return the part of this name.

        Raises:
            OptionError: There is none; names the nearest, and all there are.
        """
        try:
            return self[name]
        except KeyError:
            raise OptionError(f"unknown {self.kind} '{name[:40]}'; {suggest(name, self)}") from None

    def __getitem__(self, name: str) -> Part:
        self._load_own()
        if name not in self._parts:
            self._load_all()
        return self._parts[name]

    def __iter__(self) -> Iterator[str]:
        self._load_all()
        return iter(sorted(self._parts))

    def __len__(self) -> int:
        self._load_all()
        return len(self._parts)

    def _load_own(self) -> None:
        if not self._own_are_loaded:
            for module in iter_modules(import_module(self._package).__path__):
                import_module(f"{self._package}.{module.name}")
            self._own_are_loaded = True

    def _load_all(self) -> None:
        self._load_own()
        if not self._all_are_loaded:
            from importlib.metadata import entry_points  # noqa: PLC0415  looks through every installed distribution

            for entry in entry_points(group=self._package):
                try:
                    entry.load()
                except Exception as error:  # noqa: BLE001  whatever an import can raise
                    words = str(error).partition("\n")[0]
                    name = entry.dist.name if entry.dist else entry.name
                    raise OptionError(
                        f"{name}: adds to the {self.kind}s, but cannot be imported ({words}); correct it, or run: "
                        f"pip uninstall {name}"
                    ) from None
            self._all_are_loaded = True


def suggest(word: object, known: Iterable[str]) -> str:
    """Say which of the known words is nearest, if one is near, and which there are."""
    names = list(known)
    near = get_close_matches(str(word), names, 1)
    return f"{f'did you mean {near[0]}? ' if near else ''}there are {', '.join(names)}"
