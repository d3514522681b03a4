"""Base class of the modules that pretraining trains: a backbone, and what its loss needs beside it.

Shapes: B images, C channels, D = width of the features.
"""

from collections.abc import Sequence

import torch
from torch import nn

from ....modeling.modeling_vit import HubViTModel


class Learner(nn.Module):
    """Backbone with the parts of its loss; checkpoints hold all of it, and the published model is the backbone alone.

    A subclass defines `forward`, which takes by name `pixel_values` (B, C, height, width), what `draws` returned, and
    `batch_window` (see `draw_kept_samples`), and returns the loss of each image, (B,) fp32.

    Args:
        vit: Backbone to train, in fp32.
    """

    def __init__(self, vit: HubViTModel) -> None:
        super().__init__()
        self.vit = vit

    @property
    def judged(self) -> HubViTModel:
        """Backbone whose features are measured, and which is published."""
        return self.vit

    def draws(self, seeds: Sequence[int], image_hw: tuple[int, int]) -> dict[str, torch.Tensor]:  # noqa: ARG002
        """Random choices for each image as tensors on the host, by the name of `forward`'s argument.

        Args:
            seeds: One seed per image.
            image_hw: Size (height, width) of the images in pixels.
        """
        return {}

    def begin_step(self, step: int, epoch: int, steps: int) -> None:  # most learners need none
        """Prepares a step, before the parts of its batch are computed.

        Args:
            step: Number of the step, from 0.
            epoch: Number of the epoch, from 0.
            steps: Number of steps of the whole training.
        """


def image_tokens(vit: HubViTModel, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Splits tokens (B, P + N, D) into CLS, or the mean of the patches without one, (B, D), and patches (B, N, D)."""
    patches = states[:, vit.config.num_prefix_tokens :]
    return (states[:, 0] if vit.config.use_cls_token else patches.mean(dim=1)), patches


def initialize(module: nn.Module, std: float = 0.02) -> None:
    """Initialises the linear layers of a head by a truncated normal of this deviation, and their biases by 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=std)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


__all__ = ["Learner", "image_tokens", "initialize"]
