"""What a detector learns from what: the part of its run that the Accelerate loop and `Trainer` share."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader

from ....data.boxes.augmentation import BoxTransform
from ....data.boxes.dataset import BoxEvaluationTransform, BoxImages, box_pixels, collate_boxes
from ....data.boxes.tables import BoxData
from ....data.samplers import EpochMicroBatches, MicroBatches
from ....data.seeding import Stream, derived_seed
from ....modeling.detr_loss import average_over_processes, loss_counts
from ...optim.sample_dropout import SampleDropout
from ...runtime.progress import Reporter
from ..classification.evaluation import Evaluation
from ..classification.task import TrainingTask
from ..train_batches import table_loader
from .evaluation import evaluate_detector


class DetectionTask(TrainingTask):
    """A recipe with a detector and images with boxes. Differs from `TrainingTask` by the data, loss and figures."""

    data: BoxData  # type: ignore[assignment]

    @property
    def num_labels(self) -> int:
        """Number of classes."""
        return len(self.data.classes.names)

    @property
    def names(self) -> list[str]:
        """Of the classes."""
        return list(self.data.classes.names)

    @property
    def image_hw(self) -> list[int]:
        """The shorter and the longer side in pixels."""
        pixels = box_pixels(self.image_processor)
        return [pixels.shortest, pixels.longest]

    @property
    def problem(self) -> str:
        """What `metrics.json` calls it."""
        return "object_detection"

    @property
    def about_data(self) -> dict[str, Any]:
        """What `metrics.json` says of the data: also how many boxes there are, and how they were read."""
        more = {"boxes": self.data.boxes, "most_boxes": self.data.most_boxes(), "reading": self.data.reading}
        return super().about_data | more

    def train_images(self) -> BoxImages:  # type: ignore[override]
        """The training split with the training transform."""
        pixels = box_pixels(self.image_processor)
        transform = BoxTransform(self.recipe.boxes, pixels.shortest, list(pixels.mean), list(pixels.std))
        return BoxImages(self.data.train, transform, self.recipe.seed, "train", self._skips)

    @property
    def _skips(self) -> bool:
        return self.recipe.data.on_bad_image == "skip"

    def evaluation_images(self, split: str) -> BoxImages:  # type: ignore[override]
        """A split with the evaluation transform, the saved processor's."""
        transform = BoxEvaluationTransform(self.image_processor)
        return BoxImages(self.data.splits[split], transform, self.recipe.seed, split, self._skips)

    def evaluate(
        self, model: nn.Module, split: str, accelerator: Accelerator, reporter: Reporter, autocast: Any = None
    ) -> Evaluation:
        """COCO's figures of a detector on a split, and its loss."""
        found = evaluate_detector(
            model, self.evaluation_images(split), self.image_processor, self.num_labels,
            batch_size=self.recipe.evaluation.batch_size, workers=self.workers, autocast=autocast,
            accelerator=accelerator, max_bad_share=self.recipe.data.max_bad_share, reporter=reporter,
        )  # fmt: skip
        return Evaluation(found.counts, found.bad_images, found.loss)

    def looked_closer(self, split: str) -> dict[str, Any]:  # noqa: ARG002
        """Nothing more than the figures."""
        return {}

    def prepare_step(self, batches: Sequence[dict[str, Any]]) -> None:
        """Tells each piece of a step's batch what the terms of the loss are divided by, for all pieces together."""
        config = self.model.config
        counts = torch.stack([loss_counts(batch["labels"], config) for batch in batches]).mean(0)
        device = next(self.model.parameters()).device
        counts = average_over_processes(counts.to(device)).cpu()
        for batch in batches:
            batch["loss_counts"] = counts

    def loss(self, model: nn.Module, batch: dict[str, Any]) -> torch.Tensor:
        """The loss of a batch, or of a piece of one; the mean over the pieces is the loss of the whole."""
        step = self.step_of(batch)
        torch.manual_seed(derived_seed(self.recipe.seed, Stream.MODEL, step))
        arguments = {name: batch[name] for name in ("pixel_values", "pixel_mask")}
        arguments["labels"] = self._noised(batch, step)
        with self._dropout(batch, step):
            loss: torch.Tensor = model(**arguments, loss_counts=batch.get("loss_counts")).loss
        return loss

    def _noised(self, batch: dict[str, Any], step: int) -> list[dict[str, Any]]:
        """The targets with the noise of their denoising queries, drawn by sample."""
        labels: list[dict[str, Any]] = batch["labels"]
        slots = self.model.config.denoising_queries
        if not slots:
            return labels
        seeds = self._sample_seeds(Stream.NOISE, batch, step)
        draws = [torch.rand(slots, 6, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return [{**target, "noise": noise} for target, noise in zip(labels, draws, strict=True)]

    def _sample_seeds(self, stream: int, batch: dict[str, Any], step: int) -> list[int]:
        """One for each sample, by its place in the step's whole batch."""
        places = (batch["position"] % self.batch_size).tolist()
        return [derived_seed(self.recipe.seed, stream, step, place) for place in places]

    def _dropout(self, batch: dict[str, Any], step: int) -> AbstractContextManager[Any]:
        """Draws dropout by sample, where the graph is that of this very pass."""
        settings = self.recipe.model
        if settings.compile or settings.activation_checkpointing:
            return nullcontext()
        return SampleDropout(self._sample_seeds(Stream.DROPOUT, batch, step))

    def _loader(self, batches: MicroBatches | EpochMicroBatches) -> DataLoader[Any]:
        return table_loader(self.train_images(), batches, self.workers, collate_boxes)


__all__ = ["DetectionTask"]
