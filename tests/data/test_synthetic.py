"""The drawn tissue: the same from the same seed, whole, and not to be told apart or segmented by colour."""

import csv
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from alserve import Predictor
from alserve.images.codec import decode_mask, read_image
from alserve.measure.metrics import dice
from training.data.synthetic import draw_dataset
from training.data.tissue import CLASSES, draw_tissue

TRAIN, TEST, SIZE = 20, 10, (240, 320)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tissue")
    return draw_dataset(out, seed=5, train_per_class=TRAIN, test_per_class=TEST, size=SIZE)


@pytest.fixture(scope="module")
def rows(table: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(table.open()))


@pytest.fixture(scope="module")
def images(table: Path, rows: list[dict[str, str]]) -> list[npt.NDArray[np.uint8]]:
    return [read_image(table.parent / row["image"]) for row in rows]


@pytest.fixture(scope="module")
def masks(table: Path, rows: list[dict[str, str]]) -> list[npt.NDArray[np.bool_]]:
    return [decode_mask((table.parent / row["mask"]).read_bytes()) for row in rows]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_seed_gives_the_same_bytes_and_another_seed_other_ones(tmp_path: Path) -> None:
    for name, seed in (("first", 1), ("again", 1), ("other", 2)):
        draw_dataset(tmp_path / name, seed=seed, train_per_class=1, test_per_class=1, size=(96, 128))
    first, again, other = (files(tmp_path / name) for name in ("first", "again", "other"))
    assert first == again
    assert len(first) == 9
    assert all(first[name] != other[name] for name in first if name != "data.csv")


def test_a_larger_data_set_begins_with_the_smaller_one(tmp_path: Path) -> None:
    for count in (1, 2):
        draw_dataset(tmp_path / str(count), seed=0, train_per_class=count, test_per_class=1, size=(96, 128))
    small, large = files(tmp_path / "1"), files(tmp_path / "2")
    assert all(large[name] == data for name, data in small.items() if name != "data.csv")


def test_every_class_has_as_many_images_in_each_split(rows: list[dict[str, str]]) -> None:
    for label in CLASSES:
        splits = [row["split"] for row in rows if row["label"] == label]
        assert (splits.count("train"), splits.count("test"), len(splits)) == (TRAIN, TEST, TRAIN + TEST)


def test_masks_fit_their_images_and_hold_gland_and_ground(
    images: list[npt.NDArray[np.uint8]], masks: list[npt.NDArray[np.bool_]]
) -> None:
    for image, mask in zip(images, masks, strict=True):
        assert mask.shape == image.shape[:2]
        assert 0.05 < mask.mean() < 0.5
        assert all(0.9 <= side / wanted <= 1.1 for side, wanted in zip(mask.shape, SIZE, strict=True))
    assert len({mask.shape for mask in masks}) > 1


def test_masks_hold_only_0_and_255(table: Path, rows: list[dict[str, str]]) -> None:
    data = (table.parent / rows[0]["mask"]).read_bytes()
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert pixels is not None
    assert pixels.ndim == 2
    assert set(np.unique(pixels)) == {0, 255}


def test_mean_colour_does_not_tell_the_classes_apart(
    rows: list[dict[str, str]], images: list[npt.NDArray[np.uint8]]
) -> None:
    colours = np.array([image.mean(axis=(0, 1)) for image in images])
    labels = np.array([row["label"] == "regular" for row in rows])
    train = np.array([row["split"] == "train" for row in rows])
    features = {"red": colours[:, 0], "green": colours[:, 1], "blue": colours[:, 2], "grey": colours.mean(1)}
    for name, values in features.items():
        cut, above = max(
            ((cut, above) for cut in values[train] for above in (True, False)),
            key=lambda rule: ((values[train] > rule[0]) == (labels[train] == rule[1])).mean(),
        )
        accuracy = ((values[~train] > cut) == (labels[~train] == above)).mean()
        assert accuracy < 0.7, name


def test_roundness_does_tell_the_classes_apart(rows: list[dict[str, str]], masks: list[npt.NDArray[np.bool_]]) -> None:
    """Solidity, the share of its convex hull that a gland fills, is a matter of shape alone."""
    solidity = []
    for mask in masks:
        outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        largest = max(outlines, key=cv2.contourArea)
        parts = [part for part in outlines if cv2.contourArea(part) > cv2.contourArea(largest) / 4]
        solidity.append(np.mean([cv2.contourArea(part) / cv2.contourArea(cv2.convexHull(part)) for part in parts]))
    regular = np.array([row["label"] == "regular" for row in rows])
    values = np.array(solidity)
    assert max(((values > cut) == regular).mean() for cut in values) > 0.9


def test_a_threshold_on_colour_does_not_find_the_glands(
    images: list[npt.NDArray[np.uint8]], masks: list[npt.NDArray[np.bool_]]
) -> None:
    """Otsu's threshold on any channel, its better side, after the best of some blurs."""
    for blur in (1, 3, 6):
        for channel in range(6):
            figures = []
            for image, mask in zip(images[::3], masks[::3], strict=True):
                planes = np.concatenate([image, cv2.cvtColor(image, cv2.COLOR_RGB2HSV)], axis=2)
                plane = cv2.GaussianBlur(np.ascontiguousarray(planes[..., channel]), (0, 0), blur)
                _, above = cv2.threshold(plane, 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
                figures.append([dice(above > 0, mask), dice(above == 0, mask)])
            assert np.mean(figures, axis=0).max() < 0.8, (blur, channel)


def test_the_demo_model_tells_the_classes_apart_by_the_glands(predictor: Predictor) -> None:
    """On images that it has not seen: label, mask, and the CAM, which is stronger in the glands than outside."""
    right, figures, stronger = [], [], []
    for seed in range(16):
        label = CLASSES[seed % 2]
        image, mask = draw_tissue(np.random.default_rng([11, seed]), label, SIZE)
        prediction = predictor.predict(image)
        cam = prediction.cam()
        right.append(prediction.label == label)
        figures.append(dice(prediction.mask(), mask))
        stronger.append(cam[mask].mean() > cam[~mask].mean())
    assert np.mean(right) > 0.9
    assert np.mean(figures) > 0.8
    assert np.mean(stronger) > 0.9


def test_images_differ_in_stain() -> None:
    drawn = [draw_tissue(np.random.default_rng(seed), "regular", (48, 64))[0] for seed in range(24)]
    redness = [float(image[..., 0].mean() - image[..., 2].mean()) for image in drawn]
    assert min(redness) < -30
    assert max(redness) > 5
