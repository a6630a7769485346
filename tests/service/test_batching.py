"""Network calls for many callers, with a real session."""

import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from alserve.errors import DeadlineError, DeviceError
from alserve.modelfile import Outputs, default_model
from alserve.predictor import Predictor
from alserve.runtime.engine import Engine
from alserve.service.batching import Batcher, BatchResult

Pixels = npt.NDArray[np.uint8]


def image(seed: int, shape: tuple[int, int] = (64, 96)) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


def soon() -> float:
    return time.monotonic() + 60


def run_all(batcher: Batcher, images: Iterable[Pixels]) -> list[BatchResult]:
    things = list(images)
    with ThreadPoolExecutor(len(things)) as pool:
        return list(pool.map(lambda thing: batcher.run(thing, soon()), things))


@pytest.mark.parametrize("size", [1, 4])
def test_every_caller_gets_the_answer_for_its_own_image(predictor: Predictor, size: int) -> None:
    images = [image(seed, (64, 96) if seed % 3 else (96, 64)) for seed in range(12)]

    results = run_all(Batcher(predictor.engine, size), images)

    assert max(result.images for result in results) <= size
    assert (max(result.images for result in results) > 1) == (size > 1)
    for pixels, result in zip(images, results, strict=True):
        alone = predictor.engine.run(pixels[None])
        for got, expected in zip(result.outputs, alone, strict=True):
            np.testing.assert_allclose(got, expected[0], atol=1e-4)


class NarrowEngine(Engine):
    """An engine on a device that has memory for one image only."""

    def run(self, images: Pixels, *, deadline: float | None = None) -> Outputs:
        if len(images) > 1:
            raise DeviceError("out of memory")
        return super().run(images, deadline=deadline)


def test_a_batch_that_fails_is_run_image_by_image() -> None:
    results = run_all(Batcher(NarrowEngine(default_model(), device="cpu"), 4), map(image, range(6)))

    assert [result.images for result in results] == [1] * 6


def test_an_image_that_fails_does_not_touch_its_neighbours(predictor: Predictor) -> None:
    batcher = Batcher(predictor.engine, 4)
    broken: Any = image(0).astype(np.float32)  # spoils the batch it is in: the network takes uint8

    def works(pixels: Pixels) -> bool:
        try:
            return batcher.run(pixels, soon()).outputs.scores.sum() == pytest.approx(1, abs=1e-4)
        except DeviceError:
            return False

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(works, [*map(image, range(3)), broken, *map(image, range(4))]))

    assert results == [True] * 3 + [False] + [True] * 4


def test_the_network_is_stopped_at_the_deadline(predictor: Predictor) -> None:
    large = image(0, (1024, 1536))
    start = time.monotonic()
    predictor.engine.run(large[None])
    whole = time.monotonic() - start

    start = time.monotonic()
    with pytest.raises(DeadlineError, match="no more time"):
        predictor.engine.run(large[None], deadline=start + whole / 10)
    assert time.monotonic() - start < whole / 2
    with pytest.raises(DeadlineError):
        Batcher(predictor.engine, 4).run(large, start)
    predictor.engine.run(image(0)[None], deadline=soon())


def test_openvino_is_stopped_too() -> None:
    pytest.importorskip("openvino")
    engine = Engine(default_model(), device="openvino")
    large = image(0, (1024, 1536))
    engine.run(large[None])
    start = time.monotonic()
    with pytest.raises(DeadlineError):
        engine.run(large[None], deadline=start + 0.01)
    one = image(1)[None]
    np.testing.assert_array_equal(engine.run(one, deadline=soon()).mask, engine.run(one).mask)
