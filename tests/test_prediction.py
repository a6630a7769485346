"""What a prediction says and shows: sizes, ranges, files, pictures."""

import base64
import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pictures import encoded, imagej_tiff, picture
from pycocotools.mask import decode as decode_rle

from alserve import Prediction, Predictor
from alserve.drawing import overlay
from alserve.errors import ImageError, OptionError
from alserve.images.codec import decode
from alserve.outputs import OUTPUTS
from alserve.postprocessing import PostProcessing


@pytest.fixture(scope="module")
def prediction(predictor: Predictor) -> Prediction:
    return predictor.predict([picture(150, 211)])[0]


@pytest.fixture
def of_a_file(predictor: Predictor, tmp_path: Path) -> Prediction:
    (tmp_path / "tissue.png").write_bytes(encoded(picture(150, 211)))
    return predictor.predict(tmp_path / "tissue.png")


def test_everything_has_the_size_of_the_image(prediction: Prediction) -> None:
    assert (prediction.height, prediction.width) == (150, 211)
    for view in (prediction.mask(), prediction.probability(), prediction.cam(), prediction.overlay()):
        assert view.shape[:2] == (150, 211)
    assert prediction.mask().dtype == np.bool_
    assert prediction.cam().dtype == prediction.probability().dtype == np.float32


def test_ranges(prediction: Prediction) -> None:
    for view in (prediction.probability(), prediction.cam()):
        assert view.min() >= 0
        assert view.max() <= 1
    assert sum(prediction.scores.values()) == pytest.approx(1, abs=1e-5)


def test_label_is_the_class_with_the_highest_score(prediction: Prediction) -> None:
    assert prediction.label == max(prediction.scores, key=lambda name: prediction.scores[name])
    assert tuple(prediction.scores) == prediction.spec.classes


def test_mask_is_the_probability_above_the_threshold(prediction: Prediction) -> None:
    np.testing.assert_array_equal(prediction.mask(), prediction.probability() > prediction.spec.threshold)
    ramp = np.tile(np.linspace(0, 1, 8, dtype=np.float32), (8, 1))
    drawn = replace(prediction, working_probability=ramp, height=8, width=8)
    assert [int(drawn.mask(threshold)[0].sum()) for threshold in (0, 0.5, 0.99, 1)] == [7, 4, 1, 0]


@pytest.mark.parametrize("threshold", [5, -0.1, float("nan")])
def test_a_threshold_that_is_no_probability_is_refused(prediction: Prediction, threshold: float) -> None:
    with pytest.raises(OptionError, match=f"threshold {threshold}: .*from 0 to 1"):
        prediction.mask(threshold)


def test_cam_of_a_class_is_scaled_by_the_models_range(prediction: Prediction) -> None:
    low, high = prediction.spec.cam_range
    ramp = np.linspace(low - 1, high + 1, 5, dtype=np.float32)
    maps = np.stack([np.tile(ramp, (4, 1)) + index for index in range(len(prediction.spec.classes))])
    drawn = replace(prediction, working_cams=maps, height=4, width=5)
    first = drawn.cam(prediction.spec.classes[0])
    np.testing.assert_allclose(first[0], np.clip((ramp - low) / (high - low), 0, 1), atol=1e-6)
    assert drawn.cam(prediction.spec.classes[1]).sum() > first.sum()


def test_cam_of_an_unknown_class(prediction: Prediction) -> None:
    first, second = prediction.spec.classes
    with pytest.raises(OptionError, match=f"unknown class 'zz'; there are {first}, {second}"):
        prediction.cam("zz")
    with pytest.raises(OptionError, match=f"did you mean {first}"):
        prediction.cam_grey(first[:-1])


def test_the_overlay_is_drawn_on_what_was_passed_or_on_the_file_read_again(
    prediction: Prediction, of_a_file: Prediction
) -> None:
    expected = overlay(picture(150, 211), prediction.mask())
    np.testing.assert_array_equal(prediction.overlay(), expected)
    np.testing.assert_array_equal(of_a_file.overlay(), expected)


def test_an_image_that_is_gone_or_another_one_is_not_drawn_on(of_a_file: Prediction) -> None:
    assert of_a_file.path is not None
    of_a_file.path.write_bytes(encoded(picture(40, 60)))
    with pytest.raises(ImageError, match=rf"{of_a_file.path}: is another image"):
        of_a_file.overlay()
    of_a_file.path.unlink()
    with pytest.raises(ImageError, match=rf"{of_a_file.path}: cannot be read"):
        of_a_file.save(of_a_file.path.with_name("overlay.png"))
    assert of_a_file._repr_png_() is None
    with pytest.raises(ImageError, match="without keeping its image"):
        replace(of_a_file, source=None).overlay()


