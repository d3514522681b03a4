"""The loss of a training step, for any classifier of transformers."""

from typing import Any

import torch
from torch import nn


def base_loss(logits: torch.Tensor, targets: torch.Tensor, multi_label: bool) -> torch.Tensor:
    """Mean loss of logits (B, L) against targets (B, L), computed in fp32.

    Cross-entropy with class probabilities (smoothed, mixed or plain); with several labels per image binary
    cross-entropy, averaged over classes too.
    """
    logits = logits.float()
    if multi_label:
        return nn.functional.binary_cross_entropy_with_logits(logits, targets)
    return nn.functional.cross_entropy(logits, targets)


def training_loss(outputs: Any, targets: torch.Tensor, multi_label: bool) -> torch.Tensor:
    """The loss of a classifier's outputs: of `logits`, which are the mean of both heads in a DeiT."""
    return base_loss(outputs.logits, targets, multi_label)


__all__ = ["base_loss", "training_loss"]
