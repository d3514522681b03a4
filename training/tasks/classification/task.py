"""Classification task: training of a model that gives each image one label, or any number of labels."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from PIL import Image
from torch import nn
from transformers import PreTrainedModel

from ....data.columns import LABEL
from ....data.image_processing import PixelFormat, pixel_format
from ....data.labelled.augmentation import TrainTransform
from ....data.labelled.dataset import EvaluationTransform, LabelledImages, collate
from ....data.labelled.labels import label_counts
from ....data.labelled.mixing import mix_batch, targets_from_labels
from ....data.labelled.tables import ImageData
from ....data.samplers import TrainingOrder
from ....data.seeding import Stream, derived_seed, seed_torch
from ....data.streaming.images import StreamedImages
from ....data.streaming.streams import StreamOrder
from ....modeling.layers import KeptSamples, draw_kept_samples
from ....modeling.modeling_vit import HubViTPreTrainedModel
from ...optim.lora import ADAPTER, Adapters
from ...optim.parameter_groups import keep_frozen_statistics
from ...optim.sample_dropout import SampleDropout, drops_activations
from ...recipe.recipe import Recipe
from ..batch_places import BatchPlace
from ..evaluation import Evaluation
from ..overview import picture_of
from ..task import TrainingTask
from ..train_batches import StreamedBatches, TableBatches
from .closer_look import closer_look
from .evaluation import LabelEvaluator
from .feature_cache import CachedFeatures, caches_features
from .head_first import train_head_first
from .imbalance import ClassBalance
from .losses import TrainingLoss
from .metrics.temperature_facts import calibration_facts
from .teacher_cache import TeacherAnswers


class ClassificationTask(TrainingTask):
    """Training task of a classifier on labelled images.

    Args:
        recipe: Recipe of the run.
        model: Classifier on the CPU, in float32.
        image_processor: Image processor of the evaluation transform, saved with the model.
        data: Splits of labelled images.
        order: Order of the training images by step, for a table or a stream.
        criterion: Training loss.
        balance: Numbers of training images per class, and what the recipe does about their differences.
        teaching: Answers of a teacher, or None.
        adapters: Low-rank adapters that stay in the model until `finish`, or None.
    """

    data: ImageData

    def __init__(
        self,
        recipe: Recipe,
        model: PreTrainedModel,
        image_processor: Any,
        data: ImageData,
        order: TrainingOrder | StreamOrder,
        criterion: TrainingLoss,
        balance: ClassBalance,
        teaching: TeacherAnswers | None = None,
        adapters: Adapters | None = None,
    ) -> None:
        super().__init__(recipe, model, image_processor, data)
        self.criterion, self.balance, self.teaching, self.adapters = criterion, balance, teaching, adapters
        self.cached: CachedFeatures | None = None
        self._evaluation_images: dict[str, LabelledImages] = {}
        self.batches = self._batches(order)

    def _batches(self, order: TrainingOrder | StreamOrder) -> TableBatches | StreamedBatches:
        if isinstance(order, TrainingOrder):
            return TableBatches(self.recipe, self.train_images, order, self.workers, collate)
        skip = self.recipe.data.on_bad_image == "skip"
        images = StreamedImages(self._train_transform(), self._label_width(), self.recipe.seed, skip)
        return StreamedBatches(self.recipe, self.data.train, order, images, self.workers)

    @property
    def problem(self) -> str:
        """Problem type: "single_label_classification" or "multi_label_classification"."""
        return str(self.model.config.problem_type)

    @property
    def learner(self) -> nn.Module:
        """Module to train: the model, or its heads if a frozen backbone's features are cached."""
        return self.model if self.cached is None else self.cached.heads

    @property
    def names(self) -> list[str]:
        """Class names, in label order."""
        return list(self.data.labels.names)

    def input_facts(self) -> dict[str, Any]:
        """Returns `image_hw`: height and width of the model's input in pixels."""
        return {"image_hw": list(self.pixels.image_hw)}

    @property
    def pixels(self) -> PixelFormat:
        """Pixel format of the model's input."""
        return pixel_format(self.image_processor)

    def train_images(self) -> LabelledImages:
        """Returns the training split with the training transform."""
        return self._images("train", self._train_transform())

    def evaluation_images(self, split: str) -> LabelledImages:
        """Returns a split with the evaluation transform of the saved image processor."""
        if split not in self._evaluation_images:
            self._evaluation_images[split] = self._images(split, EvaluationTransform(self.image_processor))
        return self._evaluation_images[split]

    def _train_transform(self) -> TrainTransform:
        pixels = self.pixels
        return TrainTransform(self.recipe.augmentation, pixels.image_hw, list(pixels.mean), list(pixels.std))

    def _images(self, split: str, transform: Callable[[Any], torch.Tensor]) -> LabelledImages:
        skip = self.recipe.data.on_bad_image == "skip"
        images = LabelledImages(
            self.data.splits[split], transform, self._label_width(), self.recipe.seed, split, skip_bad=skip
        )
        images.cache = self.caches.get(split)
        return images

    def _label_width(self) -> int | None:
        return len(self.names) if self.data.labels.multi_label else None

    def evaluator(self, model: nn.Module, split: str, autocast: Any = None) -> LabelEvaluator:
        """Returns an evaluator of a split; heads on cached features use those of "validation"."""
        features = None if model is self.model or self.cached is None else self.cached.rows.get(split)
        images = self.evaluation_images(split) if features is None else features
        return LabelEvaluator(
            model, images, len(self.names), self.data.labels.multi_label, autocast, self.loaders, self.balance.headline
        )

    def data_facts(self) -> dict[str, Any]:
        """Returns the entries of `metrics.json` about the data, with those about imbalanced classes if there are."""
        return super().data_facts() | self.balance.facts()

    def sample_facts(self, split: str) -> dict[str, Any]:
        """Returns decisions on shifted images of a split, and examples of decisions."""
        return closer_look(
            self.model, self.evaluation_images(split), self.names, multi_label=self.data.labels.multi_label,
            batch_size=self.recipe.evaluation.batch_size, seed=self.recipe.seed,
        )  # fmt: skip

    def calibration_facts(self, evaluations: Mapping[str, Evaluation]) -> dict[str, Any]:
        """Returns the temperature fitted on the validation split, and what it changes."""
        return {"calibration": calibration_facts({name: found.metrics for name, found in evaluations.items()})}

    def teacher_facts(self) -> dict[str, Any] | None:
        """Returns the teacher's name and the kind of distillation; None without a teacher."""
        if self.teaching is None:
            return None
        name = self.teaching.teacher.name
        return {"name": name, "kind": self.recipe.distillation.kind, "through": self.criterion.through}

    def prepare(self, device: torch.device, folder: Path) -> None:
        """Moves model and teacher to a device, and fills the caches that the recipe needs in a folder."""
        super().prepare(device, folder)
        size = self.recipe.evaluation.batch_size
        if caches_features(self.recipe):
            splits = (self.train_images(), self.evaluation_images("validation"))
            self.cached = cached = CachedFeatures.of(self.model, splits, folder, size, self.workers)
            order = self.batches.order
            assert isinstance(order, TrainingOrder)
            self.batches = TableBatches(self.recipe, lambda: cached.rows["train"], order, 0, collate)
        elif self.recipe.training.head_first_epochs:
            order = self.batches.order
            assert isinstance(order, TrainingOrder)
            images = self._images("train", EvaluationTransform(self.image_processor))
            images.cache = None  # it keeps images as the training transform decodes them
            train_head_first(
                self.model, images, order, self.criterion, self.recipe.training, self.schedule.lr, folder, size,
                self.workers,
            )  # fmt: skip
        if self.teaching is not None:
            self.teaching.prepare(self.train_images, device, folder, size, self.workers)

    def finish(self, folder: Path | None) -> None:
        """Merges adapters into the model, and also saves them in the run's folder if the recipe says so."""
        if self.adapters is None:
            return
        if folder is not None and self.recipe.lora.publish == "adapter":
            self.adapters.save(folder / ADAPTER, self.recipe.model.source)
        self.adapters.merge()
        self.adapters = None

    def prepare_step(self, batches: Sequence[dict[str, Any]]) -> None:
        """Prepares the parts of a step's batch; draws the samples that stochastic depth keeps."""
        super().prepare_step(batches)
        for batch in batches:
            if drawn := self._kept_samples(batch):
                batch["kept_mask"] = torch.stack([one.mask for one in drawn])
                batch["kept_rows"] = torch.cat([one.rows for one in drawn])  # copied to the device as one tensor
                batch["kept_sizes"] = [len(one.rows) for one in drawn]

    def _kept_samples(self, batch: dict[str, Any]) -> list[KeptSamples]:
        """Draws the kept samples of every branch with stochastic depth, in the model's order."""
        model, place = self.learner, BatchPlace.of(batch)
        if not isinstance(model, HubViTPreTrainedModel) or not model.config.drop_path_rate:
            return []
        generator = torch.Generator().manual_seed(self._model_seed(batch))
        count, window = len(place.positions), (place.positions[0] % self.batch_size, self.batch_size)
        rates = [rate for rate in model.config.drop_path_rates if rate for _ in range(2)]
        return [draw_kept_samples(count, rate, window, generator) for rate in rates]

    def _kept_by_layer(self, batch: dict[str, Any]) -> list[tuple[KeptSamples | None, KeptSamples | None]]:
        """Returns the kept samples of each layer's two branches, on the batch's device."""
        rows = batch["kept_rows"].split(batch["kept_sizes"])
        drawn = [KeptSamples(mask, part) for mask, part in zip(batch["kept_mask"].unbind(), rows, strict=True)]
        pairs = iter(zip(drawn[::2], drawn[1::2], strict=True))
        model = self.learner
        assert isinstance(model, HubViTPreTrainedModel)
        return [next(pairs) if rate else (None, None) for rate in model.config.drop_path_rates]

    def _model_seed(self, batch: dict[str, Any]) -> int:
        return derived_seed(self.recipe.seed, Stream.MODEL, self.step_of(batch))

    def loss(self, model: nn.Module, batch: dict[str, Any]) -> torch.Tensor:
        """Computes the mean loss of a batch, or of part of one, from its labels and from the teacher."""
        recipe, place = self.recipe, BatchPlace.of(batch)
        keep_frozen_statistics(self.learner)
        targets = targets_from_labels(batch["labels"], len(self.names), recipe.training.label_smoothing)
        pixels, targets = self._mixed(batch, targets)
        seed_torch(self._model_seed(batch))
        arguments: dict[str, Any] = {}
        if "kept_rows" in batch:
            arguments["kept_samples"] = self._kept_by_layer(batch)
        elif isinstance(self.learner, HubViTPreTrainedModel):
            arguments["batch_window"] = (place.positions[0] % self.batch_size, self.batch_size)
        with self._dropout(batch):
            outputs = model(pixel_values=pixels, **arguments)
        answers = None if self.teaching is None else self.teaching.logits(pixels, place.rows)
        return self.criterion(outputs, targets, answers)

    def _mixed(self, batch: Mapping[str, Any], targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns pixels and targets of a batch, mixed in pairs if the recipe mixes in its epoch."""
        settings, place = self.recipe.augmentation, BatchPlace.of(dict(batch))
        off = settings.mix_off_epoch
        if not settings.mixes or (off is not None and place.epoch >= off):
            return batch["pixel_values"], targets
        step = self.step_of(dict(batch))
        return mix_batch(batch["pixel_values"], targets, settings, self.recipe.seed, Stream.MIX, step)

    def class_counts(self) -> dict[str, dict[str, int]]:
        """Returns the number of images of each class by split; none of streams."""
        tables = {name: table for name, table in self.data.splits.items() if isinstance(table, Dataset)}
        counts = {name: label_counts(table, LABEL, self.data.labels).tolist() for name, table in tables.items()}
        return {name: dict(zip(self.names, map(int, found), strict=True)) for name, found in counts.items()}

    def pictures(self, batch: Mapping[str, Any]) -> list[tuple[Image.Image, str]]:
        """Returns the images of a batch, mixed where the recipe mixes, with their classes and shares of them."""
        if batch["pixel_values"].ndim != 4:  # kept features of a frozen backbone
            return []
        pixels, targets = self._mixed(batch, targets_from_labels(batch["labels"], len(self.names), 0.0))
        found = []
        for image, target in zip(pixels, targets, strict=True):
            shares = [(self.names[number], float(target[number])) for number in target.nonzero().flatten().tolist()]
            title = ", ".join(name if share == 1 else f"{name} {share:.2f}" for name, share in shares)
            found.append((picture_of(image, self.pixels.mean, self.pixels.std), title))
        return found

    def _dropout(self, batch: dict[str, Any]) -> AbstractContextManager[Any]:
        """Returns a context that draws dropout per sample, if any; none if the graph is compiled or recomputed."""
        model = self.recipe.model
        if self.compiled != "no" or model.activation_checkpointing or not drops_activations(self.learner):
            return nullcontext()
        return SampleDropout(self.sample_seeds(Stream.DROPOUT, batch))


__all__ = ["ClassificationTask"]
