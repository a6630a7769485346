"""The oracle of Label Studio without a Label Studio: what is wrong is said in one line, before a run begins."""

from pathlib import Path
from random import Random

import httpx
import numpy as np
import pytest
from command import Cli, assert_refused
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pictures import encoded, picture

from alserve.arrays import Mask
from alserve.files import write_atomic
from alserve.label_studio.config import read_config
from training.annotate.formats.label_studio import SETUP, Submitted
from training.annotate.label_studio import CONFIRMING_SETUP, consensus
from training.annotate.label_studio_api import KEY, URL


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for name in ("a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg"):
        write_atomic(tmp_path / "data" / name, encoded(picture(40, 60, sum(name.encode())), "JPEG"))
    return tmp_path / "data"


SECRET = "53cret"  # noqa: S105

CLOSED = "http://127.0.0.1:9"
"""Where nobody answers: the port of the discard protocol."""


@pytest.mark.parametrize(
    ("project", "url", "key", "words"),
    [
        ("three", CLOSED, SECRET, ["--oracle label-studio:three", "give the project's number"]),
        ("-3", CLOSED, SECRET, ["give the project's number"]),
        (
            "3:consent",
            CLOSED,
            SECRET,
            ["label-studio:3:consent", "the latest mask counts", "give label-studio:3:consensus"],
        ),
        ("3:", CLOSED, SECRET, ["give label-studio:3:consensus"]),
        ("3:consensus", CLOSED, SECRET, ["Label Studio cannot be reached"]),
        ("3", "", SECRET, [f"needs the variable {URL}"]),
        ("3", "localhost:8080", SECRET, [f"needs the variable {URL}"]),
        ("3", "file:///etc", SECRET, [f"needs the variable {URL}"]),
        ("3", CLOSED, "", [f"needs the variable {KEY}"]),
        ("3", CLOSED, "53\ncret", [f"needs the variable {KEY}"]),
        ("3", CLOSED, SECRET, ["Label Studio cannot be reached", f"check {URL}"]),
        ("3", CLOSED, f"{SECRET}.b.c", ["Label Studio cannot be reached"]),
        ("3", "http://[", SECRET, ["Label Studio cannot be reached"]),
    ],
)
def test_what_is_missing_is_said(
    data: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, project: str, url: str, key: str, words: list[str]
) -> None:
    monkeypatch.setenv(URL, url)
    monkeypatch.setenv(KEY, key)
    out = data.parent / "run"
    result = cli("train", data, "--out", out, "--oracle", f"label-studio:{project}", "--initial", 1, "--rounds", 1)
    assert_refused(result, *words)
    assert SECRET not in result[2]
    assert not out.exists()


def test_a_person_is_known_by_number_whatever_else_is_told() -> None:
    told = [3, {"id": 3, "email": "a@b.c"}, {"id": 3, "last_activity": "now"}, 4, None]
    people = [Submitted.model_validate({"result": [], "completed_by": each}).person for each in told]
    assert people[0] == people[1] == people[2]
    assert len(set(people)) == 3


def test_another_server_is_not_taken_for_label_studio(
    data: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, client: httpx.Client
) -> None:
    monkeypatch.setenv(URL, str(client.base_url))
    monkeypatch.setenv(KEY, SECRET)
    out = data.parent / "run"
    result = cli("train", data, "--out", out, "--oracle", "label-studio:3", "--initial", 1, "--rounds", 1)
    assert_refused(result, "has no project 3")


@given(st.lists(hnp.arrays(np.bool_, (4, 5)), min_size=1, max_size=7), st.randoms())
def test_a_consensus_is_of_most_people_in_any_order(masks: list[Mask], random: Random) -> None:
    votes = np.sum(masks, axis=0)
    expected = votes > len(masks) / 2
    random.shuffle(masks)
    if not expected.any() and sum(mask.any() for mask in masks) >= len(masks) / 2:
        with pytest.raises(ValueError, match=f"most of {len(masks)} people"):
            consensus(masks)
    else:
        np.testing.assert_array_equal(consensus(masks), expected)


def test_the_configuration_that_is_set_draws_what_files_draw() -> None:
    brush, confirm = read_config(CONFIRMING_SETUP)
    assert (brush,) == read_config(SETUP)
    assert (confirm.kind, confirm.image, confirm.labels) == ("Choices", brush.image, ("empty", "full"))
