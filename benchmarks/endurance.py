"""Load the service: very many requests, too many, broken ones, bombs, unfinished ones, a worker killed.

    python benchmarks/endurance.py

Client and server share this machine. The table goes to benchmarks/results/endurance.md.
"""

import http.client
import select
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from functools import partial
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from typing import NamedTuple

import numpy as np
import psutil
from broken_requests import Broken, broken_requests
from common import GLAS_SHAPE, HERE, RESULTS, draw_jpeg, machine, options, table, timed, write_report
from servers import alserve_server, closed_loop, is_ready, post

from alserve.modelfile import default_model
from alserve.service.settings import MAX_BODY_BYTES

sys.path.insert(0, str(HERE.parent / "tests"))

from bombs import BOMBS

OVERLOAD = 4
"""Times the rate that the service can do."""
CONNECTIONS = 200
CLIENTS = 16
DEADLINE = 30
"""Default of the seconds that the service has for an answer."""
SMALL = (256, 256)
"""Height and width of the images that are sent very often."""
UPLOADS = 34
"""Bodies that lack their last byte."""
HEADS = 600
"""Heads that lack their last line; with the uploads, more than the service allows connections."""
PATIENCE = 3
"""Seconds."""
TORN = 0
"""In place of a status: the connection was closed without an answer."""


class Sizes(NamedTuple):
    """Length of the measurements."""

    seconds: int = 60
    """Duration of the overload."""
    warm_up: int = 1000
    requests: int = 20_000
    broken: int = 10_000


class Row(NamedTuple):
    """A row of the table."""

    measure: str
    found: str
    goal: str


def main() -> None:
    """Run all, write the table."""
    parser = options(__doc__)
    parser.add_argument("--quick", action="store_true", help="a trial of a minute or two; its figures mean little")
    parser.add_argument("--out", type=Path, default=RESULTS / "endurance.md")
    arguments = parser.parse_args()
    sizes = Sizes(6, 50, 300, 300) if arguments.quick else Sizes()
    with TemporaryDirectory() as name:
        folder = Path(name)
        images = [draw_jpeg(folder / f"{number}.jpg", number) for number in range(16)]
        small = [draw_jpeg(folder / f"small-{number}.jpg", number, SMALL) for number in range(16)]
        with alserve_server(folder) as port:
            rows = [*very_many(port, small, sizes), *too_many(port, images, sizes), *broken(port, small[0], sizes)]
        with alserve_server(folder) as port:
            rows += [*bombs(port, images, sizes), *unfinished(port, images)]
        with alserve_server(folder, ALSERVE_WORKERS="2") as port:
            rows += killed(port, images)
    write_report(arguments.out, "The service under load", conditions(), table(Row._fields, rows))


def too_many(port: int, images: Sequence[bytes], sizes: Sizes) -> list[Row]:
    """Send `OVERLOAD` times the requests that the service can answer, for a while."""
    warm_up = 16 * CLIENTS
    closed_loop(port, images, CLIENTS, CLIENTS)
    rate = OVERLOAD * warm_up / timed(closed_loop, port, images, warm_up, CLIENTS)
    flood(port, images, rate, sizes.seconds / 6)
    before = memory(port)
    answers = flood(port, images, rate, sizes.seconds)
    after = memory(port)
    p50, p99 = np.percentile([seconds for status, seconds in answers if status == http.HTTPStatus.OK], (50, 99))
    name = f"{OVERLOAD} times overload for {sizes.seconds} s, {rate:.0f} requests a second due"
    return [
        Row(f"{name}: answers by status", tally(status for status, _ in answers), "no 5xx"),
        Row("the same: p50 and p99 of those accepted", f"{p50:.2f} and {p99:.2f} s", f"within {DEADLINE} s"),
        Row("the same: memory of the worker, after the first sixth and at the end", growth(before, after), "flat"),
    ]


def flood(port: int, images: Sequence[bytes], rate: float, seconds: float) -> list[tuple[int, float]]:
    """Send requests at fixed times, however long the answers take, as far as the connections allow.

    Args:
        port: Where the server listens.
        images: What to send, in turn.
        rate: Requests a second.
        seconds: How long.

    Returns:
        Status and seconds of each request.
    """
    start = time.perf_counter()

    def work(number: int) -> tuple[int, float]:
        time.sleep(max(0, start + number / rate - time.perf_counter()))
        begun = time.perf_counter()
        return status_of(port, images[number % len(images)]), time.perf_counter() - begun

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        return list(pool.map(work, range(round(rate * seconds))))