@pytest.mark.parametrize(
    ("name", "output", "written"),
    [
        ("mask.png", None, "mask"),
        ("sub/tissue.png", None, "mask"),
        ("overlay.png", None, "overlay"),
        ("tissue-cam.png", None, "cam"),
        ("tissue_probability.PNG", None, "probability"),
        ("tissue.png", "overlay", "overlay"),
        ("cam.png", "mask", "mask"),
    ],
)
def test_a_file_gets_the_output_that_is_named(
    of_a_file: Prediction, tmp_path: Path, name: str, output: str | None, written: str
) -> None:
    path = of_a_file.save(tmp_path / "out" / name, output)
    expected = {
        "mask": of_a_file.mask() * np.uint8(255),
        "cam": of_a_file.cam_grey(),
        "probability": np.rint(of_a_file.probability() * 255),  # as `decode` reads 16 bits
        "overlay": of_a_file.overlay(),
    }[written]
    found = decode(path.read_bytes())
    np.testing.assert_allclose(found if written == "overlay" else found[..., 0], expected, atol=1)
    assert list((tmp_path / "out").rglob("*.tmp")) == []


def test_a_file_of_another_kind_or_an_unknown_output_is_refused(prediction: Prediction, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"mask\.jpg: output 'mask' is written as \.png"):
        prediction.save(tmp_path / "mask.jpg")
    with pytest.raises(OptionError, match="unknown output 'overlai'; did you mean overlay"):
        prediction.save(tmp_path / "a.png", "overlai")
    assert list(tmp_path.iterdir()) == []


def test_every_output_can_be_saved(prediction: Prediction, tmp_path: Path) -> None:
    for name, output in OUTPUTS.items():
        assert prediction.save(str(tmp_path / f"a-{name}{output.suffix}")).stat().st_size


@pytest.mark.parametrize(("name", "output"), [("a.json", "coco"), ("a.csv", "objects"), ("a.png", "mask")])
def test_a_suffix_names_an_output(prediction: Prediction, tmp_path: Path, name: str, output: str) -> None:
    written = prediction.save(tmp_path / name).read_bytes()
    assert written == prediction.save(tmp_path / f"other-{name}", output=output).read_bytes()


def test_objects_are_measured_by_what_the_file_states(predictor: Predictor, tmp_path: Path) -> None:
    post = PostProcessing(threshold=0.4, um_per_pixel="auto")
    data = imagej_tiff(picture(90, 120), 0.25)
    (tmp_path / "a.tif").write_bytes(data)
    for source, side in ((tmp_path / "a.tif", 0.25), (data, 0.25), (picture(90, 120), None)):
        path = predictor.predict(source).save(tmp_path / "objects.csv", post=post)
        (_, row, *_) = csv.reader(path.read_text().splitlines())
        assert row[-3] == ("" if side is None else f"{int(row[3]) * side**2:.6g}")


def test_as_plain_types(of_a_file: Prediction) -> None:
    found = json.loads(json.dumps(of_a_file.to_dict(mask=True)))
    assert found["path"] == of_a_file.path.as_posix()  # type: ignore[union-attr]
    assert (found["label"], found["height"], found["width"]) == (of_a_file.label, 150, 211)
    assert found["scores"] == pytest.approx(of_a_file.scores)
    mask = of_a_file.mask()
    assert found["foreground"] == pytest.approx(mask.mean())
    np.testing.assert_array_equal(decode_rle(found["mask"]), mask)
    assert "mask" not in of_a_file.to_dict()


def test_a_terminal_shows_it_in_one_line(prediction: Prediction, of_a_file: Prediction) -> None:
    words = f"{prediction.label} {max(prediction.scores.values()):.2f}, 211 x 150 pixels"
    assert repr(prediction).startswith(f"<Prediction {words}, ")
    assert repr(of_a_file).startswith(f"<Prediction tissue.png: {words}, ")
    assert repr(prediction).endswith("% foreground>")


def test_a_notebook_shows_a_small_picture(predictor: Predictor, prediction: Prediction, tmp_path: Path) -> None:
    """Run by the kernel that a notebook runs in."""
    assert prediction._repr_png_() is not None
    (tmp_path / "large.png").write_bytes(encoded(picture(1500, 900)))
    show = f"""
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook
cell = new_code_cell("import alserve\\n"
    "alserve.load({str(predictor.engine.path.absolute())!r}, device='cpu').predict('large.png')")
notebook = NotebookClient(new_notebook(cells=[cell]), kernel_name="python3").execute()
data = notebook.cells[0].outputs[0].data
print(data["text/plain"], data["image/png"].replace("\\n", ""), sep="\\n")
"""
    done = subprocess.run([sys.executable, "-c", show], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    text, png = done.stdout.splitlines()
    assert text.startswith("<Prediction large.png: ")

    height, width, _ = decode(base64.b64decode(png)).shape
    assert 300 < height < 500
    assert 550 < width < 700
