"""Masks to and from annotation programs: nothing is lost on the way, and one clear line for what cannot be read."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from command import Cli, assert_refused
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pictures import encoded, picture
from PIL import Image
from pycocotools import mask as coco

from alserve.errors import DataError
from alserve.files import write_atomic
from alserve.images.codec import decode_mask
from alserve.measure.dataset import Dataset, Sample, stem
from training.annotate.annotation_io import _Known
from training.annotate.coco import decode_regions
from training.annotate.formats import Draft, coco_file, label_studio_tasks, read_annotations
from training.annotate.label_studio import decode_brush, encode_brush

Mask = npt.NDArray[np.bool_]

MASKS = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40))

SQUARE = np.zeros((6, 9), np.bool_)
SQUARE[1:4, 2:7] = True
SQUARE[5, 8] = True

# What label-studio-converter 0.0.59 makes of SQUARE with `mask2rle`, and of a picture of 3 x 4 pixels with some paint
# in all channels, of any strength, and colour without alpha in one pixel, with `encode_rle`.
SQUARE_BYTES = "000000d8391bfe2b00c27ff7c0309ffdf00c27ff92c023ff00"
PAINTED_BYTES = "00000030391bfc600003801000480c96c000010008003b00007fc2010ffc2010ffc20007fc6000"
PAINTED = np.array([[0, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 0]], np.bool_)


def blob(height: int = 40, width: int = 60, seed: int = 0) -> Mask:
    return picture(height, width, seed)[..., 0] > 128


def write_json(path: Path, content: object) -> Path:
    write_atomic(path, json.dumps(content).encode())
    return path


def read_one(path: Path) -> Mask:
    (annotation,) = read_annotations(path)
    assert annotation.mask is not None
    return annotation.mask


def test_brush_bytes_are_those_of_label_studio() -> None:
    assert bytes(encode_brush(SQUARE)) == bytes.fromhex(SQUARE_BYTES)[:-1]  # which ends in a byte that nobody reads
    np.testing.assert_array_equal(decode_brush(bytes.fromhex(SQUARE_BYTES), SQUARE.shape), SQUARE)


def test_a_brush_paints_in_alpha_with_any_strength() -> None:
    np.testing.assert_array_equal(decode_brush(bytes.fromhex(PAINTED_BYTES), PAINTED.shape), PAINTED)


@given(MASKS)
def test_a_brush_mask_comes_back(mask: Mask) -> None:
    np.testing.assert_array_equal(decode_brush(bytes(encode_brush(mask)), (mask.shape[0], mask.shape[1])), mask)


@pytest.mark.parametrize("length", [1, 2, 4, 5, 64, 65, 2**14, 2**14 + 1, 3 * 2**14, 100_000])
def test_a_brush_run_of_any_length_comes_back(length: int) -> None:
    mask = np.zeros((1, length + 2), np.bool_)
    mask[0, 1:-1] = True
    np.testing.assert_array_equal(decode_brush(bytes(encode_brush(mask)), (1, length + 2)), mask)


@given(MASKS, st.integers(0, 400))
def test_damaged_brush_bytes_are_an_error_or_a_mask_of_the_right_shape(mask: Mask, place: int) -> None:
    data = bytearray(encode_brush(mask))
    data[place % len(data)] ^= 0x55
    with suppress(ValueError):
        assert decode_brush(bytes(data), (mask.shape[0], mask.shape[1])).shape == mask.shape


@given(MASKS, st.integers(0, 2**16))
def test_run_lengths_as_pycocotools_writes_them_and_damaged_ones(mask: Mask, seed: int) -> None:
    height, width = mask.shape
    text = coco.encode(np.asfortranarray(mask, np.uint8))["counts"].decode()
    np.testing.assert_array_equal(decode_regions([{"size": [height, width], "counts": text}], (height, width)), mask)
    rng = np.random.default_rng(seed)
    damaged = list(text)
    damaged[rng.integers(len(text))] = chr(rng.integers(256))
    with suppress(ValueError, OverflowError):
        region = {"size": [height, width], "counts": "".join(damaged)}
        assert decode_regions([region], (height, width)).shape == mask.shape


@given(st.lists(MASKS, min_size=1, max_size=4))
def test_what_goes_out_as_coco_comes_in_again(tmp_path_factory: pytest.TempPathFactory, masks: list[Mask]) -> None:
    drafts = [Draft(f"a/{i}.png", (m.shape[0], m.shape[1]), m) for i, m in enumerate(masks)]
    found = list(read_annotations(write_json(tmp_path_factory.getbasetemp() / "coco.json", coco_file(drafts))))
    full = [draft for draft in drafts if draft.mask is not None and draft.mask.any()]
    assert [annotation.name for annotation in found] == [draft.name for draft in full]
    for annotation, draft in zip(found, full, strict=True):
        np.testing.assert_array_equal(annotation.mask, draft.mask)


@given(MASKS)
def test_what_goes_out_to_label_studio_comes_in_again(tmp_path_factory: pytest.TempPathFactory, mask: Mask) -> None:
    (task,) = label_studio_tasks([Draft("a b/1.png", (mask.shape[0], mask.shape[1]), mask)], "/data/local-files/?d=")
    assert ("predictions" in task) == mask.any()
    if mask.any():
        path = write_json(tmp_path_factory.getbasetemp() / "tasks.json", [finished(task)])
        (annotation,) = read_annotations(path)
        assert annotation.name == "a b/1.png"
        np.testing.assert_array_equal(annotation.mask, mask)


def finished(task: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A task as Label Studio exports it after somebody accepted the prediction."""
    (prediction,) = task["predictions"]
    return {"data": task["data"], "annotations": [{"result": prediction["result"], "was_cancelled": False, **changes}]}


