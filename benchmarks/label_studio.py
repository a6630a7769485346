"""Measure what Label Studio waits for one prediction, beside the prediction itself.

    python benchmarks/label_studio.py

The request is the one that Label Studio sends; its own share of the time is not in it. Client and server share this
machine. The table goes to benchmarks/results/label_studio.md.
"""

import json
import os
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
from common import ALSERVE, GLAS_SHAPE, RESULTS, draw_jpeg, machine, options, table, timed, write_report
from servers import running

from alserve import Predictor, load
from alserve.arrays import Mask
from alserve.images.codec import decode
from alserve.modelfile import default_model

CONFIG = """<View><Image name="image" value="$image"/>{control}</View>"""
CONTROLS = {
    "brush": '<BrushLabels name="tag" toName="image"><Label value="foreground"/></BrushLabels>',
    "polygons": '<PolygonLabels name="tag" toName="image"><Label value="foreground"/></PolygonLabels>',
}


def main() -> None:
    """Draw images, start the server, measure in turn, write the table."""
    parser = options(__doc__)
    parser.add_argument("--images", type=int, default=32, help="drawn images")
    parser.add_argument("--rounds", type=int, default=5, help="repetitions; the first warms up and does not count")
    parser.add_argument("--out", type=Path, default=RESULTS / "label_studio.md")
    arguments = parser.parse_args()
    alone = load(default_model())
    times: dict[str, list[float]] = {name: [] for name in ("alone", *CONTROLS)}
    sizes: dict[str, list[int]] = {name: [] for name in CONTROLS}
    with TemporaryDirectory() as name:
        folder = Path(name)
        drawn = [draw_jpeg(folder / "images" / f"{number}.jpg", number) for number in range(arguments.images)]
        images = {number: image for number, image in enumerate(drawn) if predict(alone, image).any()}
        with (
            running([*ALSERVE, "serve"], folder / "log", ALSERVE_LABEL_STUDIO_FILES=str(folder / "images")) as port,
            httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
        ):
            for round_number in range(arguments.rounds + 1):
                for number, image in images.items():
                    seconds = {"alone": timed(predict, alone, image)}
                    for kind in CONTROLS:
                        start = time.perf_counter()
                        sizes[kind].append(len(ask(client, kind, number)))
                        seconds[kind] = time.perf_counter() - start
                    if round_number:
                        for kind, value in seconds.items():
                            times[kind].append(value)
    rows = []
    for kind in CONTROLS:
        more = [1000 * (ours - bare) for ours, bare in zip(times[kind], times["alone"], strict=True)]
        deciles = statistics.quantiles(more, n=10)
        figures = [1000 * statistics.median(times[kind]), 1000 * statistics.median(times["alone"])]
        size = statistics.median(sizes[kind]) / 1000
        rows.append(
            (
                kind,
                f"{figures[0]:.0f} - {figures[1]:.0f} ms",
                f"{statistics.median(more):.0f}",
                f"{deciles[0]:.0f} to {deciles[-1]:.0f}",
                "<= 100",
                f"{size:.0f} kB",
            )
        )
    load_average = os.getloadavg()[0]
    how = (
        f"{arguments.rounds} rounds of {len(images)} drawn JPEGs with a mask, of {GLAS_SHAPE[1]} x {GLAS_SHAPE[0]} "
        f"pixels, one task a request, {default_model().name}; client and server on the same {machine()}, "
        f"load average {load_average:.1f} at the end (other work runs beside)."
    )
    titles = ("what is asked for", "with Label Studio's protocol - alone", "more, ms", "10 % to 90 %", "goal", "answer")
    write_report(arguments.out, "Predictions for Label Studio", how, table(titles, rows))


def predict(predictor: Predictor, image: bytes) -> Mask:
    """Do what is at the core of the answer."""
    return predictor.predict(decode(image)).mask()


def ask(client: httpx.Client, kind: str, number: int) -> bytes:
    """Ask for one task as Label Studio does."""
    request = {
        "tasks": [{"id": 1, "data": {"image": f"/data/local-files/?d={number}.jpg"}, "annotations": [], "project": 1}],
        "project": "1.1700000000",
        "label_config": CONFIG.format(control=CONTROLS[kind]),
        "params": {"login": None, "password": None, "context": None},
    }
    answer = client.post("/label-studio/predict", json=request).raise_for_status()
    (found,) = json.loads(answer.content)["results"]
    if not found.get("result"):
        raise SystemExit(f"image {number}: {found}")
    return answer.content


if __name__ == "__main__":
    main()
