"""ServiceSettings from the environment, and a token that never shows."""

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr

from alserve.errors import ServiceError
from alserve.runtime.device import available_cores
from alserve.service.settings import MAX_BODY_BYTES, MAX_IMAGES, PREFIX, ServiceSettings


def as_text(value: object) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return " , ".join(value).upper() if isinstance(value, tuple) else str(value)


def test_every_setting_has_its_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    values = {
        "device": "cpu",
        "timeout": 2.5,
        "decode_timeout": 3.5,
        "idle": 1.5,
        "rate": 100,
        "connections": 50,
        "memory": 64,
        "queue": 0,
        "batch": 4,
        "workers": 2,
        "token": SecretStr("secret"),
        "hosts": ("one.example", "two.example"),
        "label_studio_files": tmp_path,
        "label_studio_media": tmp_path,
        "grace": 5,
        "self_check": False,
    }
    assert set(values) == set(ServiceSettings.model_fields)
    for name, value in values.items():
        monkeypatch.setenv(PREFIX + name.upper(), as_text(value))

    assert ServiceSettings.from_environment() == ServiceSettings.model_validate(values)
    assert "secret" not in repr(ServiceSettings.from_environment())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TIMEOUT", "0"),
        ("TIMEOUT", "soon"),
        ("TIMEOUT", "nan"),
        ("IDLE", "0"),
        ("RATE", "-1"),
        ("CONNECTIONS", "0"),
        ("MEMORY", "31"),
        ("QUEUE", "-1"),
        ("BATCH", "0"),
        ("WORKERS", "0"),
        ("TOKEN", ""),
        ("HOSTS", "one.example,http://two.example"),
        ("LABEL_STUDIO_FILES", "no such folder"),
        ("GRACE", "0"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(PREFIX + name, value)

    with pytest.raises(ServiceError, match=f"ALSERVE_{name} cannot be used"):
        ServiceSettings.from_environment()


def test_workers_share_the_cores() -> None:
    assert ServiceSettings().cores == available_cores()
    assert ServiceSettings(workers=2).cores == max(1, available_cores() // 2)
    assert ServiceSettings(workers=64).cores >= 1


def test_workers_share_what_is_held() -> None:
    alone, two, many = (ServiceSettings(workers=workers, memory=256, connections=90) for workers in (1, 2, 64))

    assert [settings.body_bytes for settings in (alone, two, many)] == [256 * 2**20, 128 * 2**20, MAX_BODY_BYTES]
    assert [settings.worker_connections for settings in (alone, two, many)] == [90, 45, 2]
    assert [ServiceSettings(workers=workers, queue=3).waiting_images for workers in (1, 2, 64)] == [3, 2, 1]
    assert all(settings.waiting_images >= MAX_IMAGES for settings in (alone, two, many))


def test_hosts_are_read_as_they_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALSERVE_HOSTS", " One.example, two.example:3000 ,[2001:DB8::1]:80,*,")

    assert ServiceSettings.from_environment().hosts == ("one.example", "two.example", "2001:db8::1", "*")


def test_there_are_no_more_connections_than_files_may_be_open() -> None:
    pytest.importorskip("resource", reason="Windows has no such limit")
    look = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100)); "
        "from alserve.service.settings import ServiceSettings; print(ServiceSettings().connections)"
    )
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)

    assert int(done.stdout) == 50


def test_the_help_names_every_variable() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "alserve", "serve", "--help"], capture_output=True, text=True, check=True
    )
    for name in ServiceSettings.model_fields:
        assert PREFIX + name.upper() in done.stdout
