"""What `benchmarks/folder.py` measures against, each as one would write it today; prints one JSON object of seconds.

python benchmarks/contenders.py eager RUN IMAGES OUT
python benchmarks/contenders.py plain MODEL IMAGES OUT
python benchmarks/contenders.py stages MODEL IMAGES OUT
"""

import dataclasses
import hashlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

SHORT_SIDE = 256


def working_size(height: int, width: int) -> tuple[int, int]:
    """Return (width, height) as OpenCV takes it: the short side 256, the long one a multiple of 32."""
    long_side = round(SHORT_SIDE * max(height, width) / min(height, width) / 32) * 32
    return (long_side, SHORT_SIDE) if width >= height else (SHORT_SIDE, long_side)


def write_pictures(out: Path, path: Path, mask: np.ndarray, cam: np.ndarray, shape: tuple[int, int]) -> None:
    """Write mask and CAM at the image's size."""
    size = shape[::-1]
    cv2.imwrite(str(out / f"{path.stem}-mask.png"), (cv2.resize(mask, size) > 0.5).astype(np.uint8) * 255)
    cam = (cam - cam.min()) / (cam.max() - cam.min() + 1e-6)
    cv2.imwrite(str(out / f"{path.stem}-cam.png"), (cv2.resize(cam, size) * 255).astype(np.uint8))


def eager(run: Path, images: list[Path], out: Path) -> dict[str, float]:
    """PyTorch as it comes: read, forward, CAM, resize, write, one image after the other."""
    import torch
    from safetensors.torch import load_file

    from training.model.network import JointNet
    from training.run.records import read_config

    net = JointNet(2, read_config(run)["settings"]["encoder"], pretrained=False)
    state = load_file(run / "state" / "latest.safetensors")
    net.load_state_dict({key.removeprefix("weights/"): value for key, value in state.items() if "weights/" in key})
    net.eval()

    def one(path: Path) -> None:
        image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        small = cv2.resize(image, working_size(*image.shape[:2]), interpolation=cv2.INTER_AREA)
        with torch.inference_mode():
            logits, cams, mask = net(torch.from_numpy(small).permute(2, 0, 1)[None])
        label = int(logits.softmax(dim=1).argmax())
        write_pictures(out, path, mask.sigmoid()[0].numpy(), cams[0, label].numpy(), image.shape[:2])

    return _loop(one, images)


def plain(model: Path, images: list[Path], out: Path) -> dict[str, float]:
    """ONNX Runtime as it comes: default threads, one image after the other."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])

    def one(path: Path) -> None:
        image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        small = cv2.resize(image, working_size(*image.shape[:2]), interpolation=cv2.INTER_AREA)
        scores, cams, mask = session.run(None, {"images": small[None]})
        write_pictures(out, path, mask[0], cams[0, int(scores.argmax())], image.shape[:2])

    return _loop(one, images)


def _loop(one: Callable[[Path], None], images: list[Path]) -> dict[str, float]:
    one(images[0])  # the first one is slower everywhere
    start = time.perf_counter()
    for path in images:
        one(path)
    return {"seconds": time.perf_counter() - start}


def stages(model: Path, images: list[Path], out: Path) -> dict[str, float]:
    """The parts of alserve's own work, each alone on one thread: seconds for all images."""
    from alserve import load
    from alserve.files import write_atomic
    from alserve.geometry import resize, working_shape
    from alserve.images.codec import decode, encode_png, to_grey

    predictor = load(model, device="cpu", threads=1)
    seconds = dict.fromkeys(("decode", "inference", "encode"), 0.0)
    predictor.predict(images[0])
    for path in images:
        start = time.perf_counter()
        data = path.read_bytes()
        hashlib.sha256(data).hexdigest()
        image = decode(data)
        small = resize(image, working_shape(image.shape[0], image.shape[1], predictor.spec.short_side))
        seconds["decode"] += time.perf_counter() - start
        start = time.perf_counter()
        predictor.engine.run(small[None])
        seconds["inference"] += time.perf_counter() - start
        prediction = predictor.predict(small)
        start = time.perf_counter()
        full = dataclasses.replace(prediction, height=image.shape[0], width=image.shape[1])
        mask = full.mask()
        write_atomic(out / f"{path.stem}-mask.png", encode_png(to_grey(mask)))
        write_atomic(out / f"{path.stem}-cam.png", encode_png(full.cam_grey()))
        np.count_nonzero(mask)
        seconds["encode"] += time.perf_counter() - start
    return seconds


if __name__ == "__main__":
    name, source, folder, target = sys.argv[1:]
    Path(target).mkdir(parents=True, exist_ok=True)
    contender = {"eager": eager, "plain": plain, "stages": stages}[name]
    print(json.dumps(contender(Path(source), sorted(Path(folder).iterdir()), Path(target))))
