"""The two training phases, and prediction with the network in memory.

Everything random is a function of (seed, step): a sample's crop and colours of its place in the sequence, a phase's
weights and dropout of the phase's seed. Workers, devices and earlier phases change none of it.
"""

import logging
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import lightning
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader
from torchmetrics.classification import MulticlassAccuracy

from alserve.arrays import Float32, Image
from alserve.errors import DeviceError
from training.data.augmentation import Crops, Example, pseudo_slots
from training.model.network import JointNet, cam_mask
from training.model.progress import StepBar
from training.settings import Settings


class Phase(lightning.LightningModule):
    """What both phases share: the network, the optimiser, one learning-rate cycle."""

    def __init__(
        self, net: JointNet, rates: Sequence[tuple[nn.Module, float]], steps: int, weight_decay: float
    ) -> None:
        super().__init__()
        self.net = net
        self.trained = [(module, rate) for module, rate in rates if rate > 0]
        self.steps = steps
        self.weight_decay = weight_decay

    def on_fit_start(self) -> None:
        """Train what has a learning rate; keep everything else as it is, batch-norm statistics and dropout too."""
        self.net.eval().requires_grad_(requires_grad=False)
        for module, _ in self.trained:
            module.train().requires_grad_(requires_grad=True)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW, one cycle of the learning rate."""
        groups = [{"params": list(module.parameters()), "lr": rate} for module, rate in self.trained]
        optimizer = torch.optim.AdamW(groups, weight_decay=self.weight_decay)
        rates = [rate for _, rate in self.trained]
        rise = 0.2 if self.steps > 5 else 0.4  # noqa: PLR2004  a rise of just one step, 0.2 of 5, divides by zero there
        cycle = OneCycleLR(optimizer, max_lr=rates, total_steps=self.steps, pct_start=rise)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}


class ClassifierPhase(Phase):
    """Phase 1: encoder, or its last stage only, and CAM head learn the class labels, by cross-entropy."""

    def __init__(self, net: JointNet, settings: Settings) -> None:
        rate = settings.classifier_lr
        encoder = nn.ModuleList(net.last_stage()) if settings.classifier_depth == "last-stage" else net.encoder
        rates = [(encoder, rate), (net.cam_head, 3 * rate)]
        super().__init__(net, rates, settings.classifier_steps, settings.weight_decay)
        self.accuracy = MulticlassAccuracy(net.classes, average="micro")

    def training_step(self, batch: dict[str, Tensor], _: int) -> Tensor:
        """Return the cross-entropy of one batch."""
        logits, _cams = self.net.classify(self.net.encode(batch["image"]))
        loss = functional.cross_entropy(logits.float(), batch["label"])
        self.log_dict({"loss": loss, "accuracy": self.accuracy(logits, batch["label"])})
        return loss


class SegmenterPhase(Phase):
    """Phase 2: the decoder learns masks and pseudo-masks; encoder and CAM head are frozen, or learn along.

    Where they learn along, the class labels are taught on, so that classification takes no harm; batch-norm
    statistics stay frozen even then.
    """

    def __init__(self, net: JointNet, settings: Settings) -> None:
        rates = [
            (net.decoder, settings.lr),
            (net.mask_head, settings.lr),
            (net.encoder, settings.encoder_lr),
            (net.cam_head, settings.encoder_lr),
        ]
        super().__init__(net, rates, settings.steps, settings.weight_decay)
        self.frozen = settings.encoder_lr == 0

    def on_fit_start(self) -> None:
        """Keep the encoder's batch-norm statistics even where its weights learn."""
        super().on_fit_start()
        self.net.encoder.eval()
        self.net.dropout.train()

    def training_step(self, batch: dict[str, Tensor], _: int) -> Tensor:
        """Return mask loss, weighted an image, plus the cross-entropy where the encoder learns along."""
        with torch.set_grad_enabled(not self.frozen):
            features = self.net.encode(batch["image"])
        masks = mask_loss(self.net.segment(features).float(), batch["mask"], batch["weight"], batch["pixel_weights"])
        self.log("loss", masks)
        if self.frozen:
            return masks
        logits, _cams = self.net.classify(features)
        return masks + functional.cross_entropy(logits.float(), batch["label"])


