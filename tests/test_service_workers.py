"""Several worker processes behind one port: one may die, and the others go on."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from server import living_workers, serving
from web import PNG, SERVE, figure

CALLERS = 4
DYING = 1.0
"""Seconds after a kill in which a request may still reach the dead."""


class Asked(NamedTuple):
    """One request: when it began and ended, and its status, 0 if the line was cut."""

    begun: float
    ended: float
    status: int


def figure_of_any(client: httpx.Client, series: str) -> float:
    """A figure asked for over a line of its own, which any of the workers may take."""
    with httpx.Client(base_url=client.base_url, timeout=60) as fresh:
        return figure(fresh, series)


def wait_for(happened: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_worker_that_is_killed_is_replaced_and_the_others_go_on(tmp_path: Path) -> None:
    answers: list[Asked] = []
    stopped = False

    def ask_on() -> None:
        while not stopped:
            begun = time.monotonic()
            try:
                status = httpx.post(f"{client.base_url}/segment", content=PNG, timeout=60).status_code
            except httpx.TransportError:
                status = 0
            answers.append(Asked(begun, time.monotonic(), status))

    with serving(SERVE, tmp_path, ALSERVE_WORKERS="2") as client, ThreadPoolExecutor(CALLERS) as pool:
        try:
            wait_for(lambda: len(living_workers(client)) == 2)
            first, second = (old := living_workers(client)).values()
            callers = [pool.submit(ask_on) for _ in range(CALLERS)]
            wait_for(lambda: len(answers) > 2 * CALLERS)
            killed = time.monotonic()
            first.kill()
            wait_for(lambda: any(asked.begun > killed + DYING for asked in answers))
            wait_for(lambda: len(living_workers(client)) == 2)
        finally:
            stopped = True
        for caller in callers:
            caller.result()

        torn = [asked for asked in answers if asked.status != 200]
        assert all(asked.status == 0 and asked.begun < killed + DYING and asked.ended > killed for asked in torn)
        assert len(torn) <= CALLERS
        wait_for(lambda: figure_of_any(client, "alserve_requests_in_progress") == 1)  # what the dead did is not counted
        counts = [figure_of_any(client, 'alserve_requests_total{endpoint="/segment",status="200"}') for _ in range(8)]
        assert len(set(counts)) == 1
        assert counts[0] == pytest.approx(len(answers) - len(torn), abs=CALLERS)

        second.kill()  # now only the new one can answer
        httpx.post(f"{client.base_url}/segment", content=PNG, timeout=60).raise_for_status()
        wait_for(lambda: len(living_workers(client)) == 2)
        assert not living_workers(client).keys() & old.keys()
