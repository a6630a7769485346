"""What a folder run writes of all its images: the files that outputs have for all, the table, and the page."""

import csv
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from command import Cli
from folders import contents, manifest, write_picture
from pycocotools.coco import COCO

from alserve.files import write_atomic
from alserve.folder.summary import BINS
from alserve.images.codec import decode_mask

SAVE = ("--save", "mask,coco,objects,label-studio", "--threshold", "0.4")
JOINED = ("coco.json", "objects.csv", "label-studio.json", "summary.csv")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Pictures in folders, in some of which something is found at a threshold of 0.4, and a damaged one."""
    for seed, name in enumerate(("a.png", "b.png", "sub/a.png", "sub/deep/c.png")):
        write_picture(tmp_path / "in" / name, 96, 128, seed)
    write_atomic(tmp_path / "in" / "broken.png", b"nothing")
    return tmp_path / "in"


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_coco_of_a_run_is_read_by_pycocotools_as_the_masks(cli: Cli, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert cli("segment", source, "--out", out, *SAVE)[0] == 1
    coco = COCO(out / "coco.json")
    names = {row["path"]: row["name"] for row in manifest(out) if row["status"] == "ok"}
    assert {image["file_name"] for image in coco.dataset["images"]} == names.keys()
    assert [each["id"] for each in coco.dataset["annotations"]] == list(range(1, len(coco.anns) + 1))
    assert len(coco.anns) > len(names)
    for number, image in coco.imgs.items():
        mask = decode_mask((out / "masks" / names[image["file_name"]]).read_bytes())
        annotations = coco.imgToAnns[number]
        drawn = np.zeros(mask.shape, np.bool_)
        for annotation in annotations:
            drawn |= coco.annToMask(annotation).astype(np.bool_)
        assert (drawn & mask).sum() >= 0.98 * (drawn | mask).sum()
        assert sum(annotation["area"] for annotation in annotations) == mask.sum()


def test_tables_have_all_objects_and_all_images(cli: Cli, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    cli("segment", source, "--out", out, *SAVE)
    objects, images = table(out / "objects.csv"), table(out / "summary.csv")
    rows = manifest(out)
    assert [image["image"] for image in images] == [row["path"] for row in rows]
    for row, image in zip(rows, images, strict=True):
        assert image["status"] == row["status"]
        assert image["error"] == (row["error"] or "")
        own = [each for each in objects if each["image"] == row["path"]]
        if row["status"] == "ok":
            assert len(own) == row["objects"] == int(image["objects"])
            pixels = sum(int(each["area"]) for each in own)
            assert pixels == round(float(image["foreground"]) * row["height"] * row["width"])
            assert {name: float(image[f"score {name}"]) for name in row["scores"]} == row["scores"]


def test_tasks_of_label_studio_are_in_one_file(cli: Cli, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    cli("segment", source, "--out", out, *SAVE)
    tasks = json.loads((out / "label-studio.json").read_bytes())
    done = [row for row in manifest(out) if row["status"] == "ok"]
    assert [task["data"]["image"] for task in tasks] == [f"/data/local-files/?d={row['path']}" for row in done]


def test_they_follow_when_a_run_goes_on(cli: Cli, source: Path, tmp_path: Path) -> None:
    whole, stepwise = tmp_path / "whole", tmp_path / "stepwise"
    cli("segment", source, "--out", whole, *SAVE)
    late = (source / "sub" / "a.png").rename(tmp_path / "late.png")
    cli("segment", source, "--out", stepwise, *SAVE)
    assert len(json.loads((stepwise / "coco.json").read_bytes())["images"]) == 3
    late.rename(source / "sub" / "a.png")
    cli("segment", source, "--out", stepwise, *SAVE)
    for name in JOINED:
        assert (stepwise / name).read_bytes() == (whole / name).read_bytes()


def test_shards_that_are_merged_have_them_as_well(cli: Cli, source: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", [tmp_path / "one", tmp_path / "two"]
    cli("segment", source, "--out", whole, *SAVE)
    for shard, part in enumerate(parts, start=1):
        cli("segment", source, "--out", part, *SAVE, "--shard", f"{shard}/2")
        assert not contents(part).keys() & {*JOINED, "summary.html"}
    assert cli("merge", *parts)[0] == 1
    for name in JOINED:
        assert (parts[0] / name).read_bytes() == (whole / name).read_bytes()


def test_a_file_that_is_gone_is_counted(cli: Cli, source: Path, tmp_path: Path) -> None:
    parts = [tmp_path / "one", tmp_path / "two"]
    for shard, part in enumerate(parts, start=1):
        cli("segment", source, "--out", part, *SAVE, "--shard", f"{shard}/2")
    next(path for part in parts for path in part.rglob("coco/*.json")).unlink()
    _, _, said = cli("merge", *parts)
    assert "coco.json: without 1 of 4 images, whose files in coco/ cannot be read" in said
    assert len(json.loads((parts[0] / "coco.json").read_bytes())["images"]) == 3


def test_the_page_counts_images_by_their_objects(cli: Cli, source: Path, tmp_path: Path) -> None:
    cli("segment", source, "--out", tmp_path / "out", *SAVE)
    counts = Counter(row["objects"] for row in manifest(tmp_path / "out") if row["status"] == "ok")
    page = (tmp_path / "out" / "summary.html").read_text()
    (label,) = re.findall(r'aria-label="Objects in an image: ([^"]*)"', page)
    assert max(counts) < BINS  # a bar for each number
    assert label == "; ".join(f"{objects}: {counts[objects]}" for objects in sorted(counts))


def test_the_page_shows_the_run_and_escapes_names(cli: Cli, source: Path, tmp_path: Path) -> None:
    write_picture(source / "<b>&.png", 96, 128, 7)
    cli("segment", source, "--out", tmp_path / "out", "--save", "overlay")
    page = (tmp_path / "out" / "summary.html").read_text()
    assert "5 images" in page
    assert "1 more could not be used" in page
    assert "not an image of a known kind" in page
    assert "&lt;b&gt;&amp;.png" in page
    assert 'src="overlays/%3Cb%3E%26.png"' in page
    assert "<b>&.png" not in page
    assert "http" not in page


def test_a_run_of_nothing_but_damaged_images(cli: Cli, tmp_path: Path) -> None:
    write_atomic(tmp_path / "in" / "broken.png", b"nothing")
    out = tmp_path / "out"
    assert cli("segment", tmp_path / "in", "--out", out, *SAVE)[0] == 1
    (row,) = table(out / "summary.csv")
    assert row["status"] == "error"
    assert "could not be used" in (out / "summary.html").read_text()


def test_a_page_that_cannot_be_written_is_one_line(cli: Cli, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    cli("segment", source, "--out", out, "--save", "mask")
    (out / "summary.html").unlink()
    write_atomic(out / "summary.html" / "file", b"")
    code, _, said = cli("segment", source, "--out", out, "--save", "mask")
    assert code == 2
    assert "summary.html: cannot be written" in said.splitlines()[-1]


def test_files_that_are_not_of_a_run_are_not_written_over(cli: Cli, source: Path, tmp_path: Path) -> None:
    for name in (*JOINED, "summary.html"):
        write_atomic(tmp_path / name / name, b"mine")
        code, _, said = cli("segment", source, "--out", tmp_path / name, *SAVE)
        assert (code, (tmp_path / name / name).read_bytes()) == (2, b"mine")
        assert f"{name}: exists already; use --overwrite or another --out" in said