def test_coco_in_every_writing(tmp_path: Path) -> None:
    """Polygons, with what pycocotools makes of them, run lengths as numbers and as text, several regions an image."""
    mask = blob()
    runs = coco.encode(np.asfortranarray(mask, np.uint8))
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask.ravel(order="F"), [False]]))).tolist()
    ends = [0, *edges] + ([mask.size] if edges[-1] != mask.size else [])
    counts = np.diff(ends).tolist()
    corners = [[10.5, 5.0, 30.0, 8.5, 20.0, 30.0], [40.0, 20.0, 55.0, 20.0, 55.0, 35.0, 40.0, 35.0]]
    polygons = coco.decode(coco.merge(coco.frPyObjects(corners, 40, 60))).astype(bool)
    content = {
        "images": [
            {"id": 7, "file_name": "a\\1.jpg", "height": 40, "width": 60},
            {"id": 8, "file_name": "a/2.jpg", "height": 40, "width": 60},
            {"id": 9, "file_name": "a/3.jpg", "height": 40, "width": 60},
        ],
        "annotations": [
            {"image_id": 7, "segmentation": corners},
            {"image_id": 8, "segmentation": {"size": [40, 60], "counts": runs["counts"].decode()}},
            {"image_id": 8, "segmentation": corners},
        ],
        "categories": [],
    }
    first, second = read_annotations(write_json(tmp_path / "coco.json", content))
    assert (first.name, second.name) == ("a/1.jpg", "a/2.jpg")
    assert first.mask is not None
    assert first.mask[25, 50]
    np.testing.assert_array_equal(first.mask, polygons)
    np.testing.assert_array_equal(second.mask, mask | polygons)
    content["annotations"] = [{"image_id": 7, "segmentation": {"size": [40, 60], "counts": counts}}]
    np.testing.assert_array_equal(read_one(write_json(tmp_path / "coco.json", content)), mask)


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("/data/local-files/?d=tissue/a%20b/1.jpg", "tissue/a b/1.jpg"),
        ("/data/upload/12/3f2a1b9c-1.jpg", "1.jpg"),
        ("s3://bucket/tissue/a/1.jpg", "/tissue/a/1.jpg"),
        ("https://example.org/a/%C3%A4.jpg?token=x", "/a/ä.jpg"),
        ("a\\1.jpg", "a/1.jpg"),
    ],
)
def test_the_image_of_a_label_studio_task(tmp_path: Path, address: str, name: str) -> None:
    (task,) = label_studio_tasks([Draft("x", (40, 60), blob())], "")
    task["data"] = {"other": 3, "picture": address}
    (annotation,) = read_annotations(write_json(tmp_path / "tasks.json", [finished(task)]))
    assert annotation.name == name


