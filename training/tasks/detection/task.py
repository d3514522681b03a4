"""Detection task: training of a model that finds boxes in images."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from ....data.boxes.augmentation import BoxTransform
from ....data.boxes.dataset import BoxEvaluationTransform, BoxImages, box_pixels, collate_boxes
from ....data.boxes.tables import BoxData
from ....data.samplers import TrainingOrder
from ....data.seeding import Stream, derived_seed
from ....modeling.detr_loss import average_over_processes, counts_of_sizes
from ....modeling.detr_targets import PaddedTargets, read_targets
from ...optim.sample_dropout import SampleDropout
from ...recipe.recipe import Recipe
from ..task import TrainingTask
from ..train_batches import TableBatches
from .evaluation import BoxEvaluator


class DetectionTask(TrainingTask):
    """Training task of a detector on images with boxes.

    Args:
        recipe: Recipe of the run.
        model: Detector on the CPU, in float32.
        image_processor: Image processor of the evaluation transform, saved with the model.
        data: Splits of images with boxes.
        order: Order of the training images by step.
    """

    data: BoxData

    def __init__(
        self, recipe: Recipe, model: PreTrainedModel, image_processor: Any, data: BoxData, order: TrainingOrder
    ) -> None:
        super().__init__(recipe, model, image_processor, data)
        self._evaluation_images: dict[str, BoxImages] = {}
        self.batches = TableBatches(recipe, self.train_images, order, self.workers, collate_boxes)

    @property
    def problem(self) -> str:
        """Name of the problem in `metrics.json`."""
        return "object_detection"

    @property
    def names(self) -> list[str]:
        """Class names, in label order."""
        return list(self.data.classes.names)

    def input_facts(self) -> dict[str, Any]:
        """Returns `image_sides`: length of the shorter side, and greatest length of the longer side, in pixels."""
        pixels = box_pixels(self.image_processor)
        return {"image_sides": {"shortest": pixels.shortest, "longest": pixels.longest}}

    def data_facts(self) -> dict[str, Any]:
        """Returns the entries of `metrics.json` about the data; adds the numbers of boxes and how they were read."""
        more = {"boxes": self.data.boxes, "most_boxes": self.data.most_boxes(), "reading": self.data.reading}
        return super().data_facts() | more

    def train_images(self) -> BoxImages:
        """Returns the training split with the training transform."""
        pixels = box_pixels(self.image_processor)
        transform = BoxTransform(self.recipe.boxes, pixels.shortest, list(pixels.mean), list(pixels.std))
        return self._images("train", transform)

    def _images(self, split: str, transform: BoxTransform | BoxEvaluationTransform) -> BoxImages:
        skips = self.recipe.data.on_bad_image == "skip"
        images = BoxImages(self.data.splits[split], transform, self.recipe.seed, split, skips)
        images.cache = self.caches.get(split)
        return images

    def evaluation_images(self, split: str) -> BoxImages:
        """Returns a split with the evaluation transform of the saved image processor."""
        if split not in self._evaluation_images:
            self._evaluation_images[split] = self._images(split, BoxEvaluationTransform(self.image_processor))
        return self._evaluation_images[split]

    def evaluator(self, model: nn.Module, split: str, autocast: Any = None) -> BoxEvaluator:
        """Returns an evaluator of a split for COCO's metrics and the loss."""
        images = self.evaluation_images(split)
        return BoxEvaluator(
            model, images, self.image_processor, len(self.names), autocast=autocast, loaders=self.loaders
        )

    def prepare_step(self, batches: Sequence[dict[str, Any]]) -> None:
        """Checks and pads the targets, and gives each part of a step's batch the divisors of the loss terms.

        The divisors are computed over all parts and processes.

        Raises:
            ValueError: Targets are wrong; the message names the image.
        """
        super().prepare_step(batches)
        for batch in batches:
            batch["labels"] = self._targets(batch)
        config = self.model.config
        counts = torch.stack([counts_of_sizes(batch["labels"].counts, config) for batch in batches]).mean(0)
        counts = average_over_processes(counts, next(self.model.parameters()).device)
        for batch in batches:
            batch["loss_counts"] = counts

    def loss(self, model: nn.Module, batch: dict[str, Any]) -> torch.Tensor:
        """Computes the loss of a batch, or of part of one; the mean over the parts is the loss of the whole batch."""
        torch.manual_seed(derived_seed(self.recipe.seed, Stream.MODEL, self.step_of(batch)))
        arguments = {name: batch[name] for name in ("pixel_values", "pixel_mask")}
        arguments["labels"] = self._targets(batch)
        with self._dropout(batch):
            loss: torch.Tensor = model(**arguments, loss_counts=batch.get("loss_counts")).loss
        return loss

    def _targets(self, batch: dict[str, Any]) -> PaddedTargets:
        """Returns the checked targets of a batch, with the noise of their denoising queries, drawn per sample."""
        labels = batch["labels"]
        if isinstance(labels, PaddedTargets):
            return labels
        config = self.model.config
        targets = read_targets(labels, len(labels), config, batch["pixel_values"].device)
        if config.denoising_queries:
            shape, seeds = (config.denoising_queries, 6), self.sample_seeds(Stream.NOISE, batch)
            draws = [torch.rand(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
            targets.noise = torch.stack(draws).to(targets.boxes.device, non_blocking=True)
        return targets

    def _dropout(self, batch: dict[str, Any]) -> AbstractContextManager[Any]:
        """Returns a context that draws dropout per sample, if the graph is not compiled or recomputed."""
        settings = self.recipe.model
        if self.compiled != "no" or settings.activation_checkpointing:
            return nullcontext()
        return SampleDropout(self.sample_seeds(Stream.DROPOUT, batch))


__all__ = ["DetectionTask"]
