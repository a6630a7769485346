"""Time the network as it is served, with one decoder and another; write the table to benchmarks/results/decoders.md.

    python benchmarks/decoders.py separable-unet unet

The networks are exported untrained: their time does not depend on their weights. They run by turns, on one thread of
ONNX Runtime, so that whatever else the machine does slows them all; a ratio is the median over the rounds.
"""

import tempfile
from pathlib import Path
from statistics import median

import numpy as np
from common import RESULTS, machine, options, table, timed, write_report

from alserve.modelfile import ModelSpec, Provenance
from alserve.runtime.engine import Engine
from training.export.to_onnx import export_model
from training.model.decoders import UNETS
from training.model.encoders import DEFAULT_ENCODER
from training.model.network import JointNet

SHAPE = (256, 384)
"""Height and width of the images, in pixels: the working size of an image of GlaS."""


def main() -> None:
    """Export, run, write the table."""
    parser = options(__doc__)
    parser.add_argument("decoders", nargs="*", default=[*reversed(UNETS)])
    parser.add_argument("--encoder", default=DEFAULT_ENCODER)
    parser.add_argument("--rounds", type=int, default=25)
    arguments = parser.parse_args()
    image = np.random.default_rng(0).integers(0, 256, (1, *SHAPE, 3), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        engines, weights = [], []
        for decoder in arguments.decoders:
            net = JointNet(2, arguments.encoder, decoder).eval()
            weights.append(sum(each.numel() for each in net.decoder.parameters()))
            path = Path(folder) / f"{decoder}.onnx"
            export_model(net, spec_of(arguments.encoder, decoder), path, [image[0]])
            engines.append(Engine(path, device="cpu", threads=1, self_check=False))
        rounds = [[timed(engine.run, image) for engine in engines] for _ in range(arguments.rounds + 1)][1:]
    seconds = np.array(rounds)
    rows = [
        (
            decoder,
            f"{count / 1e6:.2f}",
            f"{1000 * median(seconds[:, place]):.1f}",
            f"{median(seconds[:, -1] / seconds[:, place]):.2f}",
        )
        for place, (decoder, count) in enumerate(zip(arguments.decoders, weights, strict=True))
    ]
    how = (
        f"`python benchmarks/decoders.py {' '.join(arguments.decoders)}`, encoder `{arguments.encoder}`, one image of "
        f"{SHAPE[0]} x {SHAPE[1]} at a time, one thread, float32, median of {arguments.rounds} rounds; {machine()}."
    )
    titles = ("decoder", "its weights, millions", "ms an image, all outputs", f"speed over {arguments.decoders[-1]}")
    write_report(RESULTS / "decoders.md", "Decoders: time to serve", how, table(titles, rows))


def spec_of(encoder: str, decoder: str) -> ModelSpec:
    """Return what the file has to say of itself."""
    made = Provenance(
        encoder=encoder,
        decoder=decoder,
        method="masks-only",
        seed=0,
        rounds=0,
        masks_used=0,
        train_images=0,
        data_fingerprint="none",
        versions={},
    )
    return ModelSpec(
        classes=("one", "other"), threshold=0.5, short_side=SHAPE[0], cam_range=(0, 1), cam_stride=16, provenance=made
    )


if __name__ == "__main__":
    main()
