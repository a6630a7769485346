"""Training and prediction with the network in memory.

Everything random is a function of (seed, step): a sample's crop and colours of its place in the sequence, a phase's
weights and dropout of the phase's seed. Workers, devices and earlier phases change none of it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

import lightning
import torch
from torch import Tensor
from torch.nn import functional

from alserve.arrays import Float32, Image
from alserve.errors import DeviceError
from alserve.terminal import say
from training.data.augmentation import Crops, pseudo_slots
from training.data.examples import Example
from training.distributed.group import ALONE, Group
from training.model.fit import AnyPhase, Fit
from training.model.network import JointNet, cam_mask
from training.model.phases import ClassifierPhase, SegmenterPhase
from training.seeds import derive_seed
from training.settings import Settings

KNOWN = 0.97
"""Accuracy on the images that are learned from, as they are augmented, from which on the classes are known."""

PLACE = 8
"""Working pixels, a side, of a place that a query strategy may ask about."""


@dataclass(frozen=True)
class Lesson:
    """What the segmentation phase learns from."""

    labelled: Sequence[Example]
    """Images whose mask is known: L, and those of classes without foreground; without any mask, images with a seed."""
    pseudo: Sequence[Example] = ()
    """Images with a pseudo-mask: P."""
    everything: Sequence[Example] = ()
    """All images with their class alone: D; looked at where the encoder learns along, and by consistency."""


@dataclass(frozen=True)
class Trainer:
    """Runs the phases, each process on one device, and predicts in the first.

    Args:
        settings: What to learn with.
        device: "auto", "cpu" or "cuda".
        group: The processes that train, of which this one is the first. Default: this one alone.

    Raises:
        DeviceError: There is no such device.
    """

    settings: Settings
    device: str = "auto"
    group: Group = ALONE

    def __post_init__(self) -> None:
        if self.device not in {"auto", "cpu", "cuda"}:
            raise DeviceError(f"unknown device '{self.device}' for training; use auto, cpu or cuda")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise DeviceError("cuda was asked for, but torch finds no CUDA device; use --device cpu, or auto")

    @property
    def accelerator(self) -> str:
        """Lightning's name of the device: "gpu" or "cpu"."""
        if self.device == "auto":
            return "gpu" if torch.cuda.is_available() else "cpu"
        return "gpu" if self.device == "cuda" else "cpu"

    @property
    def precision(self) -> str:
        """bfloat16 where the device computes in it, else float32."""
        capable = torch.cuda.is_bf16_supported() if self.accelerator == "gpu" else _cpu_has_bfloat16()
        return "bf16-mixed" if capable else "32-true"

    def new_network(self, classes: int, seed: int, empty_classes: Sequence[int] = ()) -> JointNet:
        """Build a network; its new layers are drawn from the seed.

        Args:
            classes: Number of classes.
            seed: Of the weights.
            empty_classes: Those without foreground, by their index.

        Raises:
            DataError: See `JointNet`.
        """
        lightning.seed_everything(seed, workers=True, verbose=False)
        settings = self.settings
        return JointNet(
            classes,
            settings.encoder,
            settings.decoder,
            pretrained=settings.pretrained,
            encoder_weights=settings.encoder_weights,
            mask_dropout=settings.mask_dropout,
            empty_classes=empty_classes,
            cam_stride=settings.cam_stride,
        )

    def train_classifier(self, net: JointNet, examples: Sequence[Example], seed: int) -> None:
        """Phase 1, in place: encoder and CAM head, on every training image with its class.

        It goes in cycles of the learning rate (warm restarts: Loshchilov and Hutter, SGDR, ICLR 2017), as many as
        `another_cycle` finds to be of use, and `Settings.classifier_cycles` at most.
        """
        settings, accuracies = self.settings, list[float]()
        while len(accuracies) < settings.classifier_cycles:
            cycle_seed = derive_seed(seed, len(accuracies))
            crops = Crops([(examples, settings.batch)], settings, settings.classifier_steps, cycle_seed, whole=True)
            phase = self._fit(ClassifierPhase, net, crops, cycle_seed, "classifier")
            accuracies.append(float(phase.accuracy.compute()))
            seen = (settings.classifier_steps - settings.classifier_steps // 2) * settings.batch
            if not another_cycle(accuracies, seen):
                break
        shares = ", ".join(f"{100 * each:.1f} %" for each in accuracies)
        say(f"classifier: {len(accuracies)} x {settings.classifier_steps} steps; right while learning: {shares}")

    def train_segmenter(self, net: JointNet, lesson: Lesson, seed: int, what: str) -> None:
        """Phase 2, in place: the decoder, on L and P; where `Settings.looks_at_all_images`, on all of D as well.

        Args:
            net: theta0.
            lesson: What to learn from.
            seed: Drives order, augmentation and dropout.
            what: What to call it on the progress bar.
        """
        settings = self.settings
        slots = pseudo_slots(settings, len(lesson.labelled), len(lesson.pseudo))
        groups = [(lesson.labelled, settings.batch - slots), (lesson.pseudo, slots)]
        crops = {"labelled": Crops(groups, settings, settings.steps, seed)}
        if lesson.everything and settings.looks_at_all_images:
            group = [(lesson.everything, settings.class_batch)]
            views = settings.uses_consistency
            crops["everything"] = Crops(group, settings, settings.steps, derive_seed(seed, 1), whole=True, views=views)
        self._fit(SegmenterPhase, net, crops, seed, what)

    def _fit(
        self, phase: type[AnyPhase], net: JointNet, crops: Crops | Mapping[str, Crops], seed: int, what: str
    ) -> AnyPhase:
        """Train a network in place, in all processes."""
        return self.group.run(Fit(phase, net, self.settings, crops, seed, what, self.accelerator, self.precision))

    @torch.no_grad()
    def predict(self, net: JointNet, images: Iterable[Image]) -> Iterator[tuple[Float32, Float32]]:
        """Return foreground probability [height, width] and CAMs [classes, h, w] of images at the working size."""
        device = self._prepare(net)
        try:
            for image in images:
                with torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bf16-mixed"):
                    logits, cams, mask = net(_batch_of_one(image, device))
                logits, cams = logits.float(), cams.float()
                found = (
                    cam_mask(cams, logits, image.shape[:2]) if self.settings.mask_from_cams else mask.float().sigmoid()
                )
                probability = found * net.presence(logits)
                yield probability[0].cpu().numpy(), cams[0].cpu().numpy()
        finally:
            net.cpu()

    @torch.no_grad()
    def classify(self, net: JointNet, images: Iterable[Image]) -> Iterator[tuple[Float32, Float32]]:
        """Return class scores before softmax [classes] and CAMs [classes, h, w] of images at the working size."""
        device = self._prepare(net)
        try:
            for image in images:
                with torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bf16-mixed"):
                    logits, cams = net.classify(net.encode(_batch_of_one(image, device)))
                yield logits[0].float().cpu().numpy(), cams[0].float().cpu().numpy()
        finally:
            net.cpu()

    @torch.no_grad()
    def features(self, net: JointNet, images: Iterable[Image]) -> Float32:
        """Return the encoder's last feature map of each image, averaged over its area: float32 [images, channels]."""
        device = self._prepare(net)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bf16-mixed"):
            found = [net.encode(_batch_of_one(image, device))[-1].float().mean(dim=(0, 2, 3)) for image in images]
        net.cpu()
        return torch.stack(found).cpu().numpy()

    @torch.no_grad()
    def places(self, net: JointNet, image: Image) -> tuple[Float32, Float32]:
        """Return all the encoder's feature maps and the CAMs of an image at the places of a grid of `PLACE` pixels.

        Returns:
            (features [places, channels], CAMs [classes, places]): means of what is finer, and what is coarser between.
        """
        device = self._prepare(net)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bf16-mixed"):
            maps = net.encode(_batch_of_one(image, device))
            _logits, cams = net.classify(maps)
        net.cpu()
        grid = (image.shape[0] // PLACE, image.shape[1] // PLACE)
        found = [
            functional.adaptive_avg_pool2d(each.float(), grid)
            if each.shape[-1] > grid[1]
            else functional.interpolate(each.float(), size=grid, mode="bilinear")
            for each in (*maps, cams)
        ]
        *features, cams = (each[0].flatten(1).cpu() for each in found)
        return torch.cat(features).T.numpy(), cams.numpy()

    @torch.no_grad()
    def draw_masks(self, net: JointNet, image: Image, draws: int, seed: int) -> Float32:
        """Return the foreground probability under draws of the mask's dropout: float32 [draws, height, width]."""
        device = self._prepare(net)
        net.dropout.train()
        with (
            torch.random.fork_rng(),
            torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bf16-mixed"),
        ):
            torch.manual_seed(seed)
            features = net.encode(_batch_of_one(image, device))
            present = net.presence(net.classify(features)[0].float())
            found = [(net.segment(features).float().sigmoid() * present)[0] for _ in range(draws)]
        net.eval().cpu()
        return torch.stack(found).cpu().numpy()

    def _prepare(self, net: JointNet) -> torch.device:
        """Put a network on the device, to predict."""
        device = torch.device("cuda" if self.accelerator == "gpu" else "cpu")
        net.eval().to(device).to(memory_format=torch.channels_last)
        return device


def another_cycle(accuracies: Sequence[float], images: int) -> bool:
    """Tell whether the classifier is to learn for a further cycle.

    It is where it does not know the images yet that it learns from, unless the last cycle was no better than the one
    before by more than one standard error. Of a large data set most images are seen for the first time, and the
    accuracy is that of new images; of a small one it also tells when there is nothing left to learn from.

    Args:
        accuracies: Of the cycles so far, 0 to 1, see `ClassifierPhase`.
        images: Number of images that each was measured on.
    """
    *before, now = accuracies
    if now >= KNOWN:
        return False
    if not before:
        return True
    error = sqrt((now * (1 - now) + before[-1] * (1 - before[-1])) / images)
    return now - before[-1] > error


def _batch_of_one(image: Image, device: torch.device) -> Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)[None].to(device)


def _cpu_has_bfloat16() -> bool:
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16") or capabilities.get("bf16"))
