"""One image, several, or a stream of them: what may be passed, what comes out, in which order."""

import contextlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import Pixels, encoded, picture

from alserve import Failure, Prediction, Predictor
from alserve.errors import ImageError, ImageKindError, OptionError
from alserve.geometry import working_shape


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
    images = [pixels, path, str(path), path.read_bytes(), pixels / np.float32(255)]
    alone = [predictor.predict(image) for image in images]
    together = predictor.predict(iter(images))
    for prediction in alone + together:
        np.testing.assert_allclose(prediction.probability(), alone[0].probability(), atol=1e-4)
    assert [prediction.path for prediction in together] == [None, path, path, None, None]


@pytest.mark.parametrize(
    "bad", [np.zeros((4, 4), np.uint16), np.zeros((4, 4, 2), np.uint8), np.zeros((0, 4, 3), np.uint8), b"no image"]
)
def test_what_is_no_image_is_named_by_its_place(predictor: Predictor, bad: Any) -> None:
    with pytest.raises(ImageError):
        predictor.predict(bad)
    with pytest.raises(ImageError, match=r"^image 1: "):
        predictor.predict([picture(), bad])


@pytest.mark.parametrize("bad", [5, None, 2.5, object()])
def test_a_single_thing_that_is_no_image_is_said_to_be_none(predictor: Predictor, bad: Any) -> None:
    with pytest.raises(ImageError, match=f"^{type(bad).__name__} is no image; give a path"):
        predictor.predict(bad)


def test_a_file_that_cannot_be_read_is_named_by_its_path(predictor: Predictor, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("hello")
    for images in (tmp_path / "none.png", [picture(), str(tmp_path / "none.png")]):
        with pytest.raises(ImageError, match=rf"^{tmp_path}/none\.png: cannot be read: No such file"):
            predictor.predict(images)
    with pytest.raises(ImageKindError, match=rf"^{tmp_path}/text\.png: "):
        predictor.predict(tmp_path / "text.png")


def test_a_stream_keeps_the_order_and_draws_only_what_it_needs(predictor: Predictor) -> None:
    drawn = 0

    def endless() -> Iterator[Pixels]:
        nonlocal drawn
        while True:
            drawn += 1
            yield picture(30 + drawn, 40)

    with contextlib.closing(predictor.stream(endless(), workers=2, batch_size=3, on_error="raise")) as stream:
        heights = [prediction.height for prediction in islice(stream, 7)]
    assert heights == list(range(31, 38))
    assert drawn <= 7 + 3 * (2 * 2 + 2)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_stream_goes_on_past_what_it_cannot_read(predictor: Predictor, batch_size: int, tmp_path: Path) -> None:
    (tmp_path / "good.png").write_bytes(encoded(picture(50, 70)))
    images = [picture(40, 60), tmp_path / "none.png", b"no image", tmp_path / "good.png", picture(70, 90)]
    first, missing, damaged, *rest = predictor.stream(images, workers=2, batch_size=batch_size)
    assert isinstance(first, Prediction)
    assert [result.height for result in rest if isinstance(result, Prediction)] == [50, 70]
    assert isinstance(missing, Failure)
    assert (missing.index, missing.path) == (1, tmp_path / "none.png")
    assert str(missing.error).startswith(f"{tmp_path}/none.png: cannot be read")
    assert isinstance(damaged, Failure)
    assert (damaged.index, damaged.path) == (2, None)
    assert isinstance(damaged.error, ImageKindError)
    assert str(damaged.error).startswith("image 2: ")


def test_a_stream_ends_at_what_it_cannot_read_where_that_is_asked_for(predictor: Predictor) -> None:
    images = [picture(), picture(), Path("none.png"), picture()]
    stream = predictor.stream(images, workers=1, on_error="raise")
    assert [next(stream).width, next(stream).width] == [128, 128]
    with pytest.raises(ImageError, match=r"none\.png: cannot be read: No such file"):
        next(stream)
    with pytest.raises(StopIteration):
        next(stream)


def test_a_stream_of_one_image_or_with_a_wrong_word_is_refused(predictor: Predictor) -> None:
    with pytest.raises(OptionError, match="pass a list"):
        next(predictor.stream("a.png"))  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="on_error 'skip'"):
        next(predictor.stream([picture()], on_error="skip"))  # type: ignore[call-overload]
