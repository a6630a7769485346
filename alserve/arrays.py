"""The arrays that travel through the package, by what they hold: one name, one meaning."""

import numpy as np
import numpy.typing as npt

UInt8 = npt.NDArray[np.uint8]
"""Numbers from 0 to 255, of any shape."""

Image = UInt8
"""[height, width, 3], RGB."""

Grey = UInt8
"""[height, width], grey levels; or a share from 0 to 1 in 255ths."""

Mask = npt.NDArray[np.bool_]
"""[height, width], foreground or not."""

Float32 = npt.NDArray[np.float32]
"""Scores, probabilities and activations, of any shape."""

Float64 = npt.NDArray[np.float64]

Floats = npt.NDArray[np.floating]
"""Numbers of any precision."""
