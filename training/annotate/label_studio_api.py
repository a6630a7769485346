"""A project of a Label Studio server, by its REST interface.

The server's own library, label-studio-sdk, cannot be installed beside alserve: it wants OpenCV 4, headless.
"""

import os
from typing import Any, Self, TypeVar

import httpx
from pydantic import ValidationError

from alserve.errors import DataError
from training.annotate.fields import Fields
from training.annotate.formats.label_studio import Task

URL, KEY = "LABEL_STUDIO_URL", "LABEL_STUDIO_API_KEY"
"""The variables that say where the server is, and who asks."""

SECONDS = 100
"""How long an answer may take."""

PAGE = 100
"""Tasks in one answer."""

Answer = TypeVar("Answer", bound=Fields)


class ProjectState(Fields):
    """What is asked of a project."""

    label_config: str
    title: str = ""


class Listed(Fields):
    """A task without its annotations."""

    id: int
    data: dict[str, Any]
    total_annotations: int
    cancelled_annotations: int


class _Page(Fields):
    total: int
    tasks: list[Listed]


class _Uploads(Fields):
    file_upload_ids: list[int]


class _Upload(Fields):
    file: str


class _Access(Fields):
    access: str


class Project:
    """A project of a Label Studio server; only ever adds to it.

    Args:
        url: The server's address.
        key: A personal access token, or a token of the older kind.
        number: The project's number, as in the address of its page.
    """

    def __init__(self, url: str, key: str, number: int) -> None:
        self.url = url.rstrip("/")
        self.number = number
        self._key = key
        self._client = httpx.Client(timeout=SECONDS, headers={"Authorization": f"Token {key}"})
        self._is_personal = key.count(".") == 2  # noqa: PLR2004  a JSON web token has three parts
        if self._is_personal:
            self._renew()

    @classmethod
    def from_environment(cls, number: int) -> Self:
        """Return the project of this number on the server of the variables `URL` and `KEY`.

        Raises:
            DataError: One of them is not set, or the token is refused.
        """
        url, key = os.environ.get(URL, "").strip(), os.environ.get(KEY, "").strip()
        if not url.startswith(("http://", "https://")):
            raise DataError(f"--oracle label-studio needs the variable {URL}, such as {URL}=http://localhost:8080")
        if not key.isascii() or not key.isprintable() or not key:
            raise DataError(f"--oracle label-studio needs the variable {KEY}: the token in Label Studio's account page")
        return cls(url, key, number)

    @property
    def page(self) -> str:
        """The address of the project's page."""
        return f"{self.url}/projects/{self.number}/data"

    def read(self) -> ProjectState:
        """Return the project."""
        return self._ask(ProjectState, "GET", f"projects/{self.number}/")

    def configure(self, label_config: str) -> None:
        """Set the labelling configuration."""
        self._ask(ProjectState, "PATCH", f"projects/{self.number}/", json={"label_config": label_config})

    def tasks(self) -> list[Listed]:
        """Return all tasks."""
        found: list[Listed] = []
        while True:
            place = {"project": self.number, "fields": "task_only", "page_size": PAGE, "page": len(found) // PAGE + 1}
            page = self._ask(_Page, "GET", "tasks", params=place)
            found += page.tasks
            if len(page.tasks) < PAGE or len(found) >= page.total:
                return found

    def task(self, number: int) -> Task:
        """Return a task with its annotations."""
        return self._ask(Task, "GET", f"tasks/{number}/")

    def upload(self, name: str, image: bytes) -> str:
        """Upload an image; return the address that tasks know it by."""
        place = f"projects/{self.number}/import?commit_to_project=false"
        (upload,) = self._ask(_Uploads, "POST", place, files={"file": (name, image)}).file_upload_ids
        return f"/data/{self._ask(_Upload, 'GET', f'import/file-upload/{upload}').file}"

    def add(self, task: dict[str, Any]) -> None:
        """Add a task, with its predictions."""
        self._ask(Fields, "POST", f"projects/{self.number}/import", json=[task])

    def _ask(self, kind: type[Answer], method: str, path: str, **more: Any) -> Answer:  # noqa: ANN401
        """Send a request, once more with a new access token where the old one has expired.

        Raises:
            DataError: There is no answer, or another than was expected.
        """
        answer = self._send(method, path, **more)
        if answer.status_code == httpx.codes.UNAUTHORIZED and self._is_personal:
            self._renew()
            answer = self._send(method, path, **more)
        return self._parsed(kind, answer)

    def _renew(self) -> None:
        """Exchange a personal access token for one that is accepted for a few minutes."""
        answer = self._send("POST", "token/refresh", json={"refresh": self._key})
        self._client.headers["Authorization"] = f"Bearer {self._parsed(_Access, answer).access}"

    def _send(self, method: str, path: str, **more: Any) -> httpx.Response:  # noqa: ANN401
        try:
            return self._client.request(method, f"{self.url}/api/{path}", **more)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise DataError(f"{self.url}: Label Studio cannot be reached ({error}); check {URL}") from None

    def _parsed(self, kind: type[Answer], answer: httpx.Response) -> Answer:
        match answer.status_code:
            case httpx.codes.UNAUTHORIZED | httpx.codes.FORBIDDEN:
                raise DataError(
                    f"{self.url}: the token in {KEY} is refused; take the one in Label Studio's account page"
                )
            case httpx.codes.NOT_FOUND:
                raise DataError(f"{self.url}: has no project {self.number}, or not for the owner of the token in {KEY}")
        try:
            if answer.is_success:
                return kind.model_validate(answer.json())
            words = str(answer.json()["detail"])[:200]
        except (ValidationError, ValueError, KeyError, TypeError, RecursionError):
            words = "not as Label Studio does"
        raise DataError(f"{answer.request.url.copy_with(query=None)}: answers {answer.status_code} ({words})")