def test_label_studio_regions_are_joined_skips_are_kept_and_the_latest_annotation_counts(tmp_path: Path) -> None:
    first, second, third = label_studio_tasks([Draft(f"{n}.png", (40, 60), blob(seed=n)) for n in range(3)], "")
    both = finished(first)
    both["annotations"][0]["result"] += [*second["predictions"][0]["result"], {"type": "choices", "value": {}}]
    latest = finished(second, updated_at="2026-01-01T00:00:00Z")
    latest["annotations"].append({"result": third["predictions"][0]["result"], "updated_at": "2026-02-01T00:00:00Z"})
    skipped = finished(third, was_cancelled=True)
    untouched = {"data": {"image": "4.png"}, "annotations": []}
    found = list(read_annotations(write_json(tmp_path / "tasks.json", [both, latest, skipped, untouched])))
    assert [annotation.name for annotation in found] == ["0.png", "1.png", "2.png"]
    np.testing.assert_array_equal(found[0].mask, blob(seed=0) | blob(seed=1))
    np.testing.assert_array_equal(found[1].mask, blob(seed=2))
    assert found[2].mask is None


@pytest.mark.parametrize(
    "kind", ["grey", "ones", "sixteen bits", "colour", "layer", "black layer", "grey layer", "palette"]
)
def test_masks_from_any_paint_program(tmp_path: Path, kind: str) -> None:
    mask = blob()
    level = mask.astype(np.uint8)
    solid = np.full((*mask.shape, 4), 255, np.uint8)
    pictures: dict[str, Any] = {
        "grey": level * 255,
        "ones": level,
        "sixteen bits": level.astype(np.uint16) * 300,
        "colour": np.dstack([level * 200, level * 0, level * 30]),
        "layer": np.dstack([solid[..., :3], level * 130]),  # white everywhere, seen where it was painted
        "black layer": np.dstack([solid[..., :3] * 0, level * 255]),
        "grey layer": Image.fromarray(np.dstack([solid[..., 0], level * 255]), "LA"),
        "palette": Image.fromarray(level, "P"),
    }
    if kind == "palette":
        pictures["palette"].putpalette([0, 0, 0, 200, 30, 30])
    write_atomic(tmp_path / "a" / "1.png", encoded(pictures[kind]))
    (annotation,) = read_annotations(tmp_path)
    assert annotation.name == "a/1.png"
    np.testing.assert_array_equal(annotation.mask, mask)


COCO: dict[str, Any] = {
    "images": [{"id": 1, "file_name": "1.png", "height": 4, "width": 5}],
    "annotations": [],
    "categories": [],
}


def coco_with(segmentation: object) -> dict[str, Any]:
    return {**COCO, "annotations": [{"image_id": 1, "segmentation": segmentation}]}


REGION = {"annotations": [{"image_id": 1, "segmentation": [[1, 1, 4, 1, 4, 3]]}]}


