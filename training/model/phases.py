"""The two training phases: what a step computes, and which layers learn from it."""

from collections.abc import Mapping, Sequence

import lightning
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import OneCycleLR
from torch.optim.swa_utils import AveragedModel
from torchmetrics.classification import MulticlassAccuracy

from training.distributed.ranks import Ranks
from training.model.consistency import cut_mix, mean_teacher, open_under_cams, ramp_up, told_by_class
from training.model.losses import consistency_loss, dice_loss, mask_loss
from training.model.network import JointNet
from training.model.object_cams import heights, object_cams
from training.settings import Settings

Batch = Mapping[str, Tensor]
"""See `training.data.augmentation.Crops`."""


class Phase(lightning.LightningModule):
    """What both phases share: the network, the optimiser, one learning-rate cycle.

    Where several processes share a batch, each has a part of it, and all derive the loss of the whole.
    """

    ranks = Ranks()
    """The processes that share a batch."""
    keeps_statistics = True
    """Keep the encoder's batch-norm statistics where its weights learn: of a few images they would tell the classes."""

    def __init__(
        self, net: JointNet, rates: Sequence[tuple[nn.Module, float]], steps: int, weight_decay: float
    ) -> None:
        super().__init__()
        self.net = net
        self.trained = [(module, rate) for module, rate in rates if rate > 0]
        self.steps = steps
        self.weight_decay = weight_decay
        own = set(net.encoder.parameters())
        self.encoder_learns = any(own & set(module.parameters()) for module, _ in self.trained)

    def setup(self, stage: str) -> None:  # noqa: ARG002
        """Train what has a learning rate; keep everything else as it is, batch-norm statistics and dropout too."""
        self.net.eval().requires_grad_(requires_grad=False)
        for module, _ in self.trained:
            module.train().requires_grad_(requires_grad=True)
        if self.keeps_statistics:
            self.net.encoder.eval()

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW, one cycle of the learning rate."""
        groups = [{"params": list(module.parameters()), "lr": rate} for module, rate in self.trained]
        optimizer = torch.optim.AdamW(groups, weight_decay=self.weight_decay)
        rates = [rate for _, rate in self.trained]
        rise = 0.2 if self.steps > 5 else 0.4  # noqa: PLR2004  a rise of just one step, 0.2 of 5, divides by zero there
        cycle = OneCycleLR(optimizer, max_lr=rates, total_steps=self.steps, pct_start=rise)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}

    def encode(self, images: Tensor) -> list[Tensor]:
        """Return the encoder's feature maps; in float32 where it learns on a CPU, twice as quick there as bfloat16."""
        device = images.device.type
        half = torch.is_autocast_enabled(device) and not (self.encoder_learns and device == "cpu")
        with (
            torch.set_grad_enabled(self.encoder_learns),
            torch.autocast(device, torch.bfloat16, enabled=half),
            self.ranks.whole_batches(),
        ):
            return self.net.encode(images)

    def classify(self, features: list[Tensor]) -> Tensor:
        """Return the logits of the whole batch, float32 [batch, classes], of this process's feature maps."""
        with self.ranks.whole_batches():
            logits, _cams = self.net.classify(features)
        return self.ranks.whole(logits.float())

    def segment(self, features: list[Tensor]) -> Tensor:
        """Return the foreground logits of the whole batch, float32 [batch, height, width]."""
        with self.ranks.whole_batches():
            logits = self.net.segment(features)
        return self.ranks.whole(logits.float())


class ClassifierPhase(Phase):
    """Phase 1: a part of the encoder and the CAM head learn the class labels, by cross-entropy.

    Attributes:
        accuracy: Of the second half of the steps, on the images as they were seen, before they were learned from.
    """

    def __init__(self, net: JointNet, settings: Settings) -> None:
        rate = settings.classifier_lr
        encoder = nn.ModuleList(net.layers_after(settings.classifier_after))
        rates = [(encoder, rate), (net.cam_head, 4 * rate)]
        super().__init__(net, rates, settings.classifier_steps, settings.weight_decay)
        self.keeps_statistics = settings.pretrained or settings.encoder_weights is not None
        self.accuracy = MulticlassAccuracy(net.classes, average="micro", sync_on_compute=False)

    def training_step(self, batch: Batch, step: int) -> Tensor:
        """Return the cross-entropy of one batch."""
        if step == self.steps // 2:
            self.accuracy.reset()
        logits, labels = self.classify(self.encode(batch["image"])), self.ranks.whole(batch["label"])
        loss = functional.cross_entropy(logits, labels)
        self.log_dict({"loss": loss, "accuracy": self.accuracy(logits, labels)})
        return loss


