"""Measure folder inference against what a user writes today; write the table to benchmarks/results/folder.md.

    python benchmarks/folder.py runs/demo/run

All contenders run the same weights on the same drawn images of GlaS's size (522 x 775, JPEG), at a working short side
of 256 pixels, and write mask and class activation map at full size. Each runs in a process of its own; they take turns,
and the table gives ratios of medians, because machines are unsteady.
"""

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from common import ALSERVE, GLAS_SHAPE, HERE, RESULTS, draw_jpeg, machine, options, table, timed, write_report

from alserve import load
from alserve.errors import ModelError
from alserve.measure.dataset import load_dataset
from alserve.modelfile import Cost, read_metadata
from alserve.runtime.device import available_cores
from training.export.quantize import compare, loses_too_much
from training.export.run import export_run
from training.export.to_onnx import stamp
from training.run.records import read_config

SHORT_SIDE = 256
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
"""For the contenders: `training`, imported here, has changed how waiting threads behave."""

PEAK = (
    "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL); "
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
)
IMPORT_TYPER = [sys.executable, "-c", "import typer"]
OPEN_SESSION = "import onnxruntime, cv2; onnxruntime.InferenceSession('{}', providers=['CPUExecutionProvider'])"


def main() -> None:
    """Make what is needed, run all contenders in turn, write the table."""
    parser = options(__doc__)
    parser.add_argument("run", type=Path, help="a training run, such as runs/demo/run: its weights are measured")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--many", type=int, default=5000, help="images of the memory test")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(arguments.run, Path(folder), arguments.images)
        seconds = bench.race(arguments.rounds)
        rows = bench.rows(seconds) + bench.memory(arguments.many) + bench.starts()
        costs = [f"- {name}: {describe(cost, bench.refusal(name))}" for name, cost in bench.costs.items()]
    how = (
        f"`make bench`: {arguments.images} drawn images of {GLAS_SHAPE[0]} x {GLAS_SHAPE[1]}, JPEG; mask and CAM "
        f"written at full size; the same weights for all, working short side {SHORT_SIDE}. Medians of "
        f"{arguments.rounds} rounds, in turn in one run; {machine()}."
    )
    times = [(name, f"{statistics.median(taken):.2f}", f"{min(taken):.2f}") for name, taken in seconds.items()]
    write_report(
        RESULTS / "folder.md",
        "Folder inference",
        how,
        table(("measure", "found", "goal"), rows),
        table(("seconds for all images", "median", "least"), times),
        "Accuracy, on the test images of the run whose weights these are:",
        "\n".join(costs),
    )


