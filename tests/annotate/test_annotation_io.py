"""Import and export of masks: names and sizes of the data set's images, and nothing of it is ever replaced."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from annotations import assert_import_refused, blob, write_json
from command import Cli, assert_refused
from pictures import encoded, picture
from pycocotools import mask as coco

from alserve.errors import OptionError
from alserve.files import write_atomic
from alserve.images.codec import decode_mask
from alserve.measure.dataset import Dataset, Sample
from alserve.measure.folders import stem
from training.annotate.annotation_io import _Known, export_masks
from training.annotate.formats import Draft
from training.annotate.formats.coco import coco_file
from training.annotate.formats.label_studio import SETUP


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for name in ("a/1.jpg", "a/2.jpg", "b/1.jpg"):
        write_atomic(tmp_path / "data" / name, encoded(picture(40, 60), "JPEG"))
    return tmp_path / "data"


def sources(folder: Path, names: list[str], shape: tuple[int, int] = (40, 60)) -> Path:
    return write_json(folder / "coco.json", coco_file([Draft(name, shape, blob(*shape)) for name in names]))


def test_masks_get_the_names_of_the_images(cli: Cli, tmp_path: Path, data: Path) -> None:
    source = sources(tmp_path, ["/somewhere/else/a/1.jpg", "2.jpg", "3f2a1b9c-9.jpg"])
    code, said, warned = cli("masks", "import", source, "--out", tmp_path / "out", "--data", data)
    assert (code, said) == (0, f"2 masks, in {tmp_path / 'out'}\n")
    assert "3f2a1b9c-9.jpg: no such image" in warned
    assert sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.*")) == [
        "a/1.png",
        "a/2.png",
    ]
    pixels = cv2.imdecode(np.frombuffer((tmp_path / "out" / "a" / "1.png").read_bytes(), np.uint8), -1)
    np.testing.assert_array_equal(pixels, blob() * np.uint8(255))


def test_masks_without_a_data_set_keep_their_names_below_the_folder(cli: Cli, tmp_path: Path) -> None:
    source = sources(tmp_path, ["a/1.jpg", "../../2.jpg", "/etc/3.jpg"])
    assert cli("masks", "import", source, "--out", tmp_path / "out")[0] == 0
    names = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.png"))
    assert names == ["2.png", "3.png", "a/1.png"]


def test_import_refuses(cli: Cli, tmp_path: Path, data: Path) -> None:
    out = tmp_path / "out"

    def refused(names: list[str], *words: str, shape: tuple[int, int] = (40, 60)) -> None:
        before = sorted(out.rglob("*"))
        source = sources(tmp_path, names, shape)
        assert_refused(cli("masks", "import", source, "--out", out, "--data", data), *words)
        assert sorted(out.rglob("*")) == before

    refused(["1.jpg"], "1.jpg: may be a/1 or b/1")
    refused(["a/1.jpg", "x/a/1.jpg"], "two masks of a/1")
    refused(["a/1.jpg"], "a/1.jpg", "60 x 41", "60 x 40", shape=(41, 60))
    assert_refused(cli("masks", "import", tmp_path / "no", "--out", out), "no: no such file or folder")
    assert_refused(
        cli("masks", "import", write_json(tmp_path / "e.json", coco_file([])), "--out", out), "holds no mask"
    )
    write_atomic(out / "a" / "2.png", encoded(np.ones((40, 60), np.uint8)))
    refused(["a/1.jpg", "a/2.jpg"], "a/2.png: is there already, and differs", "--overwrite")
    source = sources(tmp_path, ["a/2.jpg"])
    assert cli("masks", "import", source, "--out", out, "--data", data, "--overwrite")[0] == 0
    np.testing.assert_array_equal(decode_mask((out / "a" / "2.png").read_bytes()), blob())
    assert cli("masks", "import", source, "--out", out, "--data", data)[0] == 0  # the same again changes nothing


@pytest.mark.parametrize("place", ["absolute", "above", "linked", "beside", "the folder itself"])
def test_import_never_touches_the_images(cli: Cli, tmp_path: Path, place: str) -> None:
    photos = tmp_path / "photos"
    for number, name in enumerate(("1.png", "2.png")):
        write_atomic(photos / name, encoded(picture(40, 60, number)))
    table, out = tmp_path / "csv" / "data.csv", tmp_path / "out"
    names = {"absolute": photos.as_posix(), "above": "../photos", "linked": "photos", "beside": "../photos"}
    write_atomic(
        table, "".join(["image,label\n", *(f"{names.get(place, '.')}/{n}.png,{n}\n" for n in (1, 2))]).encode()
    )
    words = {"absolute": "lies outside the CSV's folder", "above": "lies outside the CSV's folder"}.get(place, "")
    if place == "linked":
        out.mkdir()
        (table.parent / "photos").symlink_to(photos)
        (out / "photos").symlink_to(photos)
        words = "a symbolic link leads out of"
    elif place == "beside":
        table.rename(photos / "data.csv")
        table, out, words = photos / "data.csv", photos, "is an image of"
        table.write_text("image,label\n1.png,1\n2.png,2\n")
    elif place == "the folder itself":
        for number in (1, 2):
            write_atomic(photos / str(number) / "a.png", encoded(picture(40, 60, number)))
            (photos / f"{number}.png").unlink()
        table, out, words = photos, photos, "lies in the data set"
    before = {path: path.read_bytes() for path in photos.rglob("*.png")}
    source = sources(tmp_path, ["1.png" if place != "the folder itself" else "1/a.png"])
    command = ("masks", "import", source, "--out", out, "--data", table, "--overwrite")
    assert_refused(cli(*command), words)
    assert {path: path.read_bytes() for path in photos.rglob("*.png")} == before


def test_photographs_are_no_masks(cli: Cli, tmp_path: Path, data: Path) -> None:
    def refused(folder: Path, *words: str) -> None:
        assert_refused(cli("masks", "import", folder, "--out", tmp_path / "out", "--data", data), *words)
        assert not (tmp_path / "out").exists()

    refused(data, "is an image of", "name the folder of masks")
    masks = tmp_path / "masks" / "a"
    write_atomic(masks / "1.png", encoded(picture(40, 60), "JPEG"))
    refused(masks, "1.png: a JPEG blurs the outline")
    photo = picture(40, 60) | np.uint8(1)
    photo[:2, :2] = 0
    write_atomic(masks / "1.png", encoded(photo))
    refused(masks, "1.png: 99.8 % of it are not black, as in a photograph", "1.full")
    write_atomic(masks / "1.png", encoded(np.ones((40, 60), np.uint8)))
    refused(masks, "1.png: has no background", "1.full")
    write_atomic(masks / "1.full", b"")
    assert cli("masks", "import", masks.parent, "--out", tmp_path / "out", "--data", data)[0] == 0


def test_thousands_of_annotations_find_their_images_at_once(tmp_path: Path) -> None:
    names = [f"{'deep/' * 9}{number}/image.png" for number in range(3000)]
    samples = tuple(Sample(name, tmp_path / name, 0, None, "train") for name in names)
    known = _Known(Dataset(tmp_path, ("a",), samples))
    assert [known.find(f"somewhere/{name}") for name in names] == [stem(name) for name in names]
    assert known.find("/".join(["x"] * 100_000)) is None


def test_export_gives_what_is_still_to_be_drawn_with_its_draft(cli: Cli, tmp_path: Path, data: Path) -> None:
    assert_refused(cli("masks", "export", tmp_path / "work", "--out", tmp_path / "out.json"), "nothing is to be drawn")
    data.rename(tmp_path / "images")
    write_atomic(tmp_path / "drafts" / "a" / "1.png", encoded(blob().astype(np.uint8) * 255))
    write_atomic(tmp_path / "masks" / "b" / "1.png", encoded(blob().astype(np.uint8)))
    assert cli("masks", "export", tmp_path, "--out", tmp_path / "coco.json")[0] == 0
    content = json.loads((tmp_path / "coco.json").read_text())
    assert [image["file_name"] for image in content["images"]] == ["a/1.jpg", "a/2.jpg"]
    (annotation,) = content["annotations"]
    np.testing.assert_array_equal(coco.decode(annotation["segmentation"]), blob())
    assert annotation["area"] == blob().sum()
    assert annotation["bbox"] == coco.toBbox(annotation["segmentation"]).tolist()

    write_atomic(tmp_path / "masks" / "a" / "2.skip.txt", b"")
    code, said, _ = cli("masks", "export", tmp_path, "--out", tmp_path / "ls.json", "--format", "label-studio")
    assert code == 0
    assert said.startswith(f"1 to draw, 1 with a draft, in {tmp_path / 'ls.json'}\n")
    assert said.endswith(f"{SETUP}\n")
    (task,) = json.loads((tmp_path / "ls.json").read_text())
    assert task["data"]["image"] == "/data/local-files/?d=a/1.jpg"

    write_atomic(tmp_path / "drafts" / "a" / "1.png", encoded(np.ones((4, 6), np.uint8)))
    assert_refused(cli("masks", "export", tmp_path, "--out", tmp_path / "x.json"), "a/1.png", "6 x 4", "60 x 40")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["is no JSON file"]),
        (b"PK\x05\x06" + bytes(18), ["is a zip archive; unpack it"]),
        (b"[1, 2]", ["is none of: a COCO file, ", "not 'JSON-MIN'", "a folder of masks"]),
        (b"[" * 100_000, ["is no JSON file"]),
        (b"[" * 900 + b"]" * 900, ["is none of: a COCO file, "]),
    ],
)
def test_files_of_no_known_format(tmp_path: Path, cli: Cli, content: object, words: list[str]) -> None:
    assert_import_refused(cli, tmp_path, content, words)


def test_formats_that_are_not_written(cli: Cli, tmp_path: Path) -> None:
    command = ("masks", "export", tmp_path, "--out", tmp_path / "x.json", "--format")
    assert_refused(cli(*command, "label_studio"), "--format", "did you mean label-studio?")
    assert_refused(
        cli(*command, "pictures"), "'pictures' is unknown; there are coco, coco-polygons, cvat, label-studio"
    )
    with pytest.raises(OptionError, match="is only read; use one of: coco, coco-polygons, cvat, label-studio"):
        export_masks(tmp_path, tmp_path / "x.json", "pictures", "")
