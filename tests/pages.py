"""The written pages: the README and docs/, and the code blocks in them."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]
"""Every page but those that are made when the site is built."""


def blocks(page: Path, language: str) -> list[str]:
    """Return a page's code blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


def lines(page: Path, language: str) -> list[str]:
    """Return the lines of a page's code blocks of one language, without the prompt."""
    return [line.removeprefix("$ ") for block in blocks(page, language) for line in block.splitlines()]
