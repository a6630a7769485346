"""The settings of a run: presets, names, and one clear line for every mistake."""

import pytest
from drawn import settings

from alserve.errors import DataError
from training.settings import METHODS, PUBLISHED_AS, Settings, parse_assignments


def test_settings_of_a_preset() -> None:
    assert Settings.of("glas", {"rounds": 3}).schedule == [4, 1, 1]
    assert Settings.of("cub", {}).schedule == [1] * 20
    assert Settings.of("cub", {}).any_orientation is False
    assert settings(method="all-masks").schedule == settings(method="cams-only").schedule == [0]
    assert (settings().passes_a_round, settings(method="masks-only").passes_a_round) == (2, 1)
    assert (settings(short_side=512).crop_side, settings().crop_side, settings(crop=32).crop_side) == (224, 64, 32)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            {"method": "magic"},
            "method=magic: unknown; there are consistency, label-propagation, masks-only, cams-only, all-masks",
        ),
        ({"method": "mask-only"}, "did you mean masks-only"),
        ({"method": ["random"]}, r"method=\['random'\]: unknown"),
        ({"short_side": 100}, "short_side=100: should be a multiple of 32"),
        ({"initial": 0}, "initial=0: should be "),
        ({"seed": -1}, "seed=-1: should be "),
        ({"crop": 512}, "crop 512 is larger than .* 256"),
        ({"query": "oldest"}, "unknown strategy 'oldest'; there are core-set, disagreement"),
        ({"query": "coreset"}, "did you mean core-set"),
        ({"speed": 3}, "unknown setting 'speed'; .*there are method, query"),
        ({"pseudo_target": "soft"}, "unknown setting 'pseudo_target'; did you mean pseudo_targets"),
        ({"pseudo_pixels": "some"}, "pseudo_pixels=some: unknown; there are all, weighted, certain"),
        ({"k": "many"}, "k=many: should be a valid number"),
    ],
)
def test_bad_settings(values: dict[str, object], words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        Settings.of(None, values)
    assert "\n" not in str(caught.value)


def test_classes_without_foreground_in_any_order() -> None:
    assert Settings.of(None, {}).empty_classes == ()
    for given in (["b", "a", "b"], ("a", "b"), {"a", "b"}):
        assert Settings.of(None, {"empty_classes": given}).empty_classes == ("a", "b")
    assert Settings.of(None, parse_assignments(["empty_classes=free"])).empty_classes == ("free",)
    with pytest.raises(DataError, match=r"empty_classes=.*: should be a valid string"):
        Settings.of(None, {"empty_classes": [False]})


def test_settings_by_name() -> None:
    given = parse_assignments(["k=0.1", "pseudo-targets = soft", "pseudo_flips=true", "crop=32"])
    chosen = Settings.of(None, given)
    assert (chosen.k, chosen.pseudo_targets, chosen.pseudo_flips, chosen.crop) == (0.1, "soft", True, 32)
    with pytest.raises(DataError, match=r"--set k: write it as NAME=VALUE"):
        parse_assignments(["k"])


def test_an_unknown_preset() -> None:
    with pytest.raises(DataError, match="unknown preset 'cells'; there are glas, cub"):
        Settings.of("cells", {})


@pytest.mark.parametrize(("ours", "published"), PUBLISHED_AS.items())
def test_the_papers_names_of_methods_are_understood(ours: str, published: str) -> None:
    assert Settings.of(None, {"method": published}) == Settings.of(None, {"method": ours})
    assert Settings.of(None, {"method": published}).method == ours
    assert ours in METHODS


def test_an_earlier_name_of_a_setting_is_understood() -> None:
    for value in ("no", False):
        assert Settings.of(None, {"upside_down": value}) == Settings(any_orientation=False)
    assert Settings.of("cub", {"upside_down": True}).any_orientation is True  # not the preset's


def test_whole_numbers_out_of_a_few_are_read_from_text() -> None:
    chosen = Settings.of(None, parse_assignments(["classifier_after=16", "cam_stride=32"]))
    assert (chosen.classifier_after, chosen.cam_stride) == (16, 32)
    with pytest.raises(DataError, match=r"^cam_stride=8: unknown; there are 16, 32$"):
        Settings.of(None, parse_assignments(["cam_stride=8"]))
    with pytest.raises(DataError, match=r"^encoder_after=3: unknown; there are 1, 2, 4, 8, 16$"):
        Settings.of(None, parse_assignments(["encoder_after=3"]))
