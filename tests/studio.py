"""A real Label Studio server for the tests, where its command is found, and a person at it."""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from server import free_port

from alserve.arrays import UInt8
from training.data.tissue import CLASSES, draw_tissue

START_SECONDS = 300
"""It makes its database first."""

TOKEN = "0123456789abcdef0123456789abcdef01234567"  # noqa: S105  of a server that lives for a test


@dataclass(frozen=True)
class Studio:
    """The server, and a client of its owner's."""

    client: httpx.Client
    files: Path
    """Folder of local files."""
    media: Path
    """Folder of uploads."""

    @property
    def url(self) -> str:
        return str(self.client.base_url).rstrip("/")

    def call(self, method: str, path: str, **more: Any) -> Any:
        answer = self.client.request(method, f"/api/{path}", **more)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def new_project(self, title: str, label_config: str = "") -> int:
        given = {"label_config": label_config} if label_config else {}
        return int(self.call("POST", "projects/", json={"title": title, **given})["id"])

    def add_tasks(self, project: int, tasks: Sequence[dict[str, Any]]) -> None:
        self.call("POST", f"projects/{project}/import", json=tasks)

    def tasks(self, project: int) -> list[dict[str, Any]]:
        """All tasks of a project, whole, in the order in which they were made."""
        found = self.call("GET", "tasks", params={"project": project, "page_size": 100})["tasks"]
        return [self.call("GET", f"tasks/{task['id']}/") for task in sorted(found, key=lambda task: task["id"])]

    def submit(self, task: int, *regions: dict[str, Any], **more: Any) -> int:
        """Submit an annotation as a person does; return its number."""
        return int(self.call("POST", f"tasks/{task}/annotations/", json={"result": list(regions), **more})["id"])

    def new_person(self, name: str) -> int:
        """Add somebody else who annotates; return their number."""
        return int(self.call("POST", "users/", json={"email": f"{name}@example.org", "username": name})["id"])

    def correct(self, annotation: int, *regions: dict[str, Any]) -> None:
        """Change what was submitted."""
        self.call("PATCH", f"annotations/{annotation}/", json={"result": list(regions)})

    def personal_token(self) -> str:
        return str(self.call("POST", "token/")["token"])


@contextmanager
def label_studio(folder: Path) -> Iterator[Studio]:
    """Start Label Studio, named by the variable LABEL_STUDIO or on PATH, with everything that it keeps in a folder."""
    command = os.environ.get("LABEL_STUDIO") or shutil.which("label-studio")
    if not command:
        pytest.skip("no Label Studio: install label-studio 1.23 somewhere, and name its command in LABEL_STUDIO")
    files, port = folder / "files", free_port()
    files.mkdir()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("LABEL_STUDIO", "PYTHON"))},
        "LABEL_STUDIO_BASE_DATA_DIR": str(folder / "data"),
        "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "true",
        "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(files),
        "ML_BLOCK_LOCAL_IP": "false",
        "SSRF_PROTECTION_ENABLED": "false",
        "LATEST_VERSION_CHECK": "false",
        "COLLECT_ANALYTICS": "false",
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
    }
    who = ["--username", "owner@example.org", "--password", "long-enough-1", "--user-token", TOKEN]
    where = ["--no-browser", "--internal-host", "127.0.0.1", "--port", str(port), "--enable-legacy-api-token"]
    log = folder / "label-studio.log"
    with log.open("wb") as output:
        process = psutil.Popen([command, "start", *where, *who], env=environment, stdout=output, stderr=output)
    try:
        address = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=address, timeout=100, headers={"Authorization": f"Token {TOKEN}"}) as client:
            _wait_until_up(client, process, log)
            yield Studio(client, files, folder / "data" / "media")
    finally:
        for one in (*process.children(recursive=True), process):
            with suppress(psutil.NoSuchProcess):
                one.terminate()
        with suppress(subprocess.TimeoutExpired, psutil.TimeoutExpired):
            process.wait(20)


def _wait_until_up(client: httpx.Client, process: psutil.Popen, log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text()
        with suppress(httpx.TransportError):
            if client.get("/health").status_code == httpx.codes.OK:
                return
        time.sleep(0.5)
    raise AssertionError(f"Label Studio does not answer after {START_SECONDS} s: {log.read_text()}")


def tissue(number: int) -> UInt8:
    """An image, 150 x 217 pixels, in which the model that comes with the package finds something."""
    image, _ = draw_tissue(np.random.default_rng([7, number]), CLASSES[number % len(CLASSES)], (150, 217))
    return image


def logged(folder: Path, pattern: str) -> bool:
    return re.search(pattern, (folder / "label-studio.log").read_text()) is not None
