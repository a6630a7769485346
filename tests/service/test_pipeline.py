"""Who gets a place in the pipeline, and how many cores."""

from contextlib import ExitStack
from typing import Any

import anyio
import pytest
from web import PNG

from alserve.errors import ImageSizeError, OverloadError
from alserve.modelfile import Outputs, default_model
from alserve.predictor import Predictor
from alserve.runtime.device import available_cores
from alserve.runtime.engine import Engine
from alserve.service.pipeline import Pipeline
from alserve.service.settings import ServiceSettings


@pytest.mark.parametrize(("workers", "places"), [(1, 3), (2, 2), (64, 1)])
def test_workers_share_the_places_for_those_who_wait(predictor: Predictor, workers: int, places: int) -> None:
    settings = ServiceSettings(queue=3, workers=workers)
    pipeline = Pipeline(predictor.engine, settings)
    with ExitStack() as held:
        for _ in range(settings.cores + places):
            pipeline.check_capacity()
            held.enter_context(pipeline.reserve())
        with pytest.raises(OverloadError):
            pipeline.check_capacity()
        with pytest.raises(OverloadError), pipeline.reserve():
            pass
    pipeline.check_capacity()


def test_a_batch_takes_a_place_for_each_image_or_none(predictor: Predictor) -> None:
    settings = ServiceSettings(queue=10)
    pipeline = Pipeline(predictor.engine, settings)
    places = settings.cores + 10

    with pipeline.reserve(places - 1):
        with pytest.raises(OverloadError), pipeline.reserve(2):
            pass
        with pipeline.reserve(1):
            pass
    with pipeline.reserve(places):
        pass
    with (
        pytest.raises(ImageSizeError, match=f"{places + 1} images .* at most {places} .*ALSERVE_QUEUE"),
        pipeline.reserve(places + 1),
    ):
        pass


class CountingEngine(Engine):
    """An engine that counts its calls."""

    calls = 0

    def run(self, *images: Any, **more: Any) -> Outputs:
        self.calls += 1
        return super().run(*images, **more)


@pytest.mark.skipif(available_cores() == 1, reason="with one core nothing runs beside another")
def test_an_image_alone_gets_all_cores_and_one_among_others_a_single_one() -> None:
    everything, single = (CountingEngine(default_model(), device="cpu", threads=threads) for threads in (None, 1))
    labels: list[str] = []

    async def ask(pipeline: Pipeline) -> None:
        labels.append(await pipeline.predict(PNG, lambda _, prediction: prediction.label))

    async def alone_and_together() -> None:
        pipeline = Pipeline(everything, ServiceSettings(), single)
        await ask(pipeline)
        assert (everything.calls, single.calls) == (1, 0)
        async with anyio.create_task_group() as group:
            for _ in range(8):
                group.start_soon(ask, pipeline)

    anyio.run(alone_and_together)

    assert everything.calls + single.calls == len(labels) == 9
    assert single.calls > 4
    assert len(set(labels)) == 1


def test_an_image_does_not_wait_for_all_those_of_a_request_with_many(predictor: Predictor) -> None:
    answered: list[str] = []

    async def ask(pipeline: Pipeline, name: str, share: anyio.Semaphore | None = None) -> None:
        await pipeline.predict(PNG, lambda _, __: None, share=share)
        answered.append(name)

    async def many_and_one() -> None:
        pipeline = Pipeline(predictor.engine, ServiceSettings())
        share = pipeline.share()
        async with anyio.create_task_group() as group:
            for _ in range(40):
                group.start_soon(ask, pipeline, "many", share)
            await anyio.sleep(0.05)
            group.start_soon(ask, pipeline, "one")
        pipeline.close()

    anyio.run(many_and_one)

    assert len(answered) == 41
    assert answered.index("one") < 36
