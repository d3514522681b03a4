"""Loss of a training step for any image classifier: from labels, and optionally from a teacher."""

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
        training: Training settings, of which `loss` is used.
        distillation: Settings of the distillation.
        has_token: Whether the model has a distillation head.
        multi_label: Whether an image has any number of labels.
    """

    def __init__(
        self, training: TrainingSettings, distillation: DistillationSettings, has_token: bool, multi_label: bool
    ) -> None:
        self.kind, self.multi_label = training.loss, multi_label
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
        to 1 (DeiT-III, https://arxiv.org/abs/2204.07118, after https://arxiv.org/abs/2110.00476).
        """
        logits = logits.float()
        if self.kind == "bce":
            return nn.functional.binary_cross_entropy_with_logits(logits, (targets > 0).float())
        if self.multi_label:
            return nn.functional.binary_cross_entropy_with_logits(logits, targets)
        return nn.functional.cross_entropy(logits, targets)


__all__ = ["TrainingLoss"]
