"""The small residual networks for CIFAR-10 of He et al. (https://arxiv.org/abs/1512.03385, section 4.2), as a teacher.

Three stages of 16, 32 and 64 channels at 32, 16 and 8 pixels; shortcuts without parameters (option A): where a stage
halves the image, every second pixel, with zeros for the new channels. Pixels have ImageNet's mean and deviation.
"""

from pathlib import Path

import safetensors.torch
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class Block(nn.Module):
    """Two 3 x 3 convolutions with batch norm, and the shortcut (B, C_in, H, W) -> (B, C, H / stride, W / stride)."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.stride, self.added = stride, channels - channels_in
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        shortcut = hidden
        if self.added or self.stride > 1:
            half = self.added // 2
            strided = hidden[:, :, :: self.stride, :: self.stride]
            shortcut = functional.pad(strided, (0, 0, 0, 0, half, self.added - half))
        hidden = self.bn1(self.conv1(hidden)).relu()
        return (self.bn2(self.conv2(hidden)) + shortcut).relu()


class CifarResNet(nn.Module):
    """Pixels (B, 3, 32, 32) to logits (B, 10), in the order of `NAMES`.

    Args:
        depth: 6 n + 2 layers: 20, 32, 44, 56, 110.
    """

    def __init__(self, depth: int = 56) -> None:
        super().__init__()
        if (depth - 2) % 6:
            raise ValueError(f"`depth` must be 6 n + 2, got {depth}")
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._stage(16, 16, blocks, 1)
        self.layer2 = self._stage(16, 32, blocks, 2)
        self.layer3 = self._stage(32, 64, blocks, 2)
        self.linear = nn.Linear(64, 10)

    @staticmethod
    def _stage(channels_in: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
        rest = [Block(channels, channels, 1) for _ in range(blocks - 1)]
        return nn.Sequential(Block(channels_in, channels, stride), *rest)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        hidden = self.bn1(self.conv1(pixel_values)).relu()
        hidden = self.layer3(self.layer2(self.layer1(hidden)))
        logits: torch.Tensor = self.linear(hidden.mean(dim=(2, 3)))
        return logits


def load_cifar_resnet(folder: str | Path) -> CifarResNet:
    """The network whose `model.safetensors` lies in a folder, only to answer; its depth is read off the weights.

    Raises:
        RuntimeError: The weights are not those of such a network.
    """
    weights = safetensors.torch.load_file(Path(folder) / "model.safetensors")
    blocks = len({name.split(".")[1] for name in weights if name.startswith("layer1.")})
    model = CifarResNet(6 * blocks + 2)
    model.load_state_dict(weights)
    _fold_norms(model.eval())
    return model.to(memory_format=torch.channels_last)  # which is faster on CPUs


def _fold_norms(module: nn.Module) -> None:
    """Puts each batch norm, which only scales and shifts in evaluation, into the convolution before it."""
    for name in [name for name, _ in module.named_children() if name.startswith("bn")]:
        conv = name.replace("bn", "conv")
        setattr(module, conv, fuse_conv_bn_eval(getattr(module, conv), getattr(module, name)))
        setattr(module, name, nn.Identity())
    for child in module.children():
        _fold_norms(child)


__all__ = ["NAMES", "CifarResNet", "load_cifar_resnet"]
