"""Classifiers to compare, from any library, with a common function from pixels to logits."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from ..data.image_processing import PixelFormat
from ..training.tasks.classification.saved_evaluation import label_order
from .operation_count import count_model

aten = torch.ops.aten
FAMILIES = ("ViT", "hybrid", "CNN", "other")


@dataclass(frozen=True, eq=False)
class Contestant:
    """One classifier in a comparison.

    Args:
        name: Short name, unique in a comparison.
        source: Source from which it was loaded.
        library: Library of the model: "vithub", "transformers", "timm" or "torchvision".
        family: Kind of network, one of `FAMILIES`, determined by its operations; see `family_of`.
        model: Model in evaluation mode.
        pixels: Size, mean and standard deviation of the input.
        transform: Function from a PIL image to an input (C, height, width), as the model is served.
        labels: Class names, in the order of the logits.
        build: Function that makes a new model with random weights for (height, width), in training mode, for measuring
            cost.
        multiple: Numbers that height and width must be multiples of, as far as known.
        order: Columns of the model's logits that `logits` returns; None returns them unchanged.
    """

    name: str
    source: str
    library: str
    family: str
    model: nn.Module
    pixels: PixelFormat
    transform: Callable[[Image.Image], torch.Tensor]
    labels: tuple[str, ...]
    build: Callable[[tuple[int, int]], nn.Module]
    multiple: tuple[int, int] = (1, 1)
    order: tuple[int, ...] | None = None

    @property
    def image_hw(self) -> tuple[int, int]:
        """(height, width) of the input in pixels."""
        return self.pixels.image_hw

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def logits(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Computes logits, float32 (B, L), for normalised pixels (B, C, height, width), with gradients if enabled."""
        logits = logits_of(self.model, pixel_values).float()
        return logits if self.order is None else logits[:, list(self.order)]

    def for_labels(self, names: Sequence[str]) -> "Contestant":
        """Returns a copy whose first logits are those of `names`, matched by name; its other classes follow.

        So it may answer with a class that is not in the data: restricting a classifier of a thousand classes to the
        five of the data would make it look better than it is.

        Raises:
            DataError: The contestant does not know a label; the message names it.
        """
        id2label = dict(enumerate(self.labels))
        return replace(self, order=tuple(label_order(tuple(names), id2label, only_these=False, model=self.name)))

    def resolution(self, side: int) -> tuple[int, int]:
        """Returns the largest (height, width) of at most `side` pixels for which the model can be built."""
        height, width = (max(side // multiple, 1) * multiple for multiple in self.multiple)
        return height, width


def logits_of(model: nn.Module, pixel_values: torch.Tensor) -> torch.Tensor:
    """Computes the logits (B, L) of any library's classifier."""
    outputs: Any = model(pixel_values)
    logits: torch.Tensor = getattr(outputs, "logits", outputs)
    return logits


def family_of(model: nn.Module, pixel_values: torch.Tensor) -> str:
    """ "ViT", "hybrid", "CNN" or "other", determined by the operations that run for these pixels, not by the name.

    A ViT uses attention, and convolution only to cut the image into patches that do not overlap. A CNN convolves
    overlapping windows and uses no attention. A hybrid does both; a network that does neither is "other" (such as an
    MLP-Mixer).
    """
    watch = _OverlapWatch()
    with torch.no_grad(), watch:
        model(pixel_values)
    attends = count_model(model, pixel_values).by_kind.get("attention", 0) > 0
    kinds = {(True, False): "ViT", (True, True): "hybrid", (False, True): "CNN", (False, False): "other"}
    return kinds[attends, watch.overlapping]


class _OverlapWatch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Dispatch mode that detects convolutions with overlapping windows."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.overlapping = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "_overloadpacket", None) is aten.convolution:
            window, stride = args[1].shape[2:], args[3]
            self.overlapping |= any(side > step for side, step in zip(window, stride, strict=True))
        return func(*args, **(kwargs or {}))


__all__ = ["FAMILIES", "Contestant", "family_of", "logits_of"]
