"""The mask as a task of Label Studio with a prediction to correct: of one image, and of all images of a run."""

import json
from collections.abc import Iterable, Iterator

from alserve.certainty import certainty
from alserve.label_studio.config import FOREGROUND, MODEL, SETUP, read_config
from alserve.label_studio.images import LOCAL_FILES
from alserve.label_studio.regions import mask_regions
from alserve.outputs import OUTPUTS, Case, Joined, Output


def _encode(case: Case) -> bytes:
    """Return a task that fits the labelling configuration `SETUP`; its image is one of Label Studio's local files."""
    (control,) = read_config(SETUP)
    prediction = {
        "model_version": MODEL,
        "score": certainty(case.prediction.probability()),
        "result": mask_regions(control, FOREGROUND, case.mask),
    }
    return json.dumps({"data": {"image": f"{LOCAL_FILES}?d={case.name}"}, "predictions": [prediction]}).encode()


def _join(tasks: Iterable[bytes]) -> Iterator[bytes]:
    between = b"["
    for task in tasks:
        yield between
        yield task
        between = b","
    yield b"]" if between == b"," else b"[]"


OUTPUTS.add("label-studio")(
    Output(
        "a task of Label Studio with the mask to correct, in a run also all tasks in one file to import: JSON",
        "label-studio",
        _encode,
        ".json",
        "application/json",
        joined=Joined("label-studio.json", _join),
    )
)
