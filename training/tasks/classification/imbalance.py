"""Answers to classes of very different sizes: class weights, logit adjustment, a warning, and a run's facts."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ....data.argument_names import stated, stated_field
from ....data.labelled.labels import shown_names
from ...recipe.recipe import Recipe, RecipeError

logger = logging.getLogger("vithub")

# A class with fewer than this share of the images of the largest class makes a data set imbalanced.
SMALLEST_SHARE = 1 / 20


class ClassBalance:
    """Numbers of training images per class, with what a recipe does about their differences.

    Args:
        recipe: Recipe with `class_weights`, `logit_adjustment`, `loss` and `sampler`.
        names: Class names, in label order.
        counts: Number of training images with each label, (C,); None for a stream, whose images are not counted.
        images: Number of training images; None for a stream.
        multi_label: Whether an image has any number of labels.

    Raises:
        RecipeError: The recipe's answer needs counts that a stream does not have, is not defined for several labels
            per image, or weighs other labels than those of the data.
    """

    def __init__(
        self,
        recipe: Recipe,
        names: Sequence[str],
        counts: Sequence[int] | None,
        images: int | None,
        multi_label: bool,
    ) -> None:
        self.recipe, self.names, self.images, self.multi_label = recipe, list(names), images, multi_label
        self.counts = None if counts is None else np.asarray(counts, dtype=np.float64)
        self._check()
        self.weights = self._weights()

    def _check(self) -> None:
        training, data = self.recipe.training, self.recipe.data
        if self.counts is None:
            uncounted: dict[str, Any] = {
                "training.class_weights": training.class_weights if isinstance(training.class_weights, str) else None,
                "training.logit_adjustment": training.logit_adjustment,
            }
            for name, value in uncounted.items():
                if value is not None:
                    raise RecipeError(
                        f"{name} {value!r} needs the number of images of each class, which data.streaming does not "
                        "count; training.class_weights takes a weight for each label too"
                    )
        if self.multi_label:
            single: dict[str, Any] = {
                "data.sampler": data.sampler if data.sampler != "shuffled" else None,
                "training.logit_adjustment": training.logit_adjustment,
                "evaluation.headline": None if self.recipe.evaluation.headline == "auto" else "given",
            }
            for name, value in single.items():
                if value is not None:
                    raise RecipeError(f"{name} is for images with one label each; these have any number of labels")

    def _weights(self) -> list[float] | None:
        """Returns the weight of each class, or of each label's positive term; None without weights."""
        setting = self.recipe.training.class_weights
        if setting is None:
            return None
        if isinstance(setting, Mapping):
            return self._given(setting)
        assert self.counts is not None
        if self.multi_label:
            assert self.images is not None
            ratio = (self.images - self.counts) / self.counts
            return [float(value) for value in (np.sqrt(ratio) if setting == "sqrt" else ratio)]
        raw = 1 / (np.sqrt(self.counts) if setting == "sqrt" else self.counts)
        mean = (self.counts * raw).sum() / self.counts.sum()
        return [float(value) for value in raw / mean]

    def _given(self, weights: Mapping[str, float]) -> list[float]:
        if missing := [name for name in self.names if name not in weights]:
            raise RecipeError(f"training.class_weights has no weight for {shown_names(missing)}")
        if unknown := [name for name in weights if name not in self.names]:
            raise RecipeError(
                f"training.class_weights weighs {shown_names(unknown)}; the labels of the data are "
                f"{shown_names(self.names)}"
            )
        return [weights[name] for name in self.names]

    @property
    def prior(self) -> list[float] | None:
        """Offset of each class's logit in the loss: tau times the log of its share; None without adjustment."""
        tau = self.recipe.training.logit_adjustment
        if tau is None or self.counts is None:
            return None
        return [float(value) for value in tau * np.log(self.counts / self.counts.sum())]

    @property
    def imbalanced(self) -> bool:
        """True if the smallest class has under a twentieth of the largest one's images; False for a stream."""
        return self.counts is not None and bool(self.counts.min() < SMALLEST_SHARE * self.counts.max())

    @property
    def headline(self) -> str:
        """Name of the metric by which epochs of a single-label classifier are compared."""
        chosen = self.recipe.evaluation.headline
        if chosen != "auto":
            return chosen
        return "macro_f1" if self.imbalanced else "accuracy"

    @property
    def answered(self) -> bool:
        """True if the recipe sets class weights, logit adjustment, the focal loss or the balanced sampler."""
        training = self.recipe.training
        return (
            training.class_weights is not None
            or training.logit_adjustment is not None
            or training.loss == "focal"
            or self.recipe.data.sampler == "balanced"
        )

    def warn(self) -> None:
        """Logs a warning with the counts if the classes are imbalanced and the recipe does nothing about it."""
        if not self.imbalanced or self.answered:
            return
        counts = self.counts
        assert counts is not None
        largest, limit = int(counts.argmax()), SMALLEST_SHARE * counts.max()
        small = [f"{self.names[index]} {int(counts[index])}" for index in np.argsort(counts) if counts[index] < limit]
        remedies = [stated(class_weights="balanced")]
        if not self.multi_label:
            remedies += [stated(sampler="balanced"), stated_field("training.logit_adjustment", 1.0)]
        logger.warning(
            "imbalanced classes: %s training images, against %d of %s, and nothing is done about it; %s may help",
            shown_names(small), int(counts[largest]), self.names[largest], " or ".join(remedies),
        )  # fmt: skip

    def facts(self) -> dict[str, Any]:
        """Returns the entry `imbalance` of `metrics.json`, empty if the classes are alike and nothing is done.

        It has the training images by label, the weights by label, and the other answers of the recipe.
        """
        if not (self.imbalanced or self.answered):
            return {}
        training = self.recipe.training
        entry = {
            "imbalanced": self.imbalanced,
            "train_images": None if self.counts is None else self._by_label([int(count) for count in self.counts]),
            "class_weights": None if self.weights is None else self._by_label(self.weights),
            "sampler": self.recipe.data.sampler,
            "logit_adjustment": training.logit_adjustment,
            "focal_gamma": training.focal_gamma if training.loss == "focal" else None,
        }
        return {"imbalance": entry}

    def _by_label(self, values: Sequence[Any]) -> dict[str, Any]:
        return dict(zip(self.names, values, strict=True))


__all__ = ["SMALLEST_SHARE", "ClassBalance"]
