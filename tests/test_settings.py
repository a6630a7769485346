"""Settings from the environment, and a token that never shows."""

import subprocess
import sys

import pytest
from pydantic import SecretStr

from alserve.device import available_cores
from alserve.errors import ServiceError
from alserve.web.settings import PREFIX, Settings


def test_every_setting_has_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {
        "device": "cpu",
        "timeout": 2.5,
        "queue": 0,
        "batch": 4,
        "workers": 2,
        "token": SecretStr("secret"),
        "self_check": False,
    }
    assert set(values) == set(Settings.model_fields)
    for name, value in values.items():
        text = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        monkeypatch.setenv(PREFIX + name.upper(), text)

    assert Settings.from_environment() == Settings.model_validate(values)
    assert "secret" not in repr(Settings.from_environment())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TIMEOUT", "0"),
        ("TIMEOUT", "soon"),
        ("TIMEOUT", "nan"),
        ("QUEUE", "-1"),
        ("BATCH", "0"),
        ("WORKERS", "0"),
        ("TOKEN", ""),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(PREFIX + name, value)

    with pytest.raises(ServiceError, match=f"ALSERVE_{name} cannot be used"):
        Settings.from_environment()


def test_workers_share_the_cores() -> None:
    assert Settings().cores == available_cores()
    assert Settings(workers=2).cores == max(1, available_cores() // 2)
    assert Settings(workers=64).cores >= 1


def test_the_help_names_every_variable() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "alserve.cli", "serve", "--help"], capture_output=True, text=True, check=True
    )
    for name in Settings.model_fields:
        assert PREFIX + name.upper() in done.stdout