def very_many(port: int, images: Sequence[bytes], sizes: Sizes) -> list[Row]:
    """Send very many requests; memory must not grow after the first ones."""
    closed_loop(port, images, sizes.warm_up, CLIENTS)
    before = memory(port)
    closed_loop(port, images, sizes.requests - sizes.warm_up, CLIENTS)
    name = f"{sizes.requests:,} requests: memory of the worker after {sizes.warm_up:,} of them and at the end"
    return [Row(name, growth(before, memory(port)), "growth <= 3 %")]


def bombs(port: int, images: Sequence[bytes], sizes: Sizes) -> list[Row]:
    """Send requests beside a client that sends one hostile image after the other, see tests/bombs.py."""
    corpus = [make() for make in BOMBS.values()]
    closed_loop(port, images, 4 * CLIENTS, CLIENTS)
    before, alone = memory(port), ask_for(port, images, sizes.seconds / 2)
    answers: list[int] = []
    asking = Event()

    def attack() -> None:
        while not asking.is_set():
            answers.extend(status_of(port, bomb, keep=False) for bomb in corpus)

    with ThreadPoolExecutor(1) as pool:
        attacker = pool.submit(attack)
        beside = ask_for(port, images, sizes.seconds / 2)
        asking.set()
        attacker.result()
    (p99_alone, p99), slowest = (
        [np.percentile([seconds for _, seconds in found], 99) for found in (alone, beside)],
        max(seconds for _, seconds in beside),
    )
    name = f"{len(corpus)} kinds of bomb, one after the other, beside {CLIENTS} clients"
    return [
        Row(f"{name}: answers to the bombs", tally(answers), "no 500, no 503"),
        Row("the same: answers to the others", tally(status for status, _ in beside), "200 or 429"),
        Row(
            "the same: p99 of the others without bombs, p99 and slowest with them",
            f"{p99_alone:.2f}, {p99:.2f} and {slowest:.2f} s",
            "twice at most",
        ),
        Row("the same: memory of the worker, before and after", growth(before, memory(port)), "flat"),
    ]


def ask_for(port: int, images: Sequence[bytes], seconds: float) -> list[tuple[int, float]]:
    """Send requests from `CLIENTS` clients for a while; return status and seconds of each request."""
    end = time.perf_counter() + seconds

    def work(client: int) -> list[tuple[int, float]]:
        found = []
        for number in count(client):
            begun = time.perf_counter()
            if begun > end:
                return found
            status = status_of(port, images[number % len(images)])
            found.append((status, time.perf_counter() - begun))
        return found

    with ThreadPoolExecutor(CLIENTS) as pool:
        return [answer for answers in pool.map(work, range(CLIENTS)) for answer in answers]


def unfinished(port: int, images: Sequence[bytes]) -> list[Row]:
    """Send requests beside clients that begin theirs and never end them."""
    measure = partial(flood, port, images, rate=5, seconds=8)
    closed_loop(port, images, 4 * CLIENTS, CLIENTS)
    before, alone = memory(port), measure()
    with ExitStack() as stack:

        def begin(request: bytes) -> None:
            line = stack.enter_context(closing(socket.create_connection(("127.0.0.1", port), timeout=120)))
            with suppress(OSError):  # the service may have cut it by now
                line.sendall(request)

        head = b"POST /segment HTTP/1.1\r\nHost: localhost\r\n"
        for _ in range(UPLOADS):
            begin(head + b"Content-Length: %d\r\n\r\n" % MAX_BODY_BYTES + bytes(MAX_BODY_BYTES - 1))
        held = memory(port)
        for _ in range(HEADS):
            begin(head)
        beside = measure()
    name = f"{UPLOADS} bodies of {MAX_BODY_BYTES >> 20} MiB that lack a byte, {HEADS} heads without end"
    p99, p99_alone = (np.percentile([seconds for _, seconds in found], 99) for found in (beside, alone))
    return [
        Row(f"{name}: answers to others", tally(status for status, _ in beside), "200 or 429"),
        Row("the same: p99 of the others, without and with them", f"{p99_alone:.2f} and {p99:.2f} s", "twice at most"),
        Row("the same: memory of the worker, before and with them", growth(before, held), "256 MiB of bodies"),
    ]


def broken(port: int, image: bytes, sizes: Sizes) -> list[Row]:
    """Send random and mutated requests."""
    (worker,) = workers(port)

    with ThreadPoolExecutor(CLIENTS) as pool:
        found = tally(pool.map(partial(send, port), broken_requests(image, sizes.broken)))
    alive = is_ready(port) and workers(port) == [worker]
    verdict = f"{found}; the same process {'answers' if alive else 'is gone'}"
    return [Row(f"{sizes.broken:,} random and mutated requests", verdict, "no 5xx, service alive")]