def task_with(**region: Any) -> list[dict[str, Any]]:
    shape = {"original_height": 4, "original_width": 5}
    return [{"data": {"image": "1.png"}, "annotations": [{"result": [{"type": "brushlabels", **shape, **region}]}]}]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["is no JSON file"]),
        (b'{"images": [', ["is no JSON file, or ends too early"]),
        (b"[1, 2]", ["neither a COCO file nor", "not 'JSON-MIN'"]),
        (coco_with([[1, 2, 3, 4]]), ["1.png", "fewer than three corners"]),
        (coco_with([[1, 2, 3, 4, 1e9, 5]]), ["1.png", "out of the image"]),
        (coco_with([]), ["1.png", "without polygons"]),
        (coco_with({"size": [4, 5], "counts": [3, 4]}), ["1.png", "do not add up to 4 x 5"]),
        (coco_with({"size": [4, 5], "counts": [2**63 - 1, 2**63 - 1, 22]}), ["1.png", "do not add up"]),
        (coco_with({"size": [5, 4], "counts": [20]}), ["1.png", "of size [5, 4], not [4, 5]"]),
        (coco_with({"size": [4, 5], "counts": "zzzzzzzz"}), ["1.png", "'z' in run lengths"]),
        (coco_with({"size": [4, 5], "counts": "ooo"}), ["1.png", "run lengths end too early"]),
        (coco_with({"size": [4, 5], "counts": ["a"]}), ["1.png"]),
        ({**COCO, "annotations": [{"image_id": 3, "segmentation": [[1, 1, 2, 2, 3, 1]]}]}, ["no image with id 3"]),
        ({**COCO, "annotations": [{"image_id": 1}]}, ["annotations.0.segmentation: Field required"]),
        (task_with(value={"format": "rle", "rle": encode_brush(SQUARE)}), ["hold 54 pixels, the image 20"]),
        (task_with(value={"format": "rle", "rle": encode_brush(SQUARE[:4, :5])[:-2]}), ["end too early"]),
        ({**COCO, "images": [{**COCO["images"][0], "width": 10**9}]}, ["is said to have 1000000000 x 4 pixels"]),
        ([{"data": {"image": 3}, "annotations": [{"result": []}]}], ["a task names no image"]),
        (task_with(value={"format": "rle", "rle": [300]}), ["a mask cannot be read"]),
        (task_with(value={"format": "rle", "rle": []}, image_rotation=90), ["1.png", "annotate it upright"]),
        (task_with(type="polygonlabels", value={}), ["polygonlabels", "use the brush"]),
        (b"[" * 100_000, ["is no JSON file"]),
        (b"[" * 900 + b"]" * 900, ["neither a COCO file nor"]),
        (
            json.dumps(coco_with([[1, 1, 2, 2, 3, 7777]])).replace("7777", "1e400").encode(),
            ["1.png", "out of the image"],
        ),
        (json.dumps(coco_with([[1, 1, 2, 2, 3, 7777]])).replace("7777", "NaN").encode(), ["1.png", "out of the image"]),
        (json.dumps(coco_with(7777)).replace("7777", "[" * 800 + "]" * 800).encode(), ["1.png"]),
        (coco_with({"size": [4, 5], "counts": [20.5]}), ["1.png", "no whole numbers"]),
        (coco_with({"size": [4, 5], "counts": [2**70]}), ["1.png", "no whole numbers"]),
        (coco_with({"size": [4, 5], "counts": {}}), ["1.png", "no whole numbers"]),
        (coco_with({"size": 4, "counts": []}), ["a mask cannot be read"]),
        (coco_with({}), ["'size' is missing"]),
        (coco_with(None), ["a mask cannot be read"]),
        (coco_with(3), ["a mask cannot be read"]),
        (coco_with([3]), ["1.png", "fewer than three corners"]),
        (coco_with([["a"] * 6]), ["1.png"]),
        (coco_with([[0, 0, 5, 4, 0, 4] * 400_000]), ["1.png", "longer than 4,000,000 pixels"]),
        ({**COCO, "images": [{**COCO["images"][0], "width": 10**400}]}, ["is said to have"]),
        (json.dumps({**COCO, "images": [{**COCO["images"][0], "width": 7777}]}).replace("7777", "1e400"), ["width"]),
        ({**COCO, "images": [{**COCO["images"][0], "file_name": ""}], **REGION}, ["'' names no image"]),
        ({**COCO, "images": [{**COCO["images"][0], "file_name": "a/.."}], **REGION}, ["'a/..' names no image"]),
        ({**COCO, "images": [{**COCO["images"][0], "file_name": 3}]}, ["images.0.file_name", "string"]),
        ({**COCO, "images": [{**COCO["images"][0], "file_name": "\ud800.png"}], **REGION}, ["\\ud800.png' is no text"]),
        ({**COCO, "images": [{**COCO["images"][0], "file_name": "con.png"}], **REGION}, ["'con.png'", "Windows"]),
        ({**COCO, "images": [{**COCO["images"][0], "file_name": "a\nb.png"}], **REGION}, ["'a\\nb.png'", "control"]),
        ({**COCO, "images": [{**COCO["images"][0], "id": []}]}, ["images.0.id"]),
        ({**COCO, "images": COCO["images"] * 2}, ["two images have the same id"]),
        ({**COCO, "images": 3}, ["images: Input should be a valid list"]),
        ([{"data": {"image": "\ud800.png"}, "annotations": [{"result": [], "was_cancelled": True}]}], ["is no text"]),
        ([{"data": {"image": "http://["}, "annotations": [{"result": []}]}], ["a mask cannot be read"]),
        ([{"data": {"image": "a/"}, "annotations": [{"result": []}]}], ["'a/' names no image"]),
        ([{"data": 3, "annotations": []}], ["0.data", "dictionary"]),
        ([{"data": {}, "annotations": 3}], ["0.annotations"]),
        (task_with(value={"format": "rle", "rle": 10**12}), ["1.png", "no list of bytes"]),
        (task_with(value={"format": "rle", "rle": ["a"]}), ["a mask cannot be read"]),
        (task_with(value={"format": "rle", "rle": [255] * 40}), ["hold 1073741823 pixels, the image 20"]),
        (task_with(value={"format": "rle", "rle": []}, original_height="x"), ["original_height"]),
        (task_with(value=[]), ["value"]),
    ],
)
def test_what_cannot_be_read_is_said(tmp_path: Path, cli: Cli, content: object, words: list[str]) -> None:
    path = tmp_path / "file.json"
    if isinstance(content, str):
        content = content.encode()
    write_atomic(path, content if isinstance(content, bytes) else json.dumps(content).encode())
    assert_refused(cli("masks", "import", path, "--out", tmp_path / "out"), "file.json", *words)
    assert not (tmp_path / "out").exists()


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
    assert_refused(cli("masks", "import", write_json(tmp_path / "e.json", COCO), "--out", out), "holds no mask")
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


