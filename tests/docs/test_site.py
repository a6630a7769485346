"""The documentation builds without a warning, asks no other host for anything, and says what is so."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path

import pytest
import typer.main
from pages import PAGES, README, ROOT

import alserve
from alserve.cli import app
from alserve.service.settings import PREFIX, ServiceSettings

LOADS = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src", "object": "data"}
"""Elements by which a page loads something, and the attribute that names it."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, "http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


class _Loaded(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if LOADS.get(tag) == name]


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > len(PAGES)
    for page in pages:
        parser = _Loaded()
        parser.feed(page.read_text())
        assert parser.addresses
        assert [address for address in parser.addresses if re.match(r"(\w+:)?//", address)] == [], page


def test_every_command_is_described(site: Path) -> None:
    text = (site / "commands.html").read_text()
    for name in typer.main.get_command(app).commands:  # type: ignore[attr-defined]
        assert f"<code>alserve {name}</code>" in text


def test_every_public_name_is_described(site: Path) -> None:
    text = (site / "api.html").read_text()
    for name in set(alserve.__all__) - {"__version__", "errors"}:
        assert f'id="alserve.{name}"' in text, name


def test_every_setting_of_the_service_is_described() -> None:
    text = (ROOT / "docs" / "environment.md").read_text()
    assert [field for field in ServiceSettings.model_fields if f"`{PREFIX}{field.upper()}`" not in text] == []


def test_modules_are_where_the_page_says() -> None:
    rows = [re.findall(r"`([\w.]+)`", line) for line in (ROOT / "docs" / "moved.md").read_text().splitlines()]
    moves = [row for row in rows if len(row) > 1]
    assert len(moves) > 50
    assert [module for _, *new in moves for module in new if not _is_module(module)] == []
    assert [
        old for old, *new in moves if _is_module(old) and not any(f"{name}.".startswith(f"{old}.") for name in new)
    ] == []


def _is_module(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def test_versions_agree() -> None:
    assert f'\nversion = "{alserve.__version__}"\n' in (ROOT / "pyproject.toml").read_text()
    assert f"\nversion: {alserve.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## {alserve.__version__} - " in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("page", [README, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"], ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_readme_is_short() -> None:
    assert len(README.read_text().split()) <= 900
