"""The library as a program uses it: its names, their types, and the whole path from data to results."""

import subprocess
import sys
from inspect import Parameter, signature
from pathlib import Path

import pytest
from drawn import UNTRAINED

import alserve
from alserve import errors
from alserve.files import write_atomic
from alserve.measure.dataset import load_dataset
from training.data.synthetic import draw_dataset

PUBLIC = {
    "Failure",
    "PostProcessing",
    "Prediction",
    "Predictor",
    "Tiling",
    "errors",
    "evaluate",
    "export",
    "load",
    "segment",
    "train",
}


def run(program: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], cwd=cwd, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_dataset(tmp_path_factory.mktemp("data"), seed=3, train_per_class=3, test_per_class=1, size=(96, 128))


def test_the_names_are_these() -> None:
    assert set(dir(alserve)) == {*PUBLIC, "__version__"} == set(alserve.__all__)
    for name in alserve.__all__:
        assert getattr(alserve, name).__doc__
    with pytest.raises(AttributeError, match="module 'alserve' has no attribute 'predict'"):
        alserve.predict  # type: ignore[attr-defined]  # noqa: B018


def test_every_function_has_keywords_and_an_example() -> None:
    for function in (alserve.train, alserve.export, alserve.evaluate, alserve.segment, alserve.load):
        assert function.__doc__
        assert "Args:" in function.__doc__
        assert ">>> " in function.__doc__.partition("Example:")[2], function
        kinds = [parameter.kind for parameter in signature(function).parameters.values()]
        assert kinds.count(Parameter.KEYWORD_ONLY) >= len(kinds) - (2 if function is alserve.evaluate else 1)


def test_importing_it_loads_nothing_heavy(tmp_path: Path) -> None:
    program = """
import sys, alserve
heavy = ("torch", "training", "onnxruntime", "cv2", "numpy", "pydantic", "bentoml")
print([name for name in heavy if name in sys.modules])
alserve.segment, alserve.load, alserve.train
print([name for name in ("torch", "training") if name in sys.modules])
"""
    assert run(program, tmp_path).stdout.split("\n")[:2] == ["[]", "[]"]


def test_type_checkers_see_the_names(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        """
from pathlib import Path
import numpy as np
import alserve
predictor = alserve.load("a.onnx")
reveal_type(predictor.predict("a.png"))
reveal_type(predictor.predict(Path("a.png")).mask())
reveal_type(predictor.predict(np.zeros((4, 4, 3), np.uint8)))
reveal_type(predictor.predict(["a.png", b""]))
reveal_type(next(predictor.stream(["a.png"])))
reveal_type(next(predictor.stream(["a.png"], on_error="raise")))
reveal_type(alserve.train("data.csv", out="run"))
reveal_type(alserve.export("run", out="a.onnx"))
reveal_type(alserve.evaluate("a.onnx", "data.csv"))
reveal_type(alserve.segment(["a.png"], out="results"))
"""
    )
    command = [sys.executable, "-m", "mypy", "--strict", "--ignore-missing-imports", str(program)]
    folder = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    types = [line.split('"')[1] for line in done.stdout.splitlines() if "Revealed" in line]
    assert done.returncode == 0, done.stdout
    spec = "alserve.modelfile.spec"
    assert types == [
        "alserve.prediction.Prediction",
        "numpy.ndarray[tuple[Any, ...], numpy.dtype[numpy.bool[bool]]]",
        "alserve.prediction.Prediction",
        "list[alserve.prediction.Prediction]",
        "alserve.prediction.Prediction | alserve.prediction.Failure",
        "alserve.prediction.Prediction",
        "training.run.result.RunResult",
        f"tuple[pathlib.Path, {spec}.ModelSpec, {spec}.Cost | None, fallback=training.export.run.Exported]",
        "alserve.measure.evaluate.Figures",
        "alserve.folder.result.SegmentResult",
    ]


def test_from_data_to_results(table: Path, tmp_path: Path) -> None:
    records = []
    settings = {name: value for name, value in UNTRAINED.items() if name not in {"initial", "rounds", "encoder"}}
    made = alserve.train(
        str(table),
        out=str(tmp_path / "run"),
        method="masks-only",
        initial=1,
        rounds=2,
        encoder=UNTRAINED["encoder"],
        settings=settings,
        progress=records.append,
    )
    assert [record["round"] for record in records] == [1, 2]
    assert [dict(record) for record in made.rounds] == [dict(record) for record in records]
    assert (made.waiting, made.finished, made.model.is_file(), made.report.is_file()) == (False, True, True, True)

    exported = alserve.export(str(tmp_path / "run"), out=str(tmp_path / "tissue.onnx"))
    assert (exported.path, exported.cost) == (tmp_path / "tissue.onnx", None)
    assert exported.spec.classes == load_dataset(table).classes

    figures = alserve.evaluate(str(exported.path), str(table))
    assert figures.dice == pytest.approx(records[-1]["test_dice"])

    image = next((table.parent / "images").rglob("test-*"))
    result = alserve.segment([image], out=tmp_path / "results", model=exported.path, save=["mask"], device="cpu")
    prediction = alserve.load(exported.path, device="cpu").predict(image)
    (row,) = result.rows()
    assert row["label"] == prediction.label


def test_a_run_waits_for_a_persons_masks(table: Path, tmp_path: Path) -> None:
    drawing = tmp_path / "drawing"
    options = {**UNTRAINED, "rounds": 1}
    waiting = alserve.train(table, out=tmp_path / "run", oracle=f"folder:{drawing}", settings=options)
    assert (waiting.waiting, waiting.finished) == (True, False)
    for sample in load_dataset(table).split("train"):
        assert sample.mask is not None
        write_atomic(drawing / "masks" / Path(sample.name).with_suffix(".png"), sample.mask.read_bytes())
    done = alserve.train(table, out=tmp_path / "run", oracle=f"folder:{drawing}", settings=options)
    assert (done.waiting, done.finished) == (False, True)


def test_a_setting_that_does_not_fit_is_named_as_a_program_writes_it(table: Path, tmp_path: Path) -> None:
    for options, words in (
        ({"short_side": 100}, "short_side=100: should be a multiple of 32"),
        ({"settings": {"k": -1}}, "k=-1: should be greater than 0"),
        ({"settings": {"kk": 1}}, "unknown setting 'kk'; did you mean k"),
        ({"preset": "gals"}, "unknown preset 'gals'; did you mean glas"),
    ):
        with pytest.raises(errors.DataError, match=words):
            alserve.train(table, out=tmp_path / "run", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("call", ["alserve.train('data.csv', out='run')", "alserve.export('run', out='a.onnx')"])
def test_where_the_extra_is_missing_one_line_says_what_to_install(tmp_path: Path, call: str) -> None:
    done = run(f"import sys; sys.modules['torch'] = sys.modules['timm'] = None; import alserve; {call}", tmp_path)
    assert done.stderr.splitlines()[-1] == (
        "alserve.errors.AlserveError: training needs torch, timm; run: pip install 'alserve[train]'"
    )
