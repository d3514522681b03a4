"""Detectors to compare, and the images with boxes to judge them on."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from ...data.boxes.dataset import BoxEvaluationTransform, BoxImages
from ...data.boxes.loading import load_box_data
from ...data.boxes.tables import ImageBoxes
from ...data.seeding import derived_generator
from ...data.sources import DataError
from ...data.splits import check_split
from ...training.tasks.detection.detections import Detections
from ...training.tasks.detection.evaluation import BoxEvaluator
from ...training.tasks.detection.loading import load_detector, read_outputs
from ...training.tasks.detection.saved_evaluation import class_numbers
from ...training.tasks.detection.third_party_models import size_multiple
from ...training.tasks.evaluation import evaluate_split
from ..image_sample import Runner

Pairs = list[tuple[Detections, ImageBoxes]]


@dataclass(frozen=True, eq=False)
class Detector:
    """One detector in a comparison, loaded once: its figures, errors, time and size are those of the same object.

    Args:
        name: Short name, unique in a comparison.
        source: Folder or Hub id from which it was loaded.
        model: Model in evaluation mode.
        processor: Image processor of the model.
    """

    name: str
    source: str
    model: Any
    processor: Any

    @property
    def library(self) -> str:
        """Library of the model: "vithub" or "transformers"."""
        return "vithub" if type(self.model).__module__.startswith("vithub.") else "transformers"

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    @property
    def num_labels(self) -> int:
        """Number of classes that the model knows."""
        return len(self.model.config.id2label)

    @property
    def multiple(self) -> int:
        """Number of pixels of which the sides of the model's images must be multiples."""
        return size_multiple(self.model.config)

    def image_hw(self, size: tuple[int, int] = (480, 640)) -> tuple[int, int]:
        """Returns the (height, width) that the image processor makes of a picture of (height, width) pixels."""
        pixels = self.processor(Image.new("RGB", size[::-1]), return_tensors="pt")["pixel_values"]
        return int(pixels.shape[-2]), int(pixels.shape[-1])

    def answer(self, pixels: torch.Tensor) -> list[Detections]:
        """Finds boxes in a batch (B, 3, height, width) of normalised images, decoding included."""
        sizes = torch.tensor([pixels.shape[-2:]] * len(pixels))
        return read_outputs(self.processor, self.model(pixel_values=pixels), sizes, self.num_labels)

    def described(self) -> dict[str, Any]:
        """Returns the entry of a report."""
        return {
            "name": self.name, "source": self.source, "library": self.library, "family": self.model.config.model_type,
            "architecture": type(self.model).__name__, "parameters": self.parameters,
            "image_hw": list(self.image_hw()),
        }  # fmt: skip


def load_compared_detector(source: str | Path, name: str | None = None) -> Detector:
    """Loads a detector, in fp32, from a folder or Hub id.

    Raises:
        CheckpointError: There is no such detector, or its weights do not fit.
    """
    model, processor = load_detector(source)
    if isinstance(model, nn.Module):
        model.float()
    return Detector(name or Path(source).name, str(source), model, processor)


@dataclass(eq=False)
class BoxSample:
    """Images with boxes on which all detectors are judged, and what each found in them.

    Args:
        name: Name of the data set.
        split: Name of the split.
        table: Rows of the drawn images, with the columns of `BOX_TABLE`.
        names: Class names.
        total: Number of images in the split from which the sample was drawn.
        runner: Precision and batch size.
    """

    name: str
    split: str
    table: Any
    names: tuple[str, ...]
    total: int
    runner: Runner
    _found: dict[str, Pairs] = field(default_factory=dict, repr=False)

    @cached_property
    def size(self) -> tuple[int, int]:
        """Median (height, width) of the images in pixels."""
        return int(np.median(self.table["height"])), int(np.median(self.table["width"]))

    def numbers(self, detector: Detector) -> list[int] | None:
        """Returns the data's number of each class of a detector; see `class_numbers`.

        Raises:
            DataError: The detector does not know a class of the data.
        """
        try:
            return class_numbers(self.names, detector.model.config.id2label)
        except DataError as error:
            raise DataError(f"{detector.name}: {error}") from error

    def pairs(self, detector: Detector) -> Pairs:
        """Returns what a detector finds in each image, up to 100 boxes per class, and the true boxes."""
        if detector.name not in self._found:
            images = BoxImages(self.table, BoxEvaluationTransform(detector.processor), name=self.split)
            # with the numbers given, no loss is computed
            numbers = self.numbers(detector) or range(len(self.names))
            evaluator = BoxEvaluator(
                detector.model, images, detector.processor, len(self.names), numbers, autocast=self.runner.mode
            )
            counts: Any = evaluate_split(evaluator, batch_size=self.runner.batch_size).metrics
            self._found[detector.name] = counts.pairs()
        return self._found[detector.name]


def draw_box_images(data: Any, count: int, seed: int, split: str | None, runner: Runner) -> BoxSample:
    """Draws images of a split in random order.

    Args:
        data: Data set with boxes, in any form that `finetune` takes.
        count: Largest number of images.
        seed: Seed of the draw.
        split: Name of the split; None takes "test" if it exists, else "validation".
        runner: Precision and batch size.

    Raises:
        DataError: The data cannot be used, the split does not exist, or its images have no box.
    """
    found = load_box_data(data)
    split = split or found.reported
    check_split(split, found.splits, found.name)
    table = found.splits[split]
    chosen = table.select(derived_generator(seed, 0).permutation(len(table))[:count])
    if not any(chosen["boxes"]):
        raise DataError(
            f"none of the {len(chosen)} images drawn from split {split!r} of {found.name} has a box, so that there is "
            f"nothing to find; take more images, or a split with boxes"
        )
    return BoxSample(found.name, split, chosen, found.classes.names, len(table), runner)


def check_classes(detectors: Sequence[Detector], sample: BoxSample) -> None:
    """Raises a `DataError` if a detector does not know a class of the data."""
    for one in detectors:
        sample.numbers(one)


__all__ = [
    "BoxSample",
    "Detector",
    "Pairs",
    "check_classes",
    "draw_box_images",
    "load_compared_detector",
]
