"""Parts that a test adds to a registry, as a program would, and that are gone after it."""

from typing import Any

import pytest

from alserve.registry import Registry


def add_part(monkeypatch: pytest.MonkeyPatch, registry: Registry[Any], name: str, part: object) -> None:
    list(registry)  # all that come with the package are there before
    monkeypatch.setattr(registry, "_parts", dict(registry._parts))
    registry.add(name)(part)
