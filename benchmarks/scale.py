"""Folder runs on a Ray cluster: speed, what Ray adds to an image, memory, and a machine lost in the middle.

    python benchmarks/scale.py

The machines are processes of this one, each with one core: what a cluster adds is seen, the network between machines
is not. The tables go to benchmarks/results/scale.md, with what they mean for ten million images, worked out on paper.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import psutil
from common import ALSERVE, GLAS_SHAPE, RESULTS, draw_jpeg, machine, options, table, write_report

from alserve.folder.manifest import MANIFEST

DRAWN = 60
"""Number of different images; each is repeated under other names."""
SMALL = (64, 64)
"""Height and width of the images for memory, in pixels."""
WARM = 0.3
"""Share of a run after which rates are taken: models are loaded then."""
COOL = 0.97
"""Share after which no more is taken: processes end then, and their CPU time is not seen."""
STORE = 100 << 20
"""Bytes of the object store of each machine."""

MACHINES, CORES = 100, 8
"""The cluster on paper."""
MANY = 10_000_000
GETS, PUTS = 5500, 3500
"""Requests a second that S3 documents for a prefix."""
CORE_HOUR, THOUSAND_PUTS, THOUSAND_GETS = 0.04, 0.005, 0.0004
"""Dollars: list prices of general-purpose machines, and of S3, in one of the large regions."""
FILES = 3
"""Files written for an image by default: mask, CAM, overlay."""


class Sample(NamedTuple):
    """A look at a run."""

    seconds: float
    rows: int
    cpu: float
    """Seconds of all its processes."""
    driver_cpu: float
    """Seconds of the process that was started."""
    memory: dict[str, int]
    """Bytes of the driver, and of the largest actor with its decoders."""


class Run(NamedTuple):
    """A run that is over."""

    first: float
    """Seconds to its first row."""
    rate: float
    """Images a second, once warm."""
    cpu: float
    """Seconds of all processes for an image, once warm."""
    driver_cpu: float
    """Seconds of the driver for an image, once warm."""
    memory: dict[str, int]
    """The most that was seen."""


def main() -> None:
    """Measure and write."""
    parser = options(__doc__)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--small", type=int, nargs=2, default=(2000, 20000))
    parser.add_argument("--pairs", type=int, default=3)
    arguments = parser.parse_args()
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
    with TemporaryDirectory() as name, cluster() as started:
        folder = Path(name)
        draw(folder, "large", arguments.images, GLAS_SHAPE)
        pairs = {}
        for cores in (1, 2):
            node = started.add_node(num_cpus=1, object_store_memory=STORE)
            pairs[cores] = measure_pairs(folder, cores, arguments.pairs, started.address)
        memory = []
        for count in arguments.small:
            draw(folder, f"small{count}", count, SMALL)
            memory.append((count, segment(folder / f"small{count}", folder / "out", started.address)))
            print(*memory[-1], flush=True)
        lost = lose_a_machine(folder, started, node)
    how = (
        f"`python benchmarks/scale.py {' '.join(sys.argv[1:])}`: {machine()}; the machines of the cluster are "
        "processes of this one, of one core each. Other work ran meanwhile (load average "
        f"{os.getloadavg()[2]:.0f}): local and Ray runs come in turn, medians of "
        f"{arguments.pairs} pairs; seconds of CPU are less disturbed than seconds."
    )
    write_report(
        RESULTS / "scale.md",
        "Beyond one machine",
        how,
        *describe_pairs(arguments.images, pairs),
        *lost,
        *describe_memory(memory),
        *on_paper(pairs[2], memory[-1][1]),
    )


def draw(folder: Path, name: str, images: int, shape: tuple[int, int]) -> None:
    """Draw images into a folder, as links to a few."""
    first = folder / f"drawn-{name}"
    for number in range(min(DRAWN, images)):
        draw_jpeg(first / f"{number}.jpg", number, shape)
    (folder / name).mkdir()
    for number in range(images):
        (folder / name / f"{number:05}.jpg").hardlink_to(first / f"{number % DRAWN}.jpg")


@contextmanager
def cluster() -> Iterator[Any]:
    """Start a cluster: a head, on which no image is done."""
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE}
    started = Cluster(initialize_head=True, head_node_args=head)
    try:
        yield started
    finally:
        started.shutdown()


def start(images: Path, out: Path, address: str | None, threads: int | None = None) -> "subprocess.Popen[bytes]":
    """Start a run; with an address, on that cluster."""
    shutil.rmtree(out, ignore_errors=True)
    where = ["--engine", "ray", "--address", address] if address else ["--threads", str(threads)]
    command = [*ALSERVE, "segment", images, "--out", out, "--save", "mask,cam", "--device", "cpu", *where]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def segment(images: Path, out: Path, address: str | None, threads: int | None = None) -> Run:
    """Do a run, and look at it until it is over."""
    total = sum(1 for _ in images.iterdir())
    started = time.perf_counter()
    process = start(images, out, address, threads)
    samples: list[Sample] = []
    first = 0.0
    while process.poll() is None:
        rows = count_rows(out / MANIFEST)
        first = first or (time.perf_counter() - started if rows else 0.0)
        if rows and (not samples or rows > samples[-1].rows):
            samples.append(look(process.pid, rows, everything=address is not None))
        time.sleep(0.2)
    if process.returncode or count_rows(out / MANIFEST) != total:
        raise SystemExit(f"a run ended with {process.returncode} and {count_rows(out / MANIFEST)} of {total} rows")
    begin = next(sample for sample in samples if sample.rows >= WARM * total)
    end = next(sample for sample in reversed(samples) if sample.rows <= COOL * total)
    done, seconds = end.rows - begin.rows, end.seconds - begin.seconds
    most = {key: max(sample.memory[key] for sample in samples) for key in end.memory}
    cpu, driver = end.cpu - begin.cpu, end.driver_cpu - begin.driver_cpu
    return Run(first, done / seconds, cpu / done, driver / done, most)


def look(driver: int, rows: int, *, everything: bool) -> Sample:
    """Look at the processes of a run; with a cluster, at all that this program has started."""
    top = psutil.Process() if everything else psutil.Process(driver)
    cpu, memory = 0.0, {"driver": 0, "actor": 0}
    own = 0.0
    for process in top.children(recursive=True) + ([] if everything else [top]):
        with suppress(psutil.Error):
            times = process.cpu_times()
            cpu += times.user + times.system
            if process.pid == driver:
                own, memory["driver"] = times.user + times.system, process.memory_info().rss
            elif "ray::Actor" in " ".join(process.cmdline()):
                whole = sum(each.memory_info().rss for each in (process, *process.children(recursive=True)))
                memory["actor"] = max(memory["actor"], whole)
    return Sample(time.perf_counter(), rows, cpu, own, memory)


def count_rows(path: Path) -> int:
    """Count the lines of a file; none where there is no file."""
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def measure_pairs(folder: Path, cores: int, pairs: int, address: str) -> list[tuple[Run, Run]]:
    """Do the same images locally and on a cluster, in turn."""
    found = []
    for _ in range(pairs):
        local = segment(folder / "large", folder / "out", None, cores)
        found.append((local, segment(folder / "large", folder / "out", address)))
        print(cores, *found[-1], flush=True)
    return found


def describe_pairs(images: int, pairs: dict[int, list[tuple[Run, Run]]]) -> list[str]:
    """Say how fast it is, and what Ray adds to an image."""
    rows = []
    for cores, found in pairs.items():
        for name, index in (("local", 0), ("Ray", 1)):
            runs = [pair[index] for pair in found]
            values = [median(getattr(run, what) for run in runs) for what in ("first", "rate", "cpu", "driver_cpu")]
            slower = median(pair[0].rate / pair[index].rate for pair in found) - 1
            dearer = median(pair[index].cpu / pair[0].cpu for pair in found) - 1
            what = f"{cores} worker{'s' * (cores > 1)}" if name == "local" else f"{cores} machine{'s' * (cores > 1)}"
            added = ["", ""] if name == "local" else [f"{100 * slower:+.1f} %", f"{100 * dearer:+.1f} %"]
            rows.append(
                [
                    f"{name}, {what}",
                    f"{values[0]:.0f}",
                    f"{values[1]:.1f}",
                    f"{1000 * values[2]:.1f}",
                    *added,
                    f"{1000 * values[3]:.2f}" if name == "Ray" else "",
                ]
            )
    titles = (
        "engine",
        "first row after, s",
        "images/s, once warm",
        "CPU an image, ms",
        "time, against local",
        "CPU, against local",
        "of it the driver, ms",
    )
    height, width = GLAS_SHAPE
    return [
        (
            f"## Speed\n\n{images} drawn JPEGs of {width} x {height}, mask and CAM; once warm: after "
            f"{100 * WARM:.0f} % of the images. CPU is that of all processes: Ray's services, which cost by the second "
            "and not by the image, are in it. The goal was at most 5 % more time an image."
        ),
        table(titles, rows),
    ]


def lose_a_machine(folder: Path, started: Any, node: Any) -> list[str]:  # noqa: ANN401  Ray's types
    """Kill one of two machines in the middle of a run."""
    out = folder / "out"
    total = sum(1 for _ in (folder / "large").iterdir())
    process = start(folder / "large", out, started.address)
    while process.poll() is None and count_rows(out / MANIFEST) < total // 3:
        time.sleep(0.2)
    before = count_rows(out / MANIFEST)
    began = time.perf_counter()
    started.remove_node(node, allow_graceful=False)
    code = process.wait()
    seconds = time.perf_counter() - began
    names = [line.split(b'"name": "', 1)[1].split(b'"', 1)[0] for line in (out / MANIFEST).read_bytes().splitlines()]
    masks = sum(1 for _ in (out / "masks").iterdir())
    return [
        "## A machine lost",
        (
            f"One of two machines killed (SIGKILL) after {before} of {total} images: exit code {code} after "
            f"{seconds:.0f} s more; {len(names)} rows, {len(set(names))} different, {masks} masks."
        ),
    ]


def describe_memory(memory: Sequence[tuple[int, Run]]) -> list[str]:
    """Say how memory grows."""
    rows = [
        [f"{images:,}", *(f"{run.memory[key] / 2**20:.0f}" for key in ("driver", "actor")), f"{run.rate:.1f}"]
        for images, run in memory
    ]
    return [
        (
            f"## Memory\n\nDrawn JPEGs of {SMALL[1]} x {SMALL[0]}, two machines; the most that was seen, MiB; an "
            "actor with the process that decodes for it."
        ),
        table(("images", "driver", "largest actor", "images/s"), rows),
    ]


def on_paper(pairs: Sequence[tuple[Run, Run]], small: Run) -> list[str]:
    """Work out ten million images on a hundred machines from the parts that were measured."""
    image = median(run.cpu for _, run in pairs)
    first = median(run.first for _, run in pairs)
    driver = small.driver_cpu
    cores = MACHINES * CORES
    rates = {
        f"{cores} cores, {1000 * image:.1f} ms an image": cores / image,
        f"the driver, one core, {1000 * driver:.2f} ms a row": 1 / driver,
        f"GET, {GETS} a second from one prefix, 1 an image": float(GETS),
        f"PUT, {PUTS} a second to one prefix, {FILES} an image": PUTS / FILES,
    }
    rows = [[name, f"{rate:,.0f}", f"{MANY / rate / 3600:.1f}"] for name, rate in rates.items()]
    slowest, second, *_ = sorted(rates, key=lambda name: rates[name])
    prices = {
        "cores": MANY * image / 3600 * CORE_HOUR,
        "PUT": MANY * FILES / 1000 * THOUSAND_PUTS,
        "GET": MANY / 1000 * THOUSAND_GETS,
    }
    paid = ", ".join(f"{name} {price:,.0f} $" for name, price in prices.items())
    return [
        f"## On paper: {MANY:,} images on {MACHINES} machines of {CORES} cores",
        (
            "Not measured: worked out from the parts above and from what S3 documents. Each row is what one part "
            f"alone would allow; what a row costs the driver includes what Ray costs it by the second; "
            f"the start ({first:.0f} s to the first row here) is small beside it."
        ),
        table(("part", "images/s", "hours"), rows),
        (
            f"The bottleneck is {slowest}; then comes {second}. Requests are spread by writing to several prefixes: "
            f"`--shard`, each to its own `--out`, and `alserve merge`; shards have a driver each, too, so that "
            f"N of them lift both limits N times. Without either limit the cores would be done in "
            f"{MANY * image / cores / 60:.0f} minutes. Cost, at {CORE_HOUR} $ a core-hour, {THOUSAND_PUTS} $ for "
            f"1,000 PUT and {THOUSAND_GETS} $ for 1,000 GET: {paid}; idle cores that wait for a bottleneck come on top."
        ),
    ]


if __name__ == "__main__":
    main()
