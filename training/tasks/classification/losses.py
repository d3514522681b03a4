"""The loss of a training step, for any image classifier: from labels, and from a teacher on top."""

from typing import Any

import torch
from torch import nn

from ....configuration.configuration_deit import HubDeiTConfig
from ....modeling.classification_loss import distillation_loss
from ...recipe.recipe import RecipeError
from ...recipe.sections import DistillationSettings, TrainingSettings


class TrainingLoss:
    """Loss of a classifier's outputs.

    With a teacher: (1 - alpha) * base(logits that learn from labels) + alpha * the teacher's term (DeiT, eq. 2 and 3,
    and `distillation_loss`). Through the token these are `cls_logits` and `distillation_logits`, through the logits
    both are `logits`. Without one it is the base loss of `logits`, the mean of both heads in a DeiT.

    Args:
        training: `loss`.
        distillation: How the teacher teaches.
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
        self.settings = HubDeiTConfig(
            distillation=distillation.kind,
            distillation_temperature=distillation.temperature,
            distillation_alpha=distillation.alpha,
            distillation_reduction=distillation.reduction,
            problem_type="multi_label_classification" if multi_label else "single_label_classification",
        )

    def __call__(self, outputs: Any, targets: torch.Tensor, teacher_logits: torch.Tensor | None = None) -> torch.Tensor:
        """Scalar, fp32.

        Args:
            outputs: Of the model: `logits` (B, L); of a DeiT also `cls_logits` and `distillation_logits`.
            targets: (B, L), 0 to 1 per class.
            teacher_logits: (B, L) for the same images.
        """
        if teacher_logits is None:
            return self.base(outputs.logits, targets)
        from_labels, from_teacher = outputs.logits, outputs.logits
        if self.through == "token":
            from_labels, from_teacher = outputs.cls_logits, outputs.distillation_logits
        taught = distillation_loss(from_teacher, self.settings, teacher_logits)
        return (1 - self.alpha) * self.base(from_labels, targets) + self.alpha * taught

    def base(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Mean loss of logits (B, L) against targets (B, L).

        Cross-entropy with class probabilities (smoothed, mixed or plain); with several labels per image binary
        cross-entropy averaged over classes too; "bce" is that with every target above 0 taken as 1 (DeiT-III,
        https://arxiv.org/abs/2204.07118, after https://arxiv.org/abs/2110.00476).
        """
        logits = logits.float()
        if self.kind == "bce":
            return nn.functional.binary_cross_entropy_with_logits(logits, (targets > 0).float())
        if self.multi_label:
            return nn.functional.binary_cross_entropy_with_logits(logits, targets)
        return nn.functional.cross_entropy(logits, targets)


__all__ = ["TrainingLoss"]
