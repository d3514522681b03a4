"""The classifiers that are compared: any mix of libraries, seen through one function from pixels to logits."""

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
    """One classifier.

    Args:
        name: Short and unique in a comparison.
        source: What a person named it by.
        library: "vithub", "transformers", "timm" or "torchvision".
        family: One of `FAMILIES`, by the operations that it runs, see `family_of`.
        model: In evaluation mode.
        pixels: Size, mean and deviation of what it is shown.
        transform: PIL image to (C, height, width), as it is served.
        labels: Names of its classes, in the order of its logits.
        build: A fresh model with random weights for (height, width), in training mode, for measurements of cost.
        multiple: Height and width must be multiples of these, as far as is known.
        order: Columns of the model's logits that `logits` returns; None returns them as they are.
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
        """(height, width) in pixels of what it is shown."""
        return self.pixels.image_hw

    @property
    def parameters(self) -> int:
        """Number of learned values."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def logits(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(B, L), fp32, for normalised pixels (B, C, height, width); gradients flow where they are wanted."""
        logits = logits_of(self.model, pixel_values).float()
        return logits if self.order is None else logits[:, list(self.order)]

    def for_labels(self, names: Sequence[str]) -> "Contestant":
        """A copy whose first logits are those of `names`, matched by name; its other classes follow.

        An answer may so be another class than the data's: a classifier of a thousand classes is not made better by
        being told that there are five.

        Raises:
            DataError: It does not know a label; it is named.
        """
        id2label = dict(enumerate(self.labels))
        return replace(self, order=tuple(label_order(tuple(names), id2label, only_these=False, model=self.name)))

    def resolution(self, side: int) -> tuple[int, int]:
        """The largest (height, width) of at most `side` pixels that it can be built for."""
        height, width = (max(side // multiple, 1) * multiple for multiple in self.multiple)
        return height, width


def logits_of(model: nn.Module, pixel_values: torch.Tensor) -> torch.Tensor:
    """(B, L) of any library's classifier."""
    outputs: Any = model(pixel_values)
    logits: torch.Tensor = getattr(outputs, "logits", outputs)
    return logits


def family_of(model: nn.Module, pixel_values: torch.Tensor) -> str:
    """ "ViT", "hybrid", "CNN" or "other", by what runs for these pixels, whatever the model is called.

    A ViT attends, and convolves only to cut the image into patches that do not overlap. A CNN convolves overlapping
    windows and does not attend. A hybrid does both, and what does neither is another kind (an MLP-Mixer).
    """
    watch = _OverlapWatch()
    with torch.no_grad(), watch:
        model(pixel_values)
    attends = count_model(model, pixel_values).by_kind.get("attention", 0) > 0
    kinds = {(True, False): "ViT", (True, True): "hybrid", (False, True): "CNN", (False, False): "other"}
    return kinds[attends, watch.overlapping]


class _OverlapWatch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees whether any convolution's windows overlap."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.overlapping = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "_overloadpacket", None) is aten.convolution:
            window, stride = args[1].shape[2:], args[3]
            self.overlapping |= any(side > step for side, step in zip(window, stride, strict=True))
        return func(*args, **(kwargs or {}))


__all__ = ["FAMILIES", "Contestant", "family_of", "logits_of"]