def mask_loss(logits: Tensor, masks: Tensor, weights: Tensor, pixel_weights: Tensor | float = 1.0) -> Tensor:
    """Return (1/|B|) [sum over L of l(s, y) + lambda sum over P of l(s, y^)] (Belharbi et al., WACV 2021).

    l is the pixel-mean binary cross-entropy of one image; |B| counts the images that have a mask of either kind.

    Args:
        logits: [batch, height, width].
        masks: [batch, height, width], 0 to 1.
        weights: [batch]: 1 in L, lambda in P, 0 for an image without a mask.
        pixel_weights: [batch, height, width], 0 to 1: what each pixel's entropy counts in the mean (not in the paper).

    Returns:
        A scalar; 0 where no image has a mask.
    """
    pixels = functional.binary_cross_entropy_with_logits(logits, masks, reduction="none")
    losses = (pixels * pixel_weights).mean(dim=(1, 2))
    return (losses * weights).sum() / (weights > 0).sum().clamp(min=1)


@dataclass(frozen=True)
class Trainer:
    """Runs the phases on one device.

    Args:
        settings: What to learn with.
        device: "auto", "cpu" or "cuda".

    Raises:
        DeviceError: There is no such device.
    """

    settings: Settings
    device: str = "auto"

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

    def new_network(self, classes: int, seed: int) -> JointNet:
        """Build a network; its new layers are drawn from the seed."""
        lightning.seed_everything(seed, workers=True, verbose=False)
        settings = self.settings
        return JointNet(
            classes,
            settings.encoder,
            settings.decoder,
            pretrained=settings.pretrained,
            mask_dropout=settings.mask_dropout,
        )

    def train_classifier(self, net: JointNet, examples: Sequence[Example], seed: int) -> None:
        """Phase 1, in place: encoder and CAM head, on every training image with its class."""
        crops = Crops([(examples, self.settings.batch)], self.settings, self.settings.classifier_steps, seed)
        self._fit(ClassifierPhase(net, self.settings), crops, seed, "classifier")

    def train_segmenter(
        self,
        net: JointNet,
        labelled: Sequence[Example],
        others: Sequence[Example],
        seed: int,
        what: str,
    ) -> None:
        """Phase 2, in place: the decoder, on L and P.

        Args:
            net: theta0.
            labelled: Images of L with their masks.
            others: Images of P with their pseudo-masks; where the encoder learns along, images with a class only too.
            seed: Drives order, augmentation and dropout.
            what: What to call it on the progress bar.
        """
        slots = pseudo_slots(self.settings, len(labelled), len(others))
        groups = [(labelled, self.settings.batch - slots), (others, slots)]
        crops = Crops(groups, self.settings, self.settings.steps, seed)
        self._fit(SegmenterPhase(net, self.settings), crops, seed, what)

    def _fit(self, phase: Phase, crops: Crops, seed: int, what: str) -> None:
        lightning.seed_everything(seed, workers=True, verbose=False)
        on_gpu = self.accelerator == "gpu"
        loader = DataLoader(crops, self.settings.batch, num_workers=8 if on_gpu else 1, pin_memory=on_gpu)
        phase.net.to(memory_format=torch.channels_last)
        with _quiet():
            trainer = lightning.Trainer(
                accelerator=self.accelerator,
                devices=1,
                precision=self.precision,  # type: ignore[arg-type]
                max_epochs=1,
                deterministic="warn",
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                callbacks=[StepBar(what)],
            )
            trainer.fit(phase, loader)
        phase.net.eval().cpu()

    @torch.no_grad()
    def predict(self, net: JointNet, images: Iterable[Image]) -> Iterator[tuple[Float32, Float32]]:
        """Return foreground probability [height, width] and CAMs [classes, h, w] of images at the working size."""
        device = self._prepare(net)
        try:
            for image in images:
                with torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bf16-mixed"):
                    logits, cams, mask = net(_batch_of_one(image, device))
                cams = cams.float()
                probability = (
                    cam_mask(cams, logits, image.shape[:2]) if self.settings.mask_from_cams else mask.float().sigmoid()
                )
                yield probability[0].cpu().numpy(), cams[0].cpu().numpy()
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
            found = [net.segment(features)[0].float().sigmoid() for _ in range(draws)]
        net.eval().cpu()
        return torch.stack(found).cpu().numpy()

    def _prepare(self, net: JointNet) -> torch.device:
        """Put a network on the device, to predict."""
        device = torch.device("cuda" if self.accelerator == "gpu" else "cpu")
        net.eval().to(device).to(memory_format=torch.channels_last)
        return device


def _batch_of_one(image: Image, device: torch.device) -> Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)[None].to(device)


def _cpu_has_bfloat16() -> bool:
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16") or capabilities.get("bf16"))


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Lightning's hints, which are not for our users."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