class SegmenterPhase(Phase):
    """Phase 2: the decoder learns masks and pseudo-masks; encoder and CAM head are frozen, or learn along.

    Where they learn along, the class labels of all images are taught on, so that classification takes no harm. By
    consistency the images without a mask teach masks too.
    """

    def __init__(self, net: JointNet, settings: Settings) -> None:
        rates = [
            (net.decoder, settings.lr),
            (net.mask_head, settings.lr),
            (nn.ModuleList(net.layers_after(settings.encoder_after)), settings.encoder_lr),
            (net.cam_head, 4 * settings.encoder_lr),
        ]
        super().__init__(net, rates, settings.steps, settings.weight_decay)
        self.settings = settings
        self.teacher = mean_teacher(net, settings.teacher_momentum) if settings.uses_consistency else None

    def setup(self, stage: str) -> None:
        """Draw the mask's dropout; the teacher has none."""
        super().setup(stage)
        self.net.dropout.train()
        if self.teacher is not None:
            self.teacher.eval()

    def training_step(self, batch: Mapping[str, Batch], step: int) -> Tensor:
        """Return the loss of the masks, with that of consistency and that of the classes where these are taught.

        Args:
            batch: "labelled", images with a mask; and perhaps "everything", images with their class alone.
            step: Its number.
        """
        features = self.encode(batch["labelled"]["image"])
        loss = self._of_masks(features, batch["labelled"])
        everything = batch.get("everything")
        if everything is None:
            return loss
        images, taught, mixed = self._teach(everything)
        features = self.encode(images)
        if taught is not None:
            logits = self.segment(features)
            weight = self.settings.consistency_weight * ramp_up(step, self.steps)
            loss = loss + weight * consistency_loss(logits, taught, self.settings.certainty, self.settings.dice_weight)
        if self.encoder_learns:
            loss = loss + self._of_classes(features, self.ranks.whole(everything["label"]), ~mixed)
        return loss

    def _of_masks(self, features: list[Tensor], batch: Batch) -> Tensor:
        whole = self.ranks.whole
        known = whole(batch["mask"]), whole(batch["weight"]), whole(batch["pixel_weights"])
        logits = self.segment(features)
        loss = mask_loss(logits, *known)
        if self.settings.dice_weight:
            loss = loss + self.settings.dice_weight * dice_loss(logits, *known)
        self.log("loss", loss)
        return loss

    def _of_classes(self, features: list[Tensor], labels: Tensor, taught: Tensor) -> Tensor:
        """Return the cross-entropy of the images whose class is taught; 0 where there is none."""
        each = functional.cross_entropy(self.classify(features), labels, reduction="none")
        return (each * taught).sum() / taught.sum().clamp(min=1)

    @torch.no_grad()
    def _teach(self, batch: Batch) -> tuple[Tensor, Tensor | None, Tensor]:
        """Return images to learn from; and of the whole batch, the teacher's masks, and which images are mixed."""
        whole = self.ranks.whole
        if self.teacher is None:
            return batch["image"], None, torch.zeros_like(whole(batch["label"]), dtype=torch.bool)
        found = whole(self._found_by(self.teacher, batch))
        images, found, mixed = cut_mix(whole(batch["image"]), found, self.settings.cut_mix)
        return self.ranks.own(images), found, mixed

    def _found_by(self, teacher: AveragedModel, batch: Batch) -> Tensor:
        """Return the teacher's masks of the weak views, corrected by what their classes tell."""
        _logits, cams, mask = teacher(batch["weak"])
        found, labels, empty_classes = mask.float().sigmoid(), batch["label"], self.net.empty_classes
        if empty_classes:
            height = heights(object_cams(cams.float(), labels, empty_classes))
            found = open_under_cams(found, batch["least"], height, self.settings.cam_gate)
        return told_by_class(found, self.net.has_foreground(labels), self.settings.certainty)

    def on_train_batch_end(self, *_args: object) -> None:
        """Let the teacher follow."""
        if self.teacher is not None:
            self.teacher.update_parameters(self.net)

    def on_train_end(self) -> None:
        """Keep the teacher's weights: it is the steadier of the two."""
        if self.teacher is not None:
            self.net.load_state_dict(self.teacher.module.state_dict())
