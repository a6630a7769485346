"""Nothing is sent anywhere: the libraries that would tell their makers of their use are told not to."""

import subprocess
import sys
from pathlib import Path

from server import clean_environment

LOOK = """
import alserve.predictor, os
print(os.environ["ORT_DISABLE_TELEMETRY"], os.environ["BENTOML_DO_NOT_TRACK"])
"""


def test_telemetry_is_off_before_the_libraries_are_loaded(tmp_path: Path) -> None:
    """ONNX Runtime complains of a home that cannot be written only where it would note an id for its telemetry."""
    environment = clean_environment(tmp_path, ORT_DISABLE_TELEMETRY="", BENTOML_DO_NOT_TRACK="", HOME="/dev/null")
    done = subprocess.run(
        [sys.executable, "-c", LOOK], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )

    assert done.stdout.split() == ["1", "True"]
    assert "telemetry" not in done.stderr
