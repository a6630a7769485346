"""Label Studio itself, where it is installed: it shows our predictions, and a person draws in it for a whole run."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn import UNTRAINED, settings
from pictures import encoded
from server import serving
from studio import Studio, label_studio, logged, tissue
from tables import draw_without_masks
from web import SERVE
from web import encoded as png

from alserve import load
from alserve.errors import DataError
from alserve.files import write_atomic
from alserve.images.codec import decode_mask
from alserve.label_studio.brush import decode_brush
from alserve.label_studio.config import SETUP, Control, read_config
from alserve.label_studio.regions import choice_region, mask_regions
from alserve.measure.dataset import load_dataset
from alserve.predictor import Predictor
from training.annotate.label_studio import CONFIRMING_SETUP, NAME
from training.annotate.label_studio_api import KEY, URL
from training.annotate.oracle import NoMask
from training.annotate.oracles import open_oracle
from training.report.cases import asked_rounds
from training.run.records import read_rounds
from training.run.result import RunResult
from training.train import train_run

pytestmark = pytest.mark.xdist_group("label-studio")

TWO_ROUNDS = settings(UNTRAINED, initial=2)

TAG, CONFIRM = read_config(CONFIRMING_SETUP)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("studio")


@pytest.fixture(scope="module")
def studio(folder: Path) -> Iterator[Studio]:
    with label_studio(folder) as server:
        yield server


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_without_masks(tmp_path_factory.mktemp("data"))


def test_label_studio_shows_our_predictions(studio: Studio, folder: Path, predictor: Predictor, tmp_path: Path) -> None:
    """Local files, an upload and a data URL are predicted; what cannot be is said in the log, and stops nobody."""
    for number in range(2):
        write_atomic(studio.files / "a b" / f"{number}.png", png(tissue(number)))
    project = studio.new_project("shown", SETUP)
    local = {"path": str(studio.files / "a b"), "project": project, "use_blob_urls": True}
    studio.call("POST", "storages/localfiles/", json=local)
    upload = f"projects/{project}/import?commit_to_project=false"
    (number,) = studio.call("POST", upload, files={"file": ("2 3.png", png(tissue(2)))})["file_upload_ids"]
    uploaded = studio.call("GET", f"import/file-upload/{number}")["file"]
    names = ["/data/local-files/?d=a%20b/0.png", "/data/local-files/?d=a%20b/1.png", f"/data/{uploaded}"]
    wrong = ["/data/local-files/?d=a%20b/gone.png", "https://example.org/1.png"]
    studio.add_tasks(project, [{"data": {"image": name}} for name in (*names, *wrong)])
    places = {"FILES": str(studio.files), "MEDIA": str(studio.media)}
    environment = {f"ALSERVE_LABEL_STUDIO_{name}": place for name, place in places.items()}
    with serving(SERVE, tmp_path, ALSERVE_TOKEN="s3cret", **environment) as service:  # noqa: S106
        backend = {"url": f"{service.base_url}/label-studio", "project": project, "title": "ours"}
        assert studio.client.post("/api/ml/", json=backend).status_code == 400
        known = {"auth_method": "BASIC_AUTH", "basic_auth_user": "any", "basic_auth_pass": "s3cret"}
        added = studio.call("POST", "ml/", json={**backend, **known})
        version = f"alserve-{predictor.engine.sha256[:12]}"
        assert (added["state"], added["model_version"]) == ("CO", version)
        assert studio.call("GET", f"ml/{added['id']}/versions") == {"versions": [version]}
        studio.call("POST", f"ml/{added['id']}/train")
        chosen = {"selectedItems": {"all": True, "excluded": []}, "filters": {"conjunction": "and", "items": []}}
        action = {"id": "retrieve_tasks_predictions", "project": project}
        studio.call("POST", "dm/actions", params=action, json=chosen)

        least_certain_first = {"sampling": "Uncertainty sampling", "model_version": version}
        studio.call("PATCH", f"projects/{project}/", json=least_certain_first)
        least = min(studio.tasks(project)[:3], key=lambda task: task["predictions"][0]["score"])
        assert studio.call("GET", f"projects/{project}/next/")["id"] == least["id"]

    tasks = studio.tasks(project)
    assert [len(task["predictions"]) for task in tasks] == [1, 1, 1, 0, 0]
    for number, task in enumerate(tasks[:3]):
        (prediction,) = task["predictions"]
        (region,) = prediction["result"]
        expected = predictor.predict(tissue(number)).mask()
        found = decode_brush(bytes(region["value"]["rle"]), expected.shape)
        assert (found == expected).mean() > 0.999  # one core or all: the sums differ in their last digits
        assert prediction["model_version"] == version
        assert 0 < prediction["score"] < 1
    assert logged(folder, r"'a b/gone\.png' cannot be read: No such file")
    assert logged(folder, r"'https://example\.org/1\.png' is not fetched")


def truth(table: Path, name: str) -> np.ndarray:
    path = table.parent / Path(name.replace("images/", "masks/", 1)).with_suffix(".png")
    return decode_mask(path.read_bytes())


def painted(mask: np.ndarray, control: Control = TAG, label: str = "foreground") -> dict[str, Any]:
    (region,) = mask_regions(control, label, mask)
    return region


def rectangle(shape: tuple[int, int]) -> tuple[dict[str, Any], np.ndarray]:
    """A polygon in the middle of an image, as Label Studio stores it, and its mask."""
    points = [[20, 20], [70, 20], [70, 80], [20, 80]]
    value = {"points": points, "closed": True, "polygonlabels": ["foreground"]}
    region = {**painted(np.eye(*shape, dtype=bool)), "type": "polygonlabels", "value": value}
    y, x = (100 * (np.arange(side) + 0.5) / side for side in shape)
    return region, ((y > 20) & (y < 80))[:, None] & ((x > 20) & (x < 70))


@dataclass(frozen=True)
class Walk:
    """A run in Label Studio; what is drawn there is drawn for a folder as well."""

    studio: Studio
    project: int
    table: Path
    place: Path

    @property
    def masks(self) -> Path:
        return self.place / "drawing" / "masks"

    def go(self) -> RunResult:
        return train_run(self.table, self.place / "run", TWO_ROUNDS, oracle=f"label-studio:{self.project}")

    def tasks(self) -> list[dict[str, Any]]:
        return self.studio.tasks(self.project)

    def submitted(self) -> list[Any]:
        kept = ("id", "result", "was_cancelled", "updated_at")
        return [[one[name] for name in kept] for task in self.tasks() for one in task["annotations"]]

    def truth(self, task: dict[str, Any]) -> np.ndarray:
        return truth(self.table, task["data"][NAME])

    def draw(self, task: dict[str, Any], mask: np.ndarray) -> None:
        write_atomic(self.file(task, ".png"), encoded(mask.astype(np.uint8) * 255))

    def file(self, task: dict[str, Any], suffix: str) -> Path:
        return (self.masks / task["data"][NAME]).with_suffix(suffix)

    def first_round(self) -> None:
        """A wrong label, nothing painted, a skip, a second thought; then all of it right."""
        assert self.go().waiting
        assert self.studio.call("GET", f"projects/{self.project}/")["label_config"] == CONFIRMING_SETUP
        first = self.tasks()
        assert len(first) == 4
        assert not any(task["predictions"] for task in first)
        for task in first:
            image = self.studio.client.get(task["data"]["image"]).content
            assert image == (self.table.parent / task["data"][NAME]).read_bytes()
        assert self.go().waiting  # nothing was drawn yet: nothing is asked for twice
        assert [task["id"] for task in self.tasks()] == [task["id"] for task in first]

        wrong, empty, skipped, twice = first
        stray = self.studio.submit(wrong["id"], painted(self.truth(wrong), label="rubbish"))
        nothing = self.studio.submit(empty["id"])
        self.studio.submit(skipped["id"], was_cancelled=True)
        with pytest.raises(DataError) as refused:
            self.go()
        page = f"/projects/{self.project}/data?task="
        assert f"{page}{wrong['id']} ({wrong['data'][NAME]}): the label 'rubbish' is not in" in str(refused.value)
        assert f"{page}{empty['id']} ({empty['data'][NAME]}): nothing is painted; paint it, or" in str(refused.value)

        self.studio.correct(stray, painted(self.truth(wrong)))
        confirmed = choice_region(CONFIRM, "empty", self.truth(empty).shape)
        self.studio.correct(nothing, confirmed, painted(self.truth(empty)))
        with pytest.raises(DataError, match="is painted, and 'empty' is chosen as well"):
            self.go()
        self.studio.correct(nothing, confirmed)
        self.studio.submit(twice["id"], painted(np.eye(*self.truth(twice).shape, dtype=bool)))
        self.studio.submit(twice["id"], painted(self.truth(twice)))
        assert self.go().waiting
        (instead,) = self.tasks()[4:]
        assert Path(instead["data"][NAME]).parent == Path(skipped["data"][NAME]).parent  # of the same class
        region, polygon = rectangle(self.truth(instead).shape)
        self.studio.submit(instead["id"], region)

        self.draw(wrong, self.truth(wrong))
        self.draw(empty, np.zeros_like(self.truth(empty)))
        write_atomic(self.file(empty, ".empty"), b"")
        write_atomic(self.file(skipped, ".skip"), b"")
        self.draw(twice, self.truth(twice))
        self.draw(instead, polygon)

    def second_round(self) -> None:
        """The model's masks are there to correct; nothing that was submitted is changed."""
        assert self.go().waiting
        assert len(read_rounds(self.place / "run")) == 1
        second = self.tasks()[5:]
        assert len(second) == 2
        for task in second:
            (prediction,) = task["predictions"]
            assert (prediction["model_version"], len(prediction["result"]) <= 1) == ("alserve", True)
            self.studio.submit(task["id"], painted(self.truth(task)))
            self.draw(task, self.truth(task))
        before = self.submitted()
        result = self.go()
        assert (result.waiting, result.finished) == (False, True)
        assert self.submitted() == before
        for asked in asked_rounds(load(result.model, device="cpu", threads=1), load_dataset(self.table), result, 8):
            assert all(case.truth is not None for case in asked.cases)


