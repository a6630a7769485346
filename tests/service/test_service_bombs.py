"""Hostile images sent to the served endpoint: one answer in words for each, and nobody else notices."""

import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest
from bombs import BOMBS
from decoding import kill_at_work
from server import living_workers, serving
from web import PNG, SERVE, assert_refused

SECONDS = 2.0


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of a service that decodes for a short time only."""
    with serving(SERVE, tmp_path_factory.mktemp("service"), ALSERVE_DECODE_TIMEOUT=str(SECONDS)) as client:
        yield client


def decoders(client: httpx.Client) -> list[psutil.Process]:
    (worker,) = living_workers(client).values()
    return worker.children()


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_gets_an_answer_and_others_theirs(client: httpx.Client, name: str) -> None:
    worker = living_workers(client)
    with ThreadPoolExecutor(2) as pool:
        bomb = pool.submit(client.post, "/segment", content=BOMBS[name]())
        honest = pool.submit(client.post, "/segment", content=PNG)
        answer = bomb.result()
        honest.result().raise_for_status()
    if answer.status_code != httpx.codes.OK:
        assert answer.status_code in {400, 413, 415, 422}
        assert_refused(answer, answer.status_code, "")
    assert living_workers(client) == worker


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="no way to hold a process up")
def test_a_decoder_that_hangs_costs_its_image(impatient: httpx.Client) -> None:
    for _ in range(8):
        impatient.post("/segment", content=PNG).raise_for_status()
    held = decoders(impatient)
    held[0].send_signal(signal.SIGSTOP)
    answers = [impatient.post("/segment", content=PNG) for _ in held]
    assert sorted(answer.status_code for answer in answers) == [200] * (len(held) - 1) + [504]
    (late,) = (answer for answer in answers if answer.status_code == httpx.codes.GATEWAY_TIMEOUT)
    assert_refused(late, 504, f"not decoded within {SECONDS:g} s")
    assert len(decoders(impatient)) == len(held)
    assert held[0] not in decoders(impatient)


def test_a_decoder_that_dies_costs_its_image(client: httpx.Client) -> None:
    for _ in range(8):
        client.post("/segment", content=PNG).raise_for_status()
    held = decoders(client)
    large = BOMBS["PNG of 16 bits, interlaced"]()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(client.post, "/segment", content=large)
        kill_at_work(held, answer.done)
    assert_refused(answer.result(), 422, "more memory")
    client.post("/segment", content=PNG).raise_for_status()
    assert len(set(held) & set(decoders(client))) == len(held) - 1


if sys.platform != "linux":
    pytestmark = pytest.mark.skip("looks into /proc")
