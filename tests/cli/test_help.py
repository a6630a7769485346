"""What `--help` says: every command, every default, the names that an option may have; quickly, also without extras."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from command import Cli

import alserve
from alserve.outputs import OUTPUTS
from alserve.runtime.device import device_names
from training.query import STRATEGIES
from training.settings import METHODS, PRESETS, Settings

COMMANDS = {
    "train": ["demo", "data", "train", "annotate", "masks import", "masks export", "export", "experiment", "report"],
    "use": ["evaluate", "segment", "merge", "cluster-template", "serve", "package", "info", "doctor"],
}


def help_of(cli: Cli, command: str) -> str:
    code, out, _ = cli(*command.split(), "--help")
    assert code == 0
    return " ".join(out.split())


def options_of(text: str) -> dict[str, str]:
    """Return what is said of each option by its name."""
    parts = re.split(r" (--[a-z-]+) ", text.partition(" Options: ")[2])
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def run_python(program: str, cwd: Path) -> str:
    done = subprocess.run([sys.executable, "-c", program], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_help_names_every_command_and_exit_code(cli: Cli) -> None:
    text = help_of(cli, "")
    for command in [*COMMANDS["train"], *COMMANDS["use"]]:
        assert f" {command.split()[0]} " in text
    for code in ("0 all done", "1 some images or runs failed", "2 wrong usage", "3 a training run waits", "130 "):
        assert code in text


@pytest.mark.parametrize("command", [command for group in COMMANDS.values() for command in group])
def test_every_option_has_a_default_or_is_required(cli: Cli, command: str) -> None:
    text = help_of(cli, command)
    assert "{" not in text.partition(" Options: ")[2]
    for option, said in options_of(text).items():
        is_flag = not said.startswith(("<", "NAME", "I/N", "M-N", "data|"))
        assert is_flag or "[default: " in said or "required]" in said, option


def test_defaults_of_training_settings_are_shown(cli: Cli) -> None:
    said = options_of(help_of(cli, "train"))
    for name, field in Settings.model_fields.items():
        option = f"--{name.replace('_', '-')}"
        if option in said and field.default is not None and not isinstance(field.default, bool):
            assert f"[default: {field.default}]" in said[option].replace("- ", "-")


def test_names_come_from_where_the_parts_are(cli: Cli) -> None:
    train, segment = options_of(help_of(cli, "train")), options_of(help_of(cli, "segment"))
    for option, names in {"--query": STRATEGIES, "--method": METHODS, "--preset": PRESETS}.items():
        for name in names:
            assert name in train[option].replace("- ", "-"), option
    for name in OUTPUTS:
        assert name in segment["--save"]
    for name in device_names():
        assert name in segment["--device"]


def test_version(cli: Cli) -> None:
    assert cli("--version") == (0, f"alserve {alserve.__version__}\n", "")


def test_without_a_command_there_is_help_and_a_code_that_says_so(cli: Cli) -> None:
    code, out, _ = cli()
    assert code == 2
    assert "Usage: alserve [OPTIONS] COMMAND" in out


def test_a_module_is_the_command(tmp_path: Path) -> None:
    (tmp_path / "alserve").mkdir()  # an ordinary folder of this name is in nobody's way
    done = subprocess.run(
        [sys.executable, "-m", "alserve", "--version"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"alserve {alserve.__version__}\n"


HELP = """
import sys
{before}
from alserve.cli import main
for words in {commands}:
    sys.argv = ["alserve", *words.split(), "--help"]
    try:
        main()
    except SystemExit as exit:
        print("LOADED", words, exit.code, [name for name in ({names}) if name in sys.modules])
"""


def loaded(said: str) -> list[str]:
    """Return what each command's help has loaded."""
    return [line.removeprefix("LOADED ") for line in said.splitlines() if line.startswith("LOADED ")]


def test_help_loads_none_of_the_heavy_libraries(tmp_path: Path) -> None:
    names = "'torch', 'onnxruntime', 'cv2', 'numpy', 'bentoml', 'training'"
    said = run_python(HELP.format(before="", commands=[""], names=names), tmp_path)
    assert loaded(said) == [" 0 []"]


def test_help_of_no_command_loads_a_network_library(tmp_path: Path) -> None:
    commands = [command for group in COMMANDS.values() for command in group]
    names = "'torch', 'timm', 'bentoml', 'openvino'"
    said = run_python(HELP.format(before="", commands=commands, names=names), tmp_path)
    assert loaded(said) == [f"{command} 0 []" for command in commands]


def test_help_works_where_the_training_extra_is_missing(tmp_path: Path) -> None:
    without = (
        "for name in ('torch', 'timm', 'lightning', 'scipy', 'yaml', 'training.settings'): sys.modules[name] = None"
    )
    commands = ["train", "export", "masks export"]
    said = run_python(HELP.format(before=without, commands=commands, names=""), tmp_path)
    assert loaded(said) == [f"{command} 0 []" for command in commands]
    assert all(f"Usage: alserve {command} " in said for command in commands)
