"""Losses of the classifiers: on labels, and on a teacher's output (DeiT, https://arxiv.org/abs/2012.12877, section 4).

Shapes: B images, C classes. The functions neither read nor change a model; `problem_type` is read from the
configuration, and never inferred into it.
"""

from typing import Protocol

import torch
from torch import nn
from transformers import PreTrainedConfig


def classification_loss(logits: torch.Tensor, labels: torch.Tensor, config: PreTrainedConfig) -> torch.Tensor:
    """Mean loss of (B, C) logits against labels.

    Args:
        logits: Logits (B, C) of any float dtype; the loss is computed in fp32.
        labels: Targets. Single-label: class indices (B,), or class probabilities (B, C) as mixup makes them.
            Multi-label (`problem_type="multi_label_classification"`): 0 to 1 per class, (B, C). Regression
            (`problem_type="regression"`, or a single label): targets (B,) or (B, C).
        config: Configuration with `problem_type` and `num_labels`.

    Raises:
        ValueError: The labels' shape does not fit the problem type.
    """
    logits, labels = logits.float(), labels.to(logits.device)
    if config.problem_type == "regression" or (config.problem_type is None and config.num_labels == 1):
        return nn.functional.mse_loss(logits.view_as(labels) if config.num_labels == 1 else logits, labels.float())
    if labels.is_floating_point() and labels.shape != logits.shape:
        raise ValueError(f"float `labels` must be like the logits {tuple(logits.shape)}, got {tuple(labels.shape)}")
    if config.problem_type == "multi_label_classification":
        if labels.shape != logits.shape:
            shapes = f"{tuple(logits.shape)}, got {tuple(labels.shape)}"
            raise ValueError(f"multi-label `labels` must have the shape of the logits {shapes}")
        return nn.functional.binary_cross_entropy_with_logits(logits, labels.float())
    return nn.functional.cross_entropy(logits, labels.float() if labels.is_floating_point() else labels.view(-1))


class DistillationTerms(Protocol):
    """Settings of the distillation term, under the names that they have in the configuration of a DeiT."""

    @property
    def distillation(self) -> str:
        """ "soft" or "hard"."""

    @property
    def distillation_temperature(self) -> float:
        """Temperature tau of soft distillation."""

    @property
    def distillation_reduction(self) -> str:
        """ "deit" or "batchmean", the divisor of soft distillation."""

    @property
    def problem_type(self) -> str | None:
        """As in the configuration: one label per image, or any number of them."""


def with_teacher(from_labels: torch.Tensor, from_teacher: torch.Tensor, alpha: float) -> torch.Tensor:
    """Combines the loss from labels with the teacher's term: (1 - alpha) * labels + alpha * teacher (DeiT, eq. 2)."""
    return (1 - alpha) * from_labels + alpha * from_teacher


def distillation_loss(
    logits: torch.Tensor,
    config: DistillationTerms,
    teacher_logits: torch.Tensor | None = None,
    teacher_decisions: torch.Tensor | None = None,
) -> torch.Tensor:
    """Distillation term of the DeiT loss, on the logits of the head that learns from the teacher.

    Hard: cross-entropy with the teacher's decision (eq. 3). Soft (eq. 2): tau^2 times the divergence KL of the
    student's distribution from the teacher's, both at temperature tau, summed and divided by B * C ("deit") or by B
    ("batchmean"). With several labels per image each class is a separate decision: binary cross-entropy with
    (teacher > 0), or with sigmoid(teacher / tau) times tau^2.

    Args:
        logits: Student's logits, (B, C).
        config: Configuration of a DeiT, or other settings of the distillation; `distillation` is not "none".
        teacher_logits: Teacher's logits, (B, C).
        teacher_decisions: Teacher's class indices, (B,), which replace `teacher_logits` in hard distillation with one
            label per image.

    Raises:
        ValueError: The teacher's output is missing or has another shape than the student's logits.
    """
    logits = logits.float()
    multi_label = config.problem_type == "multi_label_classification"
    if teacher_logits is None:
        if teacher_decisions is None or config.distillation != "hard" or multi_label:
            raise ValueError(
                f"`teacher_logits` are needed for distillation={config.distillation!r} with "
                f"problem_type={config.problem_type!r}; `teacher_decisions` serve hard distillation with one label each"
            )
        return nn.functional.cross_entropy(logits, teacher_decisions.to(logits.device).view(-1))
    if teacher_logits.shape != logits.shape:
        shapes = f"{tuple(logits.shape)}, got {tuple(teacher_logits.shape)}"
        raise ValueError(f"`teacher_logits` must have the shape of the student's {shapes}")
    teacher = teacher_logits.detach().to(logits)
    tau = config.distillation_temperature
    if config.distillation == "hard":
        if multi_label:
            return nn.functional.binary_cross_entropy_with_logits(logits, (teacher > 0).float())
        return nn.functional.cross_entropy(logits, teacher.argmax(dim=-1))
    if multi_label:
        return nn.functional.binary_cross_entropy_with_logits(logits / tau, torch.sigmoid(teacher / tau)) * tau**2
    divergence = nn.functional.kl_div(
        (logits / tau).log_softmax(dim=-1), (teacher / tau).log_softmax(dim=-1), reduction="sum", log_target=True
    )
    divisor = logits.numel() if config.distillation_reduction == "deit" else logits.shape[0]
    return divergence * tau**2 / divisor


__all__ = ["DistillationTerms", "classification_loss", "distillation_loss", "with_teacher"]