def test_a_run_with_label_studio_is_that_with_a_folder(
    studio: Studio, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(URL, f"{studio.url}/")
    monkeypatch.setenv(KEY, studio.personal_token())
    walk = Walk(studio, studio.new_project("drawn"), table, tmp_path)
    run, other, folder = tmp_path / "run", tmp_path / "other", f"folder:{walk.masks.parent}"
    assert train_run(table, other, TWO_ROUNDS, oracle=folder).waiting  # who skips has seen the image
    walk.first_round()
    walk.second_round()
    assert train_run(table, other, TWO_ROUNDS, oracle=folder).finished
    assert [one["asked"] for one in read_rounds(run)] == [one["asked"] for one in read_rounds(other)]
    for name in ("rounds.jsonl", "model.onnx", "state/latest.safetensors"):
        assert (run / name).read_bytes() == (other / name).read_bytes(), name


def test_the_consensus_of_several_people(
    studio: Studio, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each person's last mask is a vote of each pixel, who skips has none, and without agreement people are asked."""
    monkeypatch.setenv(URL, studio.url)
    monkeypatch.setenv(KEY, studio.client.headers["Authorization"].removeprefix("Token "))
    project = studio.new_project("several", CONFIRMING_SETUP)
    latest, together = (open_oracle(f"label-studio:{project}{rule}", tmp_path) for rule in ("", ":consensus"))
    dataset = load_dataset(table)
    samples = dataset.split("train")[:3]
    for oracle in (latest, together):
        oracle.check(dataset, TWO_ROUNDS)
    assert not together.request(samples, None)
    three, two, skipped = studio.tasks(project)
    people = [studio.new_person(name) for name in ("one", "two", "three")]

    def band(place: int, first: int) -> np.ndarray:
        mask = np.zeros(samples[place].read()[0].shape[:2], np.bool_)
        mask[first : first + 20, 5:40] = True
        return mask

    def submit(task: dict[str, Any], person: int, first: int, **more: Any) -> None:
        region = painted(band([three, two, skipped].index(task), first))
        studio.submit(task["id"], region, completed_by=people[person], **more)

    submit(three, 0, 60)  # which is not their last word
    for person, first in ((2, 24), (1, 14), (0, 4)):
        submit(three, person, first)
    submit(three, 1, 60, was_cancelled=True)
    submit(two, 0, 4)
    submit(two, 1, 14)
    for person in (0, 1):
        submit(skipped, person, 4, was_cancelled=True)
    found = together.ask(samples)
    assert not isinstance(found[0], NoMask)
    assert np.flatnonzero(found[0][:, 20]).tolist() == list(range(14, 34))  # each row in two of three
    np.testing.assert_array_equal(found[1], band(1, 4) & band(1, 14))
    assert found[2] is NoMask.EVER
    np.testing.assert_array_equal(latest.ask(samples)[0], band(0, 4))
    said = capsys.readouterr().err
    assert f"({samples[0].name}): was submitted 4 times; what most of 3 people painted counts" in said
    assert f"({samples[0].name}): was submitted 4 times; the latest counts" in said
    submit(two, 1, 60)
    with pytest.raises(DataError, match="no pixel is painted by most of 2 people; let them agree"):
        together.ask(samples)


def test_a_project_that_does_not_fit_is_refused(
    studio: Studio, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(URL, studio.url)
    monkeypatch.setenv(KEY, studio.client.headers["Authorization"].removeprefix("Token "))

    def refused(number: int) -> str:
        with pytest.raises(DataError) as error:
            train_run(table, tmp_path / "run", TWO_ROUNDS, oracle=f"label-studio:{number}")
        assert not (tmp_path / "run").exists()
        return str(error.value)

    choices = '<View><Image name="i" value="$i"/><Choices name="c" toName="i"><Choice value="a"/></Choices></View>'
    assert "has no BrushLabels and no PolygonLabels" in refused(studio.new_project("choices", choices))
    two = SETUP.replace("</BrushLabels>", '<Label value="x"/></BrushLabels>').replace("foreground", "y")
    assert "has no label for masks of class" in refused(studio.new_project("two", two))
    assert "has no project 4711" in refused(4711)
    monkeypatch.setenv(KEY, "wrong")
    assert f"the token in {KEY} is refused" in refused(1)
    monkeypatch.setenv(KEY, "a.b.c")
    assert f"the token in {KEY} is refused" in refused(1)
