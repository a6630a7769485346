"""Write a trained network as one ONNX file, and prove that the file computes what the network computed."""

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from alserve.arrays import Float32, Image, Mask, UInt8
from alserve.errors import ModelError
from alserve.files import write_atomic
from alserve.geometry import STRIDE, resize
from alserve.modelfile import MAX_IMAGES, SIDE, ModelSpec, Parity, Reference, write_metadata
from alserve.runtime.engine import Engine
from training.export.graph import onnx_model
from training.model.network import JointNet, cam_mask

TOLERANCE = 1e-3
"""Largest difference of any output between the file and the network, in the output's own unit."""

PARITY_BATCHES = (1, 3)


Predict = Callable[[Image], tuple[Float32, Mask]]
"""Returns scores, [classes], and mask, [height, width], of an image at the working size."""

REFERENCE_CANDIDATES = 8
"""Largest number of images of a class that its reference is chosen from."""


class Served(nn.Module):
    """The network as it is served: pixels in, probabilities out, normalisation inside.

    Args:
        net: The trained network.
        mask_from_cams: Take the mask from the predicted class's CAM, scaled to 0..1 within the image, in place of
            the decoder's: what is left when no pixel mask was ever given.
    """

    def __init__(self, net: JointNet, *, mask_from_cams: bool = False) -> None:
        super().__init__()
        self.net = net
        self.mask_from_cams = mask_from_cams

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map uint8 images [batch, height, width, 3] to scores, cams and mask (see `alserve.modelfile`)."""
        features = self.net.encode(images.permute(0, 3, 1, 2))
        logits, cams = self.net.classify(features)
        mask = (
            cam_mask(cams, logits, images.shape[1:3]) if self.mask_from_cams else self.net.segment(features).sigmoid()
        )
        return logits.softmax(dim=1), cams, mask * self.net.presence(logits)


def export_model(
    net: JointNet,
    spec: ModelSpec,
    path: Path,
    images: Sequence[UInt8],
    *,
    mask_from_cams: bool = False,
    references: Callable[[Predict], Sequence[Image]] | None = None,
) -> ModelSpec:
    """Export a network, compare the file with it on real images, and move it into place.

    Args:
        net: The trained network; left on its device and in its mode.
        spec: The contract to store; the parity figures are added here.
        path: Where the file is to be.
        images: Some real images, uint8 [height, width, 3] of any size, for the comparison.
        mask_from_cams: See `Served`.
        references: Chooses, by what the network predicts, the pieces of images that the file carries with the network's
            answers, see `choose_references`. Default: none.

    Returns:
        The contract as stored, parity figures included.

    Raises:
        ModelError: The file differs from the network by more than `TOLERANCE`; nothing is written.
    """
    was_training, device = net.training, next(net.parameters()).device
    served = Served(net.cpu().float(), mask_from_cams=mask_from_cams).eval()
    try:
        model = onnx_model(served, spec.short_side)
        spec = spec.model_copy(update={"parity": _check_parity(served, model, spec, images)})

        def predict(image: Image) -> tuple[Float32, Mask]:
            answers = answer(served, image)
            return answers.scores, answers.mask > spec.threshold

        answered = [answer(served, image) for image in references(predict)] if references else []
    finally:
        net.train(was_training).to(device)
    write_atomic(path, write_metadata(model.SerializeToString(deterministic=True), spec, answered))
    return spec


def choose_references(images: Sequence[Image], labels: Sequence[int], predict: Predict) -> list[Image]:
    """Choose what a model file carries to check itself by: a piece of one image of a class, of four classes at most.

    Of an image it is the piece whose foreground is nearest to half of it: there a wrong mask shows. Of the first images
    of a class it is the one of such a piece, and of a class that the network is sure of, so that rounding decides
    nothing.

    Args:
        images: Training images at the working size: uint8 [height, width, 3].
        labels: Their classes.
        predict: The network.
    """
    classes = sorted(set(labels))
    chosen = []
    for label in classes[:: -(-len(classes) // MAX_IMAGES)]:
        members = [index for index, own in enumerate(labels) if own == label]
        first = (images[index] for index in members[:REFERENCE_CANDIDATES])
        pieces = [piece(image, predict(image)[1]) for image in first]
        worth = []
        for part in pieces:
            scores, mask = predict(part)
            best, second = np.sort(scores)[:-3:-1]
            worth.append(float(best - second) - abs(float(mask.mean()) - 0.5))
        chosen.append(pieces[int(np.argmax(worth))])
    return chosen


def piece(image: Image, mask: Mask) -> Image:
    """Cut out the piece, at most `SIDE` high and wide, whose foreground is nearest to half of it."""
    height, width = (min(side, SIDE) for side in mask.shape)
    tops, lefts = (range(0, whole - part + 1, STRIDE) for whole, part in zip(mask.shape, (height, width), strict=True))
    corners = [(top, left) for top in tops for left in lefts]
    shares = [mask[top : top + height, left : left + width].mean() for top, left in corners]
    top, left = corners[int(np.argmin(np.abs(np.array(shares) - 0.5)))]
    return np.ascontiguousarray(image[top : top + height, left : left + width])


def answer(served: Served, image: UInt8) -> Reference:
    """Return an image with the network's answers.

    Args:
        served: The network, on the CPU.
        image: uint8 [height, width, 3], sides multiples of `STRIDE`.
    """
    with torch.inference_mode():
        scores, cams, mask = (output[0].numpy() for output in served(torch.from_numpy(image.copy())[None]))
    return Reference(image, scores, cams, mask)


def stamp(path: Path, spec: ModelSpec, source: Path | None = None) -> None:
    """Write a model file, or a copy of another one, with a new contract, once more is known of the model."""
    write_atomic(path, write_metadata((source or path).read_bytes(), spec))


def _check_parity(
    served: Served, model: onnx.ModelProto, spec: ModelSpec, images: Sequence[UInt8]
) -> tuple[Parity, ...]:
    """Run the network and the file side by side, at two sizes and two batch sizes."""
    handle, name = tempfile.mkstemp(suffix=".onnx")
    with os.fdopen(handle, "wb") as file:
        file.write(write_metadata(model.SerializeToString(deterministic=True), spec))
    try:
        engine = Engine(Path(name), device="cpu", threads=torch.get_num_threads(), self_check=False)
    finally:
        Path(name).unlink()
    figures = []
    for shape in (
        (spec.short_side, spec.short_side + 2 * STRIDE),
        (spec.short_side + STRIDE, spec.short_side),
    ):
        for batch in PARITY_BATCHES:
            pixels = np.stack([resize(images[index % len(images)], shape) for index in range(batch)])
            with torch.inference_mode():
                expected = served(torch.from_numpy(pixels))
            pairs = zip(engine.run(pixels), expected, strict=True)
            difference = float(np.max([np.abs(theirs - ours.numpy()).max() for theirs, ours in pairs]))  # or NaN
            if not difference <= TOLERANCE:
                raise ModelError(
                    f"the exported model differs from the trained one by {difference:.2g} (allowed: {TOLERANCE}) "
                    f"for {batch} images of {shape[0]} x {shape[1]}; please report this"
                )
            figures.append(Parity(batch=batch, height=shape[0], width=shape[1], max_difference=difference))
    return tuple(figures)
