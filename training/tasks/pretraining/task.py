"""Pretraining task: training of a backbone on images without labels."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from PIL import Image
from torch import nn

from ....data.image_processing import PixelFormat, pixel_format
from ....data.labelled.augmentation import TrainTransform
from ....data.labelled.dataset import EvaluationTransform, LabelledImages, collate
from ....data.samplers import TrainingOrder
from ....data.seeding import Stream, derived_seed, seed_torch
from ....data.streaming.images import StreamedImages
from ....data.streaming.streams import StreamOrder
from ...optim.sample_dropout import SampleDropout, drops_activations
from ...recipe.recipe import Recipe
from ...runtime.progress import Reporter
from ..batch_places import BatchPlace
from ..evaluation import Evaluation
from ..overview import picture_of
from ..task import TrainingTask
from ..train_batches import StreamedBatches, TableBatches
from .evaluation import PretrainingEvaluator
from .feature_teacher import FeatureTeacher
from .images import UnlabelledData
from .learners import Learner
from .metrics import PretrainingMetrics
from .multi_crop import MultiCrop
from .probe import Probe, ProbedImages
from .self_distillation import SelfDistillation

logger = logging.getLogger("vithub")


class PretrainingTask(TrainingTask):
    """Training task of a backbone on images without labels; the backbone alone is published.

    Args:
        recipe: Recipe of the run.
        learner: Backbone with the parts of its loss, on the CPU, in fp32.
        image_processor: Image processor of the evaluation transform, saved with the backbone.
        data: Splits of images.
        order: Order of the training images by step, for a table or a stream.
        teacher: Teacher whose features are learned, or None.
        probe: Labelled images by which features are judged, or None.
    """

    data: UnlabelledData

    def __init__(
        self,
        recipe: Recipe,
        learner: Learner,
        image_processor: Any,
        data: UnlabelledData,
        order: TrainingOrder | StreamOrder,
        teacher: FeatureTeacher | None = None,
        probe: Probe | None = None,
    ) -> None:
        super().__init__(recipe, learner.judged, image_processor, data)
        self._learner, self.teacher, self.probe = learner, teacher, probe
        self._evaluation_images: dict[str, LabelledImages | ProbedImages] = {}
        self.batches = self._batches(order)

    def _batches(self, order: TrainingOrder | StreamOrder) -> TableBatches | StreamedBatches:
        if isinstance(order, TrainingOrder):
            return TableBatches(self.recipe, self.train_images, order, self.workers, collate)
        skip = self.recipe.data.on_bad_image == "skip"
        images = StreamedImages(self._train_transform(), None, self.recipe.seed, skip)
        return StreamedBatches(self.recipe, self.data.train, order, images, self.workers)

    @property
    def problem(self) -> str:
        """Name of the problem: "pretraining"."""
        return "pretraining"

    @property
    def names(self) -> list[str]:
        """No class names: there are no labels."""
        return []

    @property
    def learner(self) -> Learner:
        """Backbone with the parts of its loss."""
        return self._learner

    @property
    def leaves_parameters(self) -> bool:
        """True if some weights of the backbone have no part in the loss: those that pool its tokens."""
        config = self.learner.vit.config
        return config.pool == "map" or config.norm_after_pool

    def input_facts(self) -> dict[str, Any]:
        """Returns `image_hw`: height and width of the backbone's input in pixels."""
        return {"image_hw": list(self.pixels.image_hw)}

    @property
    def pixels(self) -> PixelFormat:
        """Pixel format of the backbone's input."""
        return pixel_format(self.image_processor)

    def model_facts(self) -> dict[str, Any]:
        """Returns the entries of `metrics.json` about the method."""
        settings = self.recipe.pretraining
        about: dict[str, Any] = {"method": settings.method, "mask_ratio": settings.masked}
        about |= {"teacher": self.teacher.name} if self.teacher is not None else {}
        return {"pretraining": about | ({"probe": settings.probe} if self.probe is not None else {})}

    def prepare(self, device: torch.device, folder: Path) -> None:
        """Moves the learner and the teacher to a device."""
        super().prepare(device, folder)
        self.learner.to(device)
        if self.recipe.model.activation_checkpointing:  # the published backbone may be a teacher, which needs none
            self.learner.vit.activation_checkpointing_enable()
        if self.teacher is not None:
            self.teacher.to(device)

    def train_images(self) -> LabelledImages:
        """Returns the training split with the training transform."""
        return self._images("train", self._train_transform())

    def _train_transform(self) -> TrainTransform | MultiCrop:
        pixels = self.pixels
        if isinstance(self.learner, SelfDistillation):
            scale = self.recipe.pretraining.local_scale
            return MultiCrop(self.recipe.augmentation, pixels, self.learner.sizes, scale)
        return TrainTransform(self.recipe.augmentation, pixels.image_hw, list(pixels.mean), list(pixels.std))

    def _images(self, split: str, transform: Any) -> LabelledImages:
        skip = self.recipe.data.on_bad_image == "skip"
        images = LabelledImages(self.data.splits[split], transform, None, self.recipe.seed, split, skip_bad=skip)
        images.cache = self.caches.get(split)
        return images

    def evaluator(self, model: nn.Module, split: str, autocast: Any = None) -> PretrainingEvaluator:
        """Returns an evaluator of a split; the backbone is evaluated within its learner."""
        learner = model if isinstance(model, Learner) else self.learner
        if split not in self._evaluation_images:
            self._evaluation_images[split] = self._evaluated(split)
        images = self._evaluation_images[split]
        return PretrainingEvaluator(learner, images, self.recipe.seed, autocast, self.loaders, self.teacher, self.probe)

    def _evaluated(self, split: str) -> LabelledImages | ProbedImages:
        """Images of a split with the evaluation transform, followed by those of the probe."""
        transform = EvaluationTransform(self.image_processor)
        images = self._images(split, transform)
        if self.probe is None:
            return images
        skip = self.recipe.data.on_bad_image == "skip"
        more = LabelledImages(self.probe.images, transform, None, self.recipe.seed, "probe", skip_bad=skip)
        return ProbedImages(images, more)

    def evaluate(
        self, model: nn.Module, split: str, accelerator: Accelerator, reporter: Reporter, autocast: Any = None
    ) -> Evaluation:
        """Computes metrics on a split, and warns where the features of all images are nearly the same."""
        found = super().evaluate(model, split, accelerator, reporter, autocast)
        assert isinstance(found.metrics, PretrainingMetrics)
        if found.metrics.collapsed and accelerator.is_main_process:
            logger.warning(
                "the features collapse: the effective rank of those of %s is %.2f, so that all images look nearly the "
                "same; lower training.lr, warm up longer, or change the method's options",
                split, found.values["effective_rank"],
            )  # fmt: skip
        return found

    def epoch_facts(self, evaluation: Evaluation) -> dict[str, float]:
        """Returns the share of the effective rank, where k-NN accuracy is the headline."""
        if self.probe is None:
            return {}
        return {"validation_effective_rank_share": evaluation.values["effective_rank_share"]}

    def pictures(self, batch: Mapping[str, Any]) -> list[tuple[Image.Image, str]]:
        """Returns the images of a batch before any part is hidden, or all their views."""
        pixels, learner = batch["pixel_values"], self.learner
        mean, std = self.pixels.mean, self.pixels.std
        if not isinstance(learner, SelfDistillation):
            return [(picture_of(image, mean, std), "") for image in pixels]
        larges, smalls = learner.sizes.cut(pixels)
        found = []
        for number, views in enumerate(larges):
            found += [(picture_of(view, mean, std), f"image {number + 1}, large view") for view in views]
            if smalls is not None:
                found += [(picture_of(view, mean, std), f"image {number + 1}, small view") for view in smalls[number]]
        return found

    def prepare_step(self, batches: Sequence[dict[str, Any]]) -> None:
        """Prepares the parts of a step's batch; draws the choices of each image, such as its mask."""
        super().prepare_step(batches)
        self.learner.begin_step(self.step_of(batches[0]), BatchPlace.of(batches[0]).epoch, self.planned_steps)
        for batch in batches:
            drawn = self.learner.draws(self.sample_seeds(Stream.MASK, batch), self.pixels.image_hw)
            batch["drawn"] = list(drawn)
            batch |= drawn

    def loss(self, model: nn.Module, batch: dict[str, Any]) -> torch.Tensor:
        """Computes the mean loss of a batch, or of part of one, from its images alone."""
        window = (BatchPlace.of(batch).positions[0] % self.batch_size, self.batch_size)
        seed_torch(derived_seed(self.recipe.seed, Stream.MODEL, self.step_of(batch)))
        pixels, inputs = batch["pixel_values"], {name: batch[name] for name in batch["drawn"]}
        if self.teacher is not None:
            inputs |= self.teacher(pixels)
        with self._dropout(batch):
            losses: torch.Tensor = model(pixel_values=pixels, batch_window=window, **inputs)
        return losses.mean()

    def _dropout(self, batch: dict[str, Any]) -> AbstractContextManager[Any]:
        """Returns a context that draws dropout per sample, if any; none if the graph is compiled or recomputed."""
        model = self.recipe.model
        if self.compiled != "no" or model.activation_checkpointing or not drops_activations(self.learner):
            return nullcontext()
        return SampleDropout(self.sample_seeds(Stream.DROPOUT, batch))


__all__ = ["PretrainingTask"]