class Bench:
    """The files that the contenders work on, and the measurements."""

    def __init__(self, run: Path, folder: Path, count: int) -> None:
        self.run, self.folder, self.count = run, folder, count
        self.images = folder / "images"
        for index in range(count):
            draw_jpeg(self.images / f"{index:04}.jpg", index)
        self.models = {"fp32": run / "model.onnx", "int8": folder / "exported.onnx"}
        self.refusals = {}
        try:
            export_run(run, self.models["int8"], "int8")
        except ModelError as error:
            self.refusals["alserve int8"] = str(error)
            export_run(run, self.models["int8"], "int8", force=True)
        self.costs = {}
        for name, device in (("int8", "cpu"), ("fp32", "openvino"), ("int8", "openvino")):
            contender = f"alserve {name}{' model, OpenVINO' if device == 'openvino' else ''}"
            try:
                load(self.models[name], device=device, threads=1)
            except ModelError as error:  # it does not pass its own check here
                self.refusals.setdefault(contender, str(error).replace(f"{folder}{os.sep}", ""))
            self.costs[contender] = self._cost(name, device)
        for name, path in self.models.items():
            target = folder / f"{name}.onnx"
            spec = read_metadata(path.read_bytes(), str(path)).spec.model_copy(update={"short_side": SHORT_SIDE})
            stamp(target, spec, path)
            self.models[name] = target

    def _cost(self, name: str, device: str) -> Cost:
        """Compare with the full model, on the run's own test images."""
        dataset = load_dataset(Path(read_config(self.run)["source"]))
        full = load(self.run / "model.onnx", device="cpu", threads=1)
        other = load(self.models[name], device=device, threads=1, self_check=False)
        return compare(full, other, dataset.split("test"))

    def refusal(self, contender: str) -> str | None:
        """Return why a precision is refused, by its gate or by its self-check; None if it is not."""
        return loses_too_much(self.costs[contender]) or self.refusals.get(contender)

    def race(self, rounds: int) -> dict[str, list[float]]:
        """Run all contenders in turn, some rounds; return their seconds, without start-up but for "whole command"."""
        here = str(HERE / "contenders.py")
        loops: dict[str, Callable[[Path], dict[str, float]]] = {
            "PyTorch eager loop": lambda out: self._said([here, "eager", self.run, self.images, out]),
            "plain ONNX Runtime loop": lambda out: self._said([here, "plain", self.models["fp32"], self.images, out]),
            "alserve fp32": lambda out: self._segment(out, "fp32", "cpu"),
            "alserve int8": lambda out: self._segment(out, "int8", "cpu"),
            "alserve fp32 model, OpenVINO": lambda out: self._segment(out, "fp32", "openvino"),
            "alserve int8 model, OpenVINO": lambda out: self._segment(out, "int8", "openvino"),
            "stages": lambda out: self._said([here, "stages", self.models["fp32"], self.images, out]),
        }
        seconds: dict[str, list[float]] = {}
        for number in range(rounds):
            for name, loop in loops.items():
                out = self.folder / f"out-{number}"
                for what, taken in loop(out).items():
                    key = name if what == "seconds" else f"{name}: {what}"
                    seconds.setdefault(key, []).append(taken)
                shutil.rmtree(out)
                print(f"round {number + 1}: {name}", file=sys.stderr)
        return seconds

    def _said(self, command: list[object]) -> dict[str, float]:
        done = subprocess.run(
            [sys.executable, *map(str, command)], capture_output=True, text=True, check=True, env=ENVIRONMENT
        )
        found: dict[str, float] = json.loads(done.stdout)
        return found

    def _segment(self, out: Path, model: str, device: str) -> dict[str, float]:
        start = time.perf_counter()
        done = subprocess.run(
            self._command(self.images, out, model, device), capture_output=True, text=True, check=True
        )
        whole = time.perf_counter() - start
        rate = float(re.search(r"([\d.]+) images/s", done.stdout)[1])
        return {"seconds": self.count / rate, "whole command": whole}

    def _command(self, images: Path, out: Path, model: str = "fp32", device: str = "cpu") -> list[str]:
        options = ["--model", str(self.models[model]), "--device", device, "--save", "mask,cam", "--no-self-check"]
        return [*ALSERVE, "segment", str(images), "--out", str(out), *options]

    def rows(self, seconds: dict[str, list[float]]) -> list[tuple[str, str, str]]:
        """Return the rows of the table that follow from the race."""
        median = {name: statistics.median(taken) for name, taken in seconds.items()}
        eager, fp32 = median["PyTorch eager loop"], median["alserve fp32"]
        passing = ["alserve fp32", *(name for name in self.costs if self.refusal(name) is None)]
        fastest = min(passing, key=lambda name: median[name])
        alone = sum(median[f"stages: {part}"] for part in ("decode", "inference", "encode"))

        def whole(name: str) -> float:
            return median[f"{name}: whole command"]

        return [
            ("alserve fp32 against a PyTorch eager loop", f"{eager / fp32:.2f}x", ">= 2.2x"),
            (f"fastest ({fastest}) against that eager loop", f"{eager / median[fastest]:.2f}x", ">= 5x"),
            (
                "alserve fp32 against a plain ONNX Runtime loop",
                f"{median['plain ONNX Runtime loop'] / fp32:.2f}x",
                ">= 1.5x",
            ),
            ("efficiency: stages alone over cores x time", f"{alone / (available_cores() * fp32):.2f}", ">= 0.92"),
            ("int8 against fp32, whole command", f"{whole('alserve fp32') / whole('alserve int8'):.2f}x", ">= 2x"),
        ]

    def memory(self, many: int) -> list[tuple[str, str, str]]:
        """Compare the peak memory of few and of many images; the many are links to the few."""
        lots = self.folder / "lots"
        lots.mkdir()
        for index in range(many):
            (lots / f"{index:05}.jpg").hardlink_to(self.images / f"{index % self.count:04}.jpg")
        peaks = []
        for images in (self.images, lots):
            out = self.folder / "peak"
            command = [sys.executable, "-c", PEAK, *self._command(images, out)]
            peaks.append(
                int(subprocess.run(command, capture_output=True, text=True, check=True, env=ENVIRONMENT).stdout)
            )
            shutil.rmtree(out)
        few, lot = (round(peak / 1024) for peak in peaks)
        text = f"{peaks[1] / peaks[0]:.3f}x ({few} and {lot} MiB)"
        return [(f"peak memory, {many} images against {self.count}", text, "<= 1.05x")]

    def starts(self, rounds: int = 9) -> list[tuple[str, str, str]]:
        """Compare start-up times, in turn."""
        one, out = self.images / "0000.jpg", self.folder / "start"
        commands = {
            "help": [*ALSERVE, "--help"],
            "typer": IMPORT_TYPER,
            "one image": self._command(one, out),
            "session": [sys.executable, "-c", OPEN_SESSION.format(self.models["fp32"])],
        }
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(rounds):
            for name, command in commands.items():
                shutil.rmtree(out, ignore_errors=True)
                seconds[name].append(timed(subprocess.run, command, capture_output=True, check=True, env=ENVIRONMENT))
        took = {name: statistics.median(taken) for name, taken in seconds.items()}

        def against(first: str, second: str) -> str:
            return f"{took[first] / took[second]:.2f}x ({took[first]:.2f} s and {took[second]:.2f} s)"

        return [
            ("`alserve --help` against `import typer`", against("help", "typer"), "<= 1.5x"),
            ("one image, cold, against imports and session alone", against("one image", "session"), "<= 1.3x"),
        ]


def describe(cost: Cost, refusal: str | None) -> str:
    """Describe whether a precision passes the accuracy gate of `alserve export` and its self-check."""
    before, after = cost.dice
    return (
        f"test Dice {100 * (before or 0):.2f} -> {100 * (after or 0):.2f} %, same label "
        f"{100 * cost.label_agreement:.0f} %, mask IoU with fp32 {cost.mask_iou:.3f}: "
        f"{f'refused ({refusal})' if refusal else 'passes the gate and its self-check'}"
    )


if __name__ == "__main__":
    main()
