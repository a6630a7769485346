"""The distributions that are installed here, and those among them that overwrite each other's files."""

from collections.abc import Iterable, Sequence

CONFLICTING_PACKAGES = (
    ("onnxruntime-gpu", "onnxruntime", "onnxruntime-directml", "onnxruntime-openvino"),
    ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless"),
)
"""Distributions that install over each other's files; the first that is there is the one to keep."""


def installed_packages() -> dict[str, str]:
    """Return the installed distributions' versions by name, in lower case with hyphens."""
    from importlib import metadata  # noqa: PLC0415  slow to import

    return {found.metadata["Name"].lower().replace("_", "-"): found.version for found in metadata.distributions()}


def find_conflicts(installed: Iterable[str]) -> list[tuple[str, ...]]:
    """Find distributions that overwrite each other.

    Args:
        installed: Names of the installed distributions, in lower case with hyphens.

    Returns:
        Groups of two and more of `CONFLICTING_PACKAGES` that are installed together, the one to keep first.
    """
    there = set(installed)
    groups = (tuple(name for name in alike if name in there) for alike in CONFLICTING_PACKAGES)
    return [group for group in groups if len(group) > 1]


def fix_command(names: Sequence[str]) -> str:
    """Return the command that leaves the first of some conflicting distributions, whole."""
    return f"pip uninstall -y {' '.join(names)} && pip install {names[0]}"
