"""Detection task: training of a model that finds boxes in images."""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from PIL import Image
from torch import nn
from transformers import PreTrainedModel

from ....data.boxes.augmentation import BoxTransform
from ....data.boxes.dataset import BoxEvaluationTransform, BoxImages, box_pixels, collate_boxes
from ....data.boxes.pictures import batch_pictures
from ....data.boxes.tables import BoxData
from ....data.samplers import TrainingOrder
from ....data.seeding import Stream, derived_seed, seed_torch
from ...optim.sample_dropout import SampleDropout
from ...recipe.recipe import Recipe
from ..task import TrainingTask
from ..train_batches import TableBatches
from .evaluation import BoxEvaluator
from .fixed_size import FixedSizeTransform, resized_batch, step_size
from .losses import DetectorLoss
from .third_party_losses import loss_notes, processes
from .third_party_models import Start, fixed_size, size_multiple


class DetectionTask(TrainingTask):
    """Training task of a detector on images with boxes.

    Args:
        recipe: Recipe of the run.
        model: Detector on the CPU, in float32.
        image_processor: Image processor of the evaluation transform, saved with the model.
        data: Splits of images with boxes.
        order: Order of the training images by step.
        criterion: Loss of the model.
        start: What the model began from; None for a model of this package.
    """

    data: BoxData

    def __init__(
        self,
        recipe: Recipe,
        model: PreTrainedModel,
        image_processor: Any,
        data: BoxData,
        order: TrainingOrder,
        criterion: DetectorLoss,
        start: Start | None = None,
    ) -> None:
        super().__init__(recipe, model, image_processor, data)
        self.criterion, self.start = criterion, start
        self.image_hw = fixed_size(image_processor)
        self._evaluation_images: dict[str, BoxImages] = {}
        self.batches = TableBatches(recipe, self.train_images, order, self.workers, collate_boxes)

    @property
    def leaves_parameters(self) -> bool:
        """True for detectors of transformers, some of whose parameters get no gradient from images without boxes."""
        return self.start is not None

    @property
    def problem(self) -> str:
        """Name of the problem in `metrics.json`."""
        return "object_detection"

    @property
    def names(self) -> list[str]:
        """Class names, in label order."""
        return list(self.data.classes.names)

    def input_facts(self) -> dict[str, Any]:
        """Returns `image_sides`: length of the shorter side, and greatest length of the longer side, in pixels.

        Where all images have one size, `fixed` is its height and width.
        """
        pixels = box_pixels(self.image_processor)
        fixed = {} if self.image_hw is None else {"fixed": list(self.image_hw)}
        return {"image_sides": {"shortest": pixels.shortest, "longest": pixels.longest, **fixed}}

    def model_facts(self) -> dict[str, Any]:
        """Returns `start`: classes kept by name and tensors that began anew; and `model_notes`, of the model's loss."""
        if self.start is None:
            return {}
        pieces = self.recipe.training.accumulation
        shapes = self.image_hw is None
        notes = [*self.start.lines(), *loss_notes(self.model.config, self.criterion, pieces * processes(), shapes)]
        return {"start": self.start.facts(), "model_notes": notes}

    def data_facts(self) -> dict[str, Any]:
        """Returns the entries of `metrics.json` about the data; adds the numbers of boxes and how they were read."""
        more = {"boxes": self.data.boxes, "most_boxes": self.data.most_boxes(), "reading": self.data.reading}
        return super().data_facts() | more

    def train_images(self) -> BoxImages:
        """Returns the training split with the training transform."""
        pixels = box_pixels(self.image_processor)
        settings, mean, std = self.recipe.boxes, list(pixels.mean), list(pixels.std)
        if self.image_hw is None:
            return self._images("train", BoxTransform(settings, pixels.shortest, mean, std))
        return self._images("train", FixedSizeTransform(settings, self.image_hw, mean, std))

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

    counted = "boxes"

    @property
    def varying_shapes(self) -> bool:
        """Whether the images of one batch may have other shapes than those of the next."""
        return self.image_hw is None or self.recipe.boxes.batch_scale != (1.0, 1.0)

    def class_counts(self) -> dict[str, dict[str, int]]:
        """Returns the number of boxes of each class by split, without crowds."""
        found = {}
        for split, table in self.data.splits.items():
            counts = Counter(
                number
                for numbers, crowds in zip(table["classes"], table["crowd"], strict=True)
                for number, crowd in zip(numbers, crowds, strict=True)
                if not crowd
            )
            found[split] = {name: counts[number] for number, name in enumerate(self.names)}
        return found

    def pictures(self, batch: Mapping[str, Any]) -> list[tuple[Image.Image, str]]:
        """Returns the images of a batch with the boxes of their targets."""
        pixels = box_pixels(self.image_processor)
        return batch_pictures(batch, self.names, list(pixels.mean), list(pixels.std))

    def prepare_step(self, batches: Sequence[dict[str, Any]]) -> None:
        """Checks the targets, and gives each part of a step's batch what its loss shares with the others.

        Raises:
            ValueError: Targets are wrong; the message names the image.
        """
        super().prepare_step(batches)
        for batch in batches:
            batch["labels"] = self._targets(batch)
        device = next(self.model.parameters()).device
        shares = self.criterion.shares([batch["labels"] for batch in batches], device)
        for batch, share in zip(batches, shares, strict=True):
            batch["loss_counts"] = share

    def loss(self, model: nn.Module, batch: dict[str, Any]) -> torch.Tensor:
        """Computes the loss of a batch, or of part of one; the mean over the parts is the loss of the whole batch."""
        seed_torch(derived_seed(self.recipe.seed, Stream.MODEL, self.step_of(batch)))
        if "loss_counts" not in batch:
            batch = {**batch, "labels": self._targets(batch)}
        batch = self._scaled(batch)
        with self._dropout(batch):
            loss, _ = self.criterion(model, batch)
        return loss

    def _scaled(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Resizes the images of a model with one size to the size drawn for the step, if the recipe asks for it."""
        factors = self.recipe.boxes.batch_scale
        if self.image_hw is None or factors == (1.0, 1.0):
            return batch
        multiple = size_multiple(self.model.config)
        size = step_size(self.image_hw, factors, multiple, self.recipe.seed, self.step_of(batch))
        pixels = resized_batch(batch["pixel_values"], size)
        return {**batch, "pixel_values": pixels, "pixel_mask": batch["pixel_mask"].new_ones((len(pixels), *size))}

    def _targets(self, batch: dict[str, Any]) -> Any:
        return self.criterion.targets(batch, self.sample_seeds(Stream.NOISE, batch))

    def _dropout(self, batch: dict[str, Any]) -> AbstractContextManager[Any]:
        """Returns a context that draws dropout per sample, if the graph is not compiled or recomputed."""
        settings = self.recipe.model
        if self.compiled != "no" or settings.activation_checkpointing:
            return nullcontext()
        return SampleDropout(self.sample_seeds(Stream.DROPOUT, batch))


__all__ = ["DetectionTask"]
