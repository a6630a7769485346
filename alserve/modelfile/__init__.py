"""The contract between training and serving: one self-contained ONNX file.

Input `images`: uint8 [batch, height, width, 3], RGB, height and width multiples of 32, all dynamic. Outputs: `scores`
float32 [batch, classes], softmax; `cams` float32 [batch, classes, h, w], one class activation map a class; `mask`
float32 [batch, height, width], foreground probability. The metadata holds one JSON object, a `ModelSpec`, under the key
`alserve`; under `alserve_references` some images with the trained network's answers (see `Reference`), unless they were
left out; and under `alserve_sha256` the hash of all of these and the network together, so that a file that was damaged
on its way is noticed.
"""

from alserve.modelfile.contract import (
    INPUT,
    METADATA_KEY,
    OUTPUTS,
    REFERENCES_KEY,
    Contract,
    default_model,
    from_metadata,
    read_metadata,
    read_model,
    to_metadata,
    write_metadata,
)
from alserve.modelfile.references import MAX_IMAGES, SIDE, Reference
from alserve.modelfile.spec import (
    FORMAT_VERSION,
    MAX_SHORT_SIDE,
    CamStride,
    ClassNames,
    Cost,
    ModelSpec,
    Outputs,
    Parity,
    Precision,
    Provenance,
)

__all__ = [
    "FORMAT_VERSION",
    "INPUT",
    "MAX_IMAGES",
    "MAX_SHORT_SIDE",
    "METADATA_KEY",
    "OUTPUTS",
    "REFERENCES_KEY",
    "SIDE",
    "CamStride",
    "ClassNames",
    "Contract",
    "Cost",
    "ModelSpec",
    "Outputs",
    "Parity",
    "Precision",
    "Provenance",
    "Reference",
    "default_model",
    "from_metadata",
    "read_metadata",
    "read_model",
    "to_metadata",
    "write_metadata",
]
