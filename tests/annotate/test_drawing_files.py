"""The files of a mask that is drawn in the browser: what a run sees after every step, and what is never lost."""

from pathlib import Path

import numpy as np
import pytest
from pictures import encoded, picture

from alserve.arrays import Mask
from alserve.errors import DataError
from alserve.files import write_atomic
from alserve.images.codec import decode_mask
from alserve.measure.dataset import Sample
from training.annotate.browser.drawing import DONE, ChangedError, DoubtError, Drawing, State
from training.annotate.oracle import FolderOracle, NoMask

SHAPE = (40, 61)


@pytest.fixture
def drawing(tmp_path: Path) -> Drawing:
    write_atomic(tmp_path / "images" / "a" / "1.b.jpg", encoded(picture(*SHAPE), "JPEG"))
    return Drawing(tmp_path, "a/1.b.jpg")


def square(size: int = 10) -> Mask:
    mask = np.zeros(SHAPE, bool)
    mask[5 : 5 + size, 5 : 5 + size] = True
    return mask


def answer(drawing: Drawing, tmp_path: Path) -> object:
    """What a run would take now."""
    (found,) = FolderOracle(tmp_path).ask([Sample(drawing.name, drawing.image, 0, None, "train")])
    return found


def test_a_run_sees_a_mask_when_it_is_finished_and_not_before(drawing: Drawing, tmp_path: Path) -> None:
    assert drawing.examine() == (State.TO_DRAW, "")
    drawing.save(square(), drawing.version)
    assert drawing.examine() == (State.BEGUN, "")
    assert answer(drawing, tmp_path) is NoMask.YET
    drawing.finish(sure=False)
    drawing.finish(sure=False)  # said twice
    assert drawing.examine() == (State.DRAWN, "")
    np.testing.assert_array_equal(answer(drawing, tmp_path), square())
    drawing.save(square(12), drawing.version)
    assert answer(drawing, tmp_path) is NoMask.YET
    np.testing.assert_array_equal(drawing.start()[1], square(12))


def test_skipping_and_nothing_here_can_be_taken_back(drawing: Drawing, tmp_path: Path) -> None:
    drawing.save(square(), "none")
    for act, state in ((drawing.skip, State.SKIPPED), (drawing.say_empty, State.EMPTY)):
        act()
        act()
        assert drawing.examine() == (state, "")
        assert state in DONE
        found = answer(drawing, tmp_path)
        assert found is NoMask.EVER if state == State.SKIPPED else not np.asarray(found).any()
    drawing.skip()  # from one to the other
    assert answer(drawing, tmp_path) is NoMask.EVER
    drawing.reopen()
    assert drawing.examine() == (State.BEGUN, "")
    np.testing.assert_array_equal(drawing.start()[1], square())
    drawing.finish(sure=False)
    drawing.skip()
    assert answer(drawing, tmp_path) is NoMask.EVER
    drawing.reopen()
    drawing.finish(sure=False)
    np.testing.assert_array_equal(answer(drawing, tmp_path), square())
    assert [path.name for path in (tmp_path / "masks" / "a").iterdir()] == ["1.b.png"]


def test_masks_that_are_probably_not_meant_are_asked_about(drawing: Drawing, tmp_path: Path) -> None:
    with pytest.raises(DoubtError, match="nothing is drawn"):
        drawing.finish(sure=True)
    drawing.save(np.zeros(SHAPE, bool), drawing.version)
    with pytest.raises(DoubtError, match="nothing is drawn"):
        drawing.finish(sure=True)
    drawing.save(~square(), drawing.version)
    with pytest.raises(DoubtError, match="background"):
        drawing.finish(sure=False)
    assert drawing.examine() == (State.BEGUN, "")
    drawing.finish(sure=True)
    assert drawing.examine() == (State.DRAWN, "")
    np.testing.assert_array_equal(answer(drawing, tmp_path), ~square())


def test_a_mask_of_a_paint_program_is_the_start_and_its_file_is_kept(drawing: Drawing, tmp_path: Path) -> None:
    path = tmp_path / "masks" / "a" / "1.b.tif"
    content = encoded(square().astype(np.uint8) * 255, "TIFF")
    write_atomic(path, content)
    assert drawing.examine() == (State.DRAWN, "")
    kind, start = drawing.start()
    assert kind == "mask"
    np.testing.assert_array_equal(start, square())
    drawing.save(square(3), drawing.version)
    assert (drawing.examine()[0], path.exists()) == (State.BEGUN, False)
    assert (tmp_path / "begun" / "a" / "1.b.tif").read_bytes() == content
    write_atomic(path, content)
    with pytest.raises(ChangedError):
        drawing.save(square(4), "none")
    drawing.save(square(4), "*")
    drawing.finish(sure=False)
    np.testing.assert_array_equal(answer(drawing, tmp_path), square(4))


def test_a_mask_that_cannot_be_used_says_why_and_can_be_drawn_instead(drawing: Drawing, tmp_path: Path) -> None:
    path = tmp_path / "masks" / "a" / "1.b.png"
    write_atomic(path, encoded(np.eye(7, dtype=np.uint8)))
    state, problem = drawing.examine()
    assert state == State.FAULTY
    assert "7 x 7 pixels" in problem
    assert drawing.start() == ("nothing", None)
    with pytest.raises(DataError, match="7 x 7 pixels"):
        drawing.finish(sure=True)
    drawing.reopen()
    assert drawing.examine() == (State.TO_DRAW, "")
    assert (tmp_path / "begun" / "a" / "1.b.unusable.png").is_file()
    write_atomic(path, encoded(square().astype(np.uint8)))
    write_atomic(path.with_suffix(".bmp"), encoded(square().astype(np.uint8), "BMP"))
    assert "a second mask of the same name" in drawing.examine()[1]
    write_atomic(path.with_suffix(".bmp"), b"")
    drawing.skip()
    assert answer(drawing, tmp_path) is NoMask.EVER


def test_the_same_mask_again_is_no_change_by_somebody_else(drawing: Drawing, tmp_path: Path) -> None:
    drawing.save(square(), "none")
    drawing.save(square(), "none")  # the answer was lost, and the page tries again
    with pytest.raises(ChangedError):
        drawing.save(square(3), "none")
    assert decode_mask((tmp_path / "begun" / "a" / "1.b.png").read_bytes()).sum() == 100


def test_a_draft_is_a_start_and_no_more(drawing: Drawing, tmp_path: Path) -> None:
    write_atomic(tmp_path / "drafts" / "a" / "1.b.png", encoded(square().astype(np.uint8) * 255))
    assert drawing.start()[0] == "draft"
    assert drawing.examine() == (State.TO_DRAW, "")
    assert answer(drawing, tmp_path) is NoMask.YET


@pytest.mark.parametrize("name", ["../1.jpg", "/etc/passwd", "a/../../1.jpg", "a\\1.jpg", "C:1.jpg", ""])
def test_names_that_lead_out_of_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError):
        Drawing(tmp_path, name)