def test_a_brush_of_a_large_image_is_decoded() -> None:
    """As Label Studio writes it where little repeats: every value by itself."""
    alpha = picture(400, 600)[..., 0] > 128
    values = np.dstack([picture(400, 600), alpha * np.uint8(255)]).ravel()
    bits = f"{values.size:032b}{7:05b}{2:04b}{3:04b}{7:04b}{15:04b}"
    for start in range(0, values.size, 1 << 16):
        part = values[start : start + (1 << 16)]
        bits += f"011{len(part) - 1:016b}" + "".join(np.char.mod("%d", np.unpackbits(part)).tolist())
    data = int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")
    np.testing.assert_array_equal(decode_brush(data, (400, 600)), alpha)


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
    assert (code, said) == (0, f"1 to draw, 1 with a draft, in {tmp_path / 'ls.json'}\n")
    (task,) = json.loads((tmp_path / "ls.json").read_text())
    assert task["data"]["image"] == "/data/local-files/?d=a/1.jpg"

    write_atomic(tmp_path / "drafts" / "a" / "1.png", encoded(np.ones((4, 6), np.uint8)))
    assert_refused(cli("masks", "export", tmp_path, "--out", tmp_path / "x.json"), "a/1.png", "6 x 4", "60 x 40")


def test_reading_a_damaged_picture_names_it(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a" / "1.png", b"hello")
    with pytest.raises(DataError, match=r"1\.png: not an image"):
        list(read_annotations(tmp_path))
