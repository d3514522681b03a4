"""Evaluation pass of a pretrained backbone over images: its loss, and its features of whole images."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ....data.labelled.dataset import LabelledImages, collate
from ....data.seeding import Stream, derived_seed
from ...runtime.batch_loading import BatchLoader, KeptLoaders
from ..evaluation import Part, shared_parts, useful_workers
from .feature_teacher import FeatureTeacher
from .learners import Learner
from .metrics import PretrainingMetrics
from .probe import Probe, ProbedImages

IMAGES_PER_WORKER = 512


class PretrainingEvaluator:
    """Evaluator of a learner on a split of images.

    The choices of each image, such as its mask, are drawn from the seed and the image's row: they are the same in every
    epoch.

    Args:
        learner: Learner, in whose loss the split is measured.
        images: Split with the evaluation transform.
        seed: Seed of the run.
        autocast: Context manager factory for the forward pass; None computes in the dtype of the weights.
        loaders: Loaders to use again.
        teacher: Teacher whose features are learned, or None.
        probe: Labelled images by which features are judged, which are the last rows of `images`; None for none.
    """

    largest_batch: int | None = None

    def __init__(
        self,
        learner: Learner,
        images: LabelledImages | ProbedImages,
        seed: int,
        autocast: Any,
        loaders: KeptLoaders,
        teacher: FeatureTeacher | None = None,
        probe: Probe | None = None,
    ) -> None:
        self.model: nn.Module = learner
        self.learner, self.images, self.seed, self.name = learner, images, seed, images.name
        self.autocast, self.loaders, self.teacher = autocast, loaders, teacher
        self.probe, self.own = probe, len(images) - (0 if probe is None else len(probe.labels))
        self.device = next(learner.parameters()).device

    def __len__(self) -> int:
        return len(self.images)

    def new_metrics(self, process: int, processes: int) -> PretrainingMetrics:  # noqa: ARG002
        """Makes empty sums for one of several processes."""
        return PretrainingMetrics(self.learner.vit.config.pooled_size, self.probe)

    def parts(self, batch_size: int, process: int = 0, processes: int = 1) -> list[Part]:
        """Returns the batches of one process, each as rows and the number of rows that count."""
        return shared_parts(len(self), batch_size, process, processes)

    def loader(self, parts: Sequence[Part], workers: int) -> BatchLoader:
        """Loads the batches; few images are loaded without a loading process, which is faster."""
        useful = useful_workers(workers, len(self), IMAGES_PER_WORKER)
        return self.loaders.loader(self.images, [rows for rows, _ in parts], collate, useful, self.device)

    def add(self, metrics: PretrainingMetrics, batch: dict[str, torch.Tensor], part: Part) -> list[int]:
        """Evaluates a batch and adds it to the sums; returns the rows that could not be decoded."""
        pixels = batch["pixel_values"].to(self.device, non_blocking=True)
        seeds = [derived_seed(self.seed, Stream.MASK, int(row)) for row in batch["index"]]
        if self.autocast is None:
            losses, features = self._answers(pixels, seeds)
        else:
            with self.autocast():
                losses, features = self._answers(pixels, seeds)
        good = torch.arange(len(pixels)) < part[1]
        bad: list[int] = []
        if "bad" in batch:
            bad = [int(row) for row in batch["bad"][good] if row >= 0]
            good &= batch["bad"] < 0
        of_probe = batch["index"] >= self.own
        kept = (good & ~of_probe).to(losses.device)
        metrics.update(losses[kept], features[kept])
        if bool((good & of_probe).any()):
            metrics.add_probe(batch["index"][good & of_probe] - self.own, features[(good & of_probe).to(losses.device)])
        return bad

    def _answers(self, pixels: torch.Tensor, seeds: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss (B,) and pooled features (B, D) of images, fp32."""
        height, width = pixels.shape[2:]
        draws = {name: values.to(pixels.device) for name, values in self.learner.draws(seeds, (height, width)).items()}
        if self.teacher is not None:
            draws |= self.teacher(pixels)
        losses = self.learner(pixel_values=pixels, **draws)
        return losses.float(), self.learner.judged(pixels).pooler_output.float()

    def loss(self, metrics: Any, bad: list[int]) -> None:
        """Returns None: the metrics hold the loss."""

    def describe(self, row: int) -> str:
        """Names the file or row of an image, for messages."""
        return self.images.describe(row)


__all__ = ["IMAGES_PER_WORKER", "PretrainingEvaluator"]
