"""Loss of a training step for any image classifier: from labels, and optionally from a teacher."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from ....modeling.classification_loss import distillation_loss, with_teacher
from ...recipe.recipe import RecipeError
from ...recipe.sections import DistillationSettings, TrainingSettings


class _Terms(NamedTuple):
    """The recipe's distillation, see `DistillationTerms`."""

    distillation: str
    distillation_temperature: float
    distillation_reduction: str
    problem_type: str


class TrainingLoss:
    """Loss of a classifier's outputs.

    With a teacher: (1 - alpha) * base(student logits, labels) + alpha * teacher term (DeiT, eq. 2 and 3, and
    `distillation_loss`). With a distillation token the two terms use `cls_logits` and `distillation_logits`; through
    the logits both use `logits`. Without a teacher: the base loss of `logits`, which in a DeiT are the mean of both
    heads.

    Args:
        training: Training settings, of which `loss`, `focal_gamma` and `label_smoothing` are used.
        distillation: Settings of the distillation.
        has_token: Whether the model has a distillation head.
        multi_label: Whether an image has any number of labels.
        weights: Weight of each class, (L,); of each label's positive term if an image has any number of labels. None
            weighs all alike.
        prior: Numbers (L,) that are added to the logits in the loss only, for logit adjustment: tau * log of the share
            of each class (https://arxiv.org/abs/2007.07314, equation 10). None adjusts nothing.
    """

    def __init__(
        self,
        training: TrainingSettings,
        distillation: DistillationSettings,
        has_token: bool,
        multi_label: bool,
        weights: Sequence[float] | None = None,
        prior: Sequence[float] | None = None,
    ) -> None:
        self.kind, self.multi_label = training.loss, multi_label
        self.gamma, self.smoothing = training.focal_gamma, training.label_smoothing
        self.weights = None if weights is None else torch.tensor(weights)
        self.prior = None if prior is None else torch.tensor(prior)
        self.through = ("token" if has_token else "logits") if distillation.through == "auto" else distillation.through
        self.alpha = distillation.alpha
        if distillation.teacher is not None and self.through == "token" and not has_token:
            raise RecipeError("distillation.through: 'token' needs a DeiT with a distillation head; take 'logits'")
        problem = "multi_label_classification" if multi_label else "single_label_classification"
        self.terms = _Terms(distillation.kind, distillation.temperature, distillation.reduction, problem)

    def __call__(self, outputs: Any, targets: torch.Tensor, teacher_logits: torch.Tensor | None = None) -> torch.Tensor:
        """Computes the loss, a float32 scalar.

        Args:
            outputs: Model output: `logits` (B, L); for a DeiT also `cls_logits` and `distillation_logits`.
            targets: Target of each class, (B, L), in [0, 1].
            teacher_logits: Teacher's logits (B, L) for the same images; None without a teacher.
        """
        if teacher_logits is None:
            return self.base(outputs.logits, targets)
        from_labels, from_teacher = outputs.logits, outputs.logits
        if self.through == "token":
            from_labels, from_teacher = outputs.cls_logits, outputs.distillation_logits
        taught = distillation_loss(from_teacher, self.terms, teacher_logits)
        return with_teacher(self.base(from_labels, targets), taught, self.alpha)

    def base(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Computes the mean loss of logits (B, L) against targets (B, L).

        Cross-entropy with class probabilities (smoothed, mixed or plain). With several labels per image: binary
        cross-entropy, averaged over images and classes. With "bce": binary cross-entropy with every target above 0 set
        to 1 (DeiT-III, https://arxiv.org/abs/2204.07118, after https://arxiv.org/abs/2110.00476). With "focal": each
        class's term times (1 - p)^gamma, p the probability of what the term asks for
        (https://arxiv.org/abs/1708.02002, equation 4).

        With class weights the loss of an image counts as much as its class weighs, in the mean of the classes that were
        mixed; it is not divided by the sum of the weights, so that equal parts of a batch average to the whole. The
        share of a target that smoothing gives to all classes does not change an image's weight. With several labels
        per image a label's weight multiplies the term of the images that bear it.
        """
        logits = logits.float()
        if self.prior is not None:
            self.prior = self.prior.to(logits.device)
            logits = logits + self.prior
        if self.weights is not None:
            self.weights = self.weights.to(logits.device)
        if self.kind == "bce":
            targets = (targets > 0).float() if self.weights is None or self.multi_label else targets
        if self.multi_label:
            return self._several_labels(logits, targets)
        if self.weights is None and self.kind != "focal":
            if self.kind == "bce":
                return nn.functional.binary_cross_entropy_with_logits(logits, targets)
            return nn.functional.cross_entropy(logits, targets)
        losses = self._per_image(logits, targets)
        return (losses if self.weights is None else losses * self._image_weights(targets, self.weights)).mean()

    def _several_labels(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Mean binary cross-entropy of images with any number of labels each."""
        if self.kind != "focal":
            return nn.functional.binary_cross_entropy_with_logits(logits, targets, pos_weight=self.weights)
        present, absent = nn.functional.logsigmoid(logits), nn.functional.logsigmoid(-logits)
        of_present = targets * (self.gamma * absent).exp() * present
        of_absent = (1 - targets) * (self.gamma * present).exp() * absent
        return -(of_present * (1 if self.weights is None else self.weights) + of_absent).mean()

    def _per_image(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Loss of each image, (B,)."""
        if self.kind == "bce":
            binary = (targets > 0).float()
            return nn.functional.binary_cross_entropy_with_logits(logits, binary, reduction="none").mean(dim=1)
        if self.kind == "focal":
            log_probabilities = logits.log_softmax(dim=-1)
            # the power of exactly 0 has no gradient below exponent 1
            unsure = (-torch.expm1(log_probabilities)).clamp_min(torch.finfo(logits.dtype).tiny)
            return -(targets * unsure**self.gamma * log_probabilities).sum(dim=-1)
        return nn.functional.cross_entropy(logits, targets, reduction="none")

    def _image_weights(self, targets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Weight of each image, (B,), from its targets before they were smoothed."""
        return (targets @ weights - self.smoothing * weights.mean()) / (1 - self.smoothing)


__all__ = ["TrainingLoss"]
