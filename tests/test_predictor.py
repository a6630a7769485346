"""Images in, predictions out: sizes, ranges, batches."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import Pixels, encoded, picture

from alserve import Prediction, Predictor
from alserve.errors import ImageError
from alserve.geometry import working_shape


@pytest.fixture(scope="module")
def prediction(predictor: Predictor) -> Prediction:
    return predictor.predict([picture(150, 211)])[0]


def test_everything_has_the_size_of_the_image(prediction: Prediction) -> None:
    assert (prediction.height, prediction.width) == (150, 211)
    for view in (prediction.mask(), prediction.probability(), prediction.cam()):
        assert view.shape == (150, 211)
    assert prediction.mask().dtype == np.bool_
    assert prediction.cam().dtype == prediction.probability().dtype == np.float32


def test_ranges(prediction: Prediction) -> None:
    for view in (prediction.probability(), prediction.cam()):
        assert view.min() >= 0
        assert view.max() <= 1
    assert sum(prediction.scores.values()) == pytest.approx(1, abs=1e-5)


def test_label_is_the_class_with_the_highest_score(prediction: Prediction) -> None:
    assert prediction.label == max(prediction.scores, key=lambda name: prediction.scores[name])
    assert tuple(prediction.scores) == prediction.spec.classes


def test_mask_is_the_probability_above_the_threshold(prediction: Prediction) -> None:
    np.testing.assert_array_equal(prediction.mask(), prediction.probability() > prediction.spec.threshold)
    ramp = np.tile(np.linspace(0, 1, 8, dtype=np.float32), (8, 1))
    drawn = replace(prediction, working_probability=ramp, height=8, width=8)
    assert [int(drawn.mask(threshold)[0].sum()) for threshold in (0, 0.5, 0.99, 1)] == [7, 4, 1, 0]


def test_cam_of_a_class_is_scaled_by_the_models_range(prediction: Prediction) -> None:
    low, high = prediction.spec.cam_range
    ramp = np.linspace(low - 1, high + 1, 5, dtype=np.float32)
    maps = np.stack([np.tile(ramp, (4, 1)) + index for index in range(len(prediction.spec.classes))])
    drawn = replace(prediction, working_cams=maps, height=4, width=5)
    first = drawn.cam(prediction.spec.classes[0])
    np.testing.assert_allclose(first[0], np.clip((ramp - low) / (high - low), 0, 1), atol=1e-6)
    assert drawn.cam(prediction.spec.classes[1]).sum() > first.sum()


def test_cam_of_an_unknown_class(prediction: Prediction) -> None:
    with pytest.raises(ValueError, match="not in tuple"):
        prediction.cam("no such class")


def test_a_batch_gives_what_its_images_give_alone(predictor: Predictor) -> None:
    sizes = [(96, 128), (128, 96), (60, 80), (100, 100), (192, 256), (40, 400)]
    images = [picture(*size, seed) for seed, size in enumerate(sizes)]
    for image, together in zip(images, predictor.predict(images), strict=True):
        (alone,) = predictor.predict([image])
        assert (together.height, together.width) == image.shape[:2]
        for name in ("class_scores", "working_probability", "working_cams"):
            np.testing.assert_allclose(getattr(together, name), getattr(alone, name), atol=1e-4, err_msg=name)


def test_no_images_no_predictions(predictor: Predictor) -> None:
    assert predictor.predict([]) == []


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300))
def test_any_size(predictor: Predictor, height: int, width: int) -> None:
    (found,) = predictor.predict([picture(height, width)])
    assert found.mask().shape == found.cam().shape == (height, width)
    assert found.working_probability.shape == working_shape(height, width, predictor.spec.short_side)


def test_paths_bytes_and_arrays_one_or_many(predictor: Predictor, tmp_path: Path) -> None:
    pixels = picture(50, 70)
    path = tmp_path / "a.png"
    path.write_bytes(encoded(pixels))
    alone = [predictor.predict(image) for image in (pixels, path, str(path), path.read_bytes())]
    together = predictor.predict([pixels, path, str(path), path.read_bytes()])
    for prediction in alone + together:
        np.testing.assert_allclose(prediction.probability(), alone[0].probability(), atol=1e-4)


@pytest.mark.parametrize(
    "bad", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8), b"no image"]
)
def test_what_is_no_image_is_named_by_its_place(predictor: Predictor, bad: Any) -> None:
    with pytest.raises(ImageError):
        predictor.predict(bad)
    with pytest.raises(ImageError, match="image 1: "):
        predictor.predict([picture(), bad])


def test_a_stream_keeps_the_order_and_draws_only_what_it_needs(predictor: Predictor) -> None:
    drawn = 0

    def endless() -> Iterator[Pixels]:
        nonlocal drawn
        while True:
            drawn += 1
            yield picture(30 + drawn, 40)

    with contextlib.closing(predictor.stream(endless(), workers=2, batch_size=3)) as stream:
        heights = [prediction.height for prediction in islice(stream, 7)]
    assert heights == list(range(31, 38))
    assert drawn <= 7 + 3 * (2 * 2 + 2)


def test_a_stream_ends_at_what_it_cannot_read(predictor: Predictor) -> None:
    stream = predictor.stream([picture(), picture(), Path("none.png"), picture()], workers=1)
    assert [next(stream).width, next(stream).width] == [128, 128]
    with pytest.raises(ImageError, match=r"none\.png: cannot be read: No such file"):
        next(stream)
