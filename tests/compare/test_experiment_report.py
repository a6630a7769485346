"""The report of an experiment, with `alserve report`."""

import json
import re
import shutil
from pathlib import Path

from command import Cli, assert_refused

from training.report.values import DASH
from training.run.result import describe_method


def test_the_report_of_an_experiment(longer: Path, cli: Cli) -> None:
    code, said, _ = cli("report", longer)
    assert (code, said.strip()) == (0, str(longer / "report.html"))
    table = (longer / "results.md").read_text()
    assert "| spread (label-propagation) | 2 | 4 | 91.0 ± 1.4 | 50.0 ± 0.0 | 85.5 ± 0.7 | +5.0 (n = 2) |" in table
    assert (
        f"| plain (masks-only, published as random) | 2 | 4 | 81.0 ± 1.4 | 50.0 ± 0.0 | 80.5 ± 0.7 | {DASH} |" in table
    )
    page = (longer / "report.html").read_text()
    for words in ("from 2 to 4 masks", "85.5 ± 0.7", "Against plain", "75.0 ± 0.0", "<td>0, 1</td>"):
        assert words in page, words
    assert page.count("Round 1: 2 images") == 2
    assert "Ablation" not in page
    assert cli("report", longer, "--between", "2-3")[0] == 0
    assert " ± 0.4 | +2.5 (n = 2) |" in (longer / "results.md").read_text()
    addresses = re.findall(r'(?:src|srcset|href)="([^"]{0,20})', page)
    assert len(addresses) >= 6
    assert all(address.startswith("data:image/") for address in addresses)
    figures = {path.name: path.read_bytes()[:5] for path in (longer / "figures").iterdir()}
    assert figures == {
        "dice.png": b"\x89PNG\r",
        "dice.svg": b"<?xml",
        "pseudo.png": b"\x89PNG\r",
        "pseudo.svg": b"<?xml",
    }


def test_what_differs_between_runs_of_a_method_is_an_ablation(longer: Path, cli: Cli) -> None:
    config = json.loads((longer / "spread-1" / "config.json").read_text())
    config["settings"] |= {"k": 0.5, "pseudo_weight": 0.125}
    (longer / "spread-1" / "config.json").write_text(json.dumps(config))
    shutil.copytree(longer / "spread-0", longer / "again")
    assert cli("report", longer)[0] == 0
    page = (longer / "report.html").read_text()
    method = describe_method("label-propagation")
    for words in (f"Ablation: {method}", "<th>k</th><th>pseudo weight (λ)</th>", "<td>0.5</td><td>0.125</td>"):
        assert words in page, words
    table = (longer / "results.md").read_text()
    for words in (f"{method.capitalize()}, what differs:", "|  | k | pseudo weight |", "| 0.5 | 0.125 |"):
        assert words in table, words
    assert "spread-0 is left out" in page or "again is left out" in page


def test_runs_of_one_budget_stand_in_rows(longer: Path, cli: Cli) -> None:
    for path in longer.glob("*/rounds.jsonl"):
        path.write_text(path.read_text().splitlines()[0] + "\n")
        config = json.loads((path.parent / "config.json").read_text())
        config["settings"]["rounds"] = 1
        (path.parent / "config.json").write_text(json.dumps(config))
    assert cli("report", longer)[0] == 0
    page, table = (longer / "report.html").read_text(), (longer / "results.md").read_text()
    for words in ("With 2 masks", "Test Dice, difference", "<th>Pseudo-masks</th><th>Their Dice</th>"):
        assert words in page, words
    assert "<h2>Budgets</h2>" not in page
    assert "| spread (label-propagation) | 2 | 2 | 80.0 ± 0.0 | 50.0 ± 0.0 | +0.0 (n = 2) |" in table
    assert "| masks |" not in table.replace("| seeds | masks |", "")
    assert len(list((longer / "figures").iterdir())) == 4


def test_unfinished_runs_and_data_that_are_gone(longer: Path, cli: Cli) -> None:
    rounds = longer / "plain-1" / "rounds.jsonl"
    rounds.write_text(rounds.read_text().splitlines()[0] + "\n")
    (longer / "spread-1" / "rounds.jsonl").unlink()
    for run in ("plain-0", "spread-0"):
        config = json.loads((longer / run / "config.json").read_text())
        (longer / run / "config.json").write_text(json.dumps({**config, "source": str(longer / "gone.csv")}))
    code, _, said = cli("report", longer)
    assert code == 0
    assert "no pictures in the report: " in said
    assert "gone.csv" in said
    page, table = (longer / "report.html").read_text(), (longer / "results.md").read_text()
    assert "plain-1 is not finished: round 2 comes next." in page
    assert "spread-1 is not finished: round 1 comes next." in page
    assert "| plain (masks-only, published as random) | 1 | 4 | 82.0 |" in table
    assert "Images that were asked for" not in page


def test_runs_without_test_masks_are_shown_without_curves(longer: Path, cli: Cli) -> None:
    for path in longer.glob("*/rounds.jsonl"):
        records = [{**json.loads(line), "test_dice": None} for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert cli("report", longer)[0] == 0
    table, page = (longer / "results.md").read_text(), (longer / "report.html").read_text()
    assert f"| spread (label-propagation) | 2 | 4 | {DASH} | 50.0 ± 0.0 |\n" in table
    assert "Learning curves" not in page
    assert "None" not in page
    assert not list((longer / "figures").glob("dice.*"))


def test_the_report_of_one_run(longer: Path, tmp_path: Path, cli: Cli) -> None:
    assert cli("report", longer / "spread-0", "--out", tmp_path / "one")[0] == 0
    page = (tmp_path / "one" / "report.html").read_text()
    for words in ("<h1>spread-0</h1>", "Images that the expert was asked for", "Their Dice", "Round 2: 2 images"):
        assert words in page, words
    assert sorted(path.name for path in (tmp_path / "one" / "figures").iterdir()) == ["dice.png", "dice.svg"]


def test_report_refuses(longer: Path, tmp_path: Path, cli: Cli) -> None:
    other = longer / "plain-0"
    assert_refused(cli("report", tmp_path), "holds no training run", "alserve experiment")
    assert_refused(cli("report", other, longer / "plain-1"), "--out")
    for text in ("24-8", "8", "eight-24"):
        assert_refused(cli("report", longer, "--between", text), f"--between {text}", "8-24")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "fingerprint": "f"}))
    assert_refused(cli("report", longer, "--out", tmp_path / "new"), "learned from other data")
    (other / "rounds.jsonl").unlink()
    assert_refused(cli("report", other), "no round is finished")
    assert not (tmp_path / "new").exists()
