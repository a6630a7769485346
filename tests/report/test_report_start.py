"""A report starts in a second or two: it needs no torch."""

import subprocess
import sys


def test_a_report_loads_no_torch() -> None:
    program = "import sys; import training.report; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
