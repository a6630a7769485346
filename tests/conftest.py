"""What the tests share: the model that comes with the package, and a service that runs."""

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from chromium import launched
from command import Cli
from playwright.sync_api import Browser
from server import UV, call, serving
from web import SERVE

import training  # noqa: F401  sets how torch's threads wait, before any test loads torch
from alserve import Predictor, load
from alserve.modelfile import default_model

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell that runs the tests in the background has it so
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what they start would never see a Ctrl-C


LONG = ("compare", "test_train.py", "test_train_together.py", "test_run_in_a_store.py", "test_label_studio_server.py")
"""Groups that take longest: they come first, so that in the end no process waits for one of them."""

LONGEST_NAME = 200
"""Characters at most of a text or content that the name of a test has whole."""


def group_of(item: pytest.Item) -> str:
    """Return the tests that run in one process, after each other: a file, or a folder that makes one experiment."""
    return "compare" if item.path.parent.name == "compare" else item.path.name


@pytest.hookimpl(tryfirst=True)  # before xdist, which reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: group_of(item) not in LONG)
    for item in items:
        item.add_marker(pytest.mark.xdist_group(group_of(item)))


def pytest_make_parametrize_id(val: object) -> str | None:
    """Return a short name of a long text or content: the name of a test is in the environment of what it starts."""
    return f"{val[:30]!r} of {len(val)}" if isinstance(val, str | bytes) and len(val) > LONGEST_NAME else None


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what the tests remember out of the user's cache folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALSERVE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def predictor() -> Predictor:
    """The model that comes with the package, on the CPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("ALSERVE_MODEL", raising=False)
        return load(default_model(), device="cpu", threads=1)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A real browser without a window; for tests that `needs_chromium` marks."""
    with launched() as browser:
        yield browser


@pytest.fixture(scope="session")
def service_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the service of `client` runs, and writes its log."""
    return tmp_path_factory.mktemp("service")


@pytest.fixture(scope="session")
def client(service_folder: Path) -> Iterator[httpx.Client]:
    """A client of a service that was started without any settings."""
    with serving(SERVE, service_folder) as client:
        yield client


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the distribution without extras; give the folder of the environment's programs."""
    folder = tmp_path_factory.mktemp("environment")
    venv = folder / "venv"
    programs = venv / ("Scripts" if sys.platform == "win32" else "bin")
    repository = Path(__file__).parent.parent
    for command in (
        [*UV, "venv", "--quiet", "--seed", "--python", sys.executable, venv],
        [*UV, "pip", "install", "--quiet", "--python", programs / "python", repository],
    ):
        done = call(command, folder)
        assert done.returncode == 0, done.stderr
    return programs


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """The command line."""
    return Cli(monkeypatch, capsys)