def killed(port: int, images: Sequence[bytes]) -> list[Row]:
    """Kill one of two workers while clients send requests, each over a new connection."""
    closed_loop(port, images, 4 * CLIENTS, CLIENTS)
    old = workers(port)
    answers: list[tuple[float, int]] = []
    """When each request began, and its status."""
    back = 0.0

    def work(numbers: Iterable[int]) -> None:
        for number in numbers:
            if back:
                return
            begun = time.perf_counter()
            answers.append((begun, status_of(port, images[number % len(images)], keep=False)))

    numbers = count()
    with ThreadPoolExecutor(CLIENTS) as pool:
        callers = [pool.submit(work, numbers) for _ in range(CLIENTS)]
        time.sleep(2)
        kill = time.perf_counter()
        old[0].kill()
        while not any(answers_requests(worker, port) for worker in workers(port) if worker not in old):
            time.sleep(0.05)
        back = time.perf_counter()
    for caller in callers:
        caller.result()
    meanwhile = [status for begun, status in answers if begun > kill]
    return [
        Row(
            f"kill -9 of one of two workers, {CLIENTS} clients: requests under way then",
            f"{sum(status == TORN for begun, status in answers if begun <= kill)} torn",
            "only those on its own lines",
        ),
        Row("the same: requests until it was back", tally(meanwhile), "succeed"),
        Row("the same: a new worker answers after", f"{back - kill:.1f} s", "by itself"),
    ]


def status_of(port: int, image: bytes, *, keep: bool = True) -> int:
    """Post an image; return the answer's status, or `TORN`."""
    try:
        return post(port, image, keep=keep)[0]
    except (OSError, http.client.HTTPException):
        return TORN


def send(port: int, request: Broken) -> int:
    """Send a request as it is over a connection of its own; return the answer's status, or `TORN`.

    Where the server waits for more than was sent, the connection is ended after `PATIENCE` seconds.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=120) as line:
        try:
            line.sendall(request)
            if not select.select([line], [], [], PATIENCE)[0]:
                line.shutdown(socket.SHUT_WR)
            return http_status(line)
        except (OSError, http.client.HTTPException):
            return TORN


def http_status(line: socket.socket) -> int:
    """Read an answer to its end; return its status."""
    answer = http.client.HTTPResponse(line)
    answer.begin()
    answer.read()
    return answer.status


def workers(port: int) -> list[psutil.Process]:
    """Return the running worker processes of the server on a port."""
    (server,) = (child for child in psutil.Process().children() if str(port) in child.cmdline())
    return [child for child in server.children() if is_alive(child)]


def is_alive(process: psutil.Process) -> bool:
    """Return whether a process runs; a zombie does not."""
    with suppress(psutil.NoSuchProcess):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


def answers_requests(worker: psutil.Process, port: int) -> bool:
    """Return whether a worker has a connection."""
    with suppress(psutil.NoSuchProcess):
        lines = worker.net_connections(kind="tcp")
        return any(line.laddr.port == port and line.status == psutil.CONN_ESTABLISHED for line in lines)
    return False


def memory(port: int) -> float:
    """Return the resident memory of the one worker, in MB."""
    (worker,) = workers(port)
    return float(worker.memory_info().rss) / 1e6


def growth(before: float, after: float) -> str:
    """Describe how memory grew."""
    return f"{before:.0f} and {after:.0f} MB, {(after - before) / before:+.1%}"


def tally(statuses: Iterable[int]) -> str:
    """Count answers by status, such as "200: 31, 429: 8"."""
    counts = sorted(Counter(statuses).items())
    return ", ".join(f"{'torn' if status == TORN else status}: {number:,}" for status, number in counts)


def conditions() -> str:
    """Describe how the figures were measured."""
    return (
        f"`alserve serve`, {default_model().name}, `POST /segment`, drawn JPEGs of {GLAS_SHAPE[1]} x {GLAS_SHAPE[0]} "
        f"pixels (the many: {SMALL[1]} x {SMALL[0]}), {CLIENTS} clients, in overload up to {CONNECTIONS}; client and "
        f"server on the same {machine()}. Torn: the connection was closed without an answer, by a kill, or by the "
        f"client itself {PATIENCE} s after a request that has no end."
    )


if __name__ == "__main__":
    main()
