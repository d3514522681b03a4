"""Capture of feature maps and tokens during a forward pass, without changing the model, for class activation maps.

Shapes: B images, C channels, h x w positions, N tokens, D = hidden size.
"""

from typing import Any

import torch
from torch.nn import functional as F  # noqa: N812
from torch.overrides import TorchFunctionMode

# Operations that produce feature maps of a new size; only maps of such sizes are feature maps.
_CONVOLUTIONS = {F.conv2d, torch.conv2d, F.max_pool2d, torch.max_pool2d, F.avg_pool2d, torch._C._nn.avg_pool2d}
# Operations that rearrange a tensor without computing new features.
_VIEWS = {"view", "reshape", "transpose", "permute", "expand", "contiguous", "unflatten", "flatten", "movedim", "chunk"}


class FeatureCapture(TorchFunctionMode):
    """Torch mode that keeps the last feature map of each resolution, and the last tokens, computed inside the block.

    Attributes:
        maps: Last feature map (B, C, h, w) by size (h, w), with h * w > 1, in the order of their computation.
        tokens: Last tokens (B, N, D), or None.

    Args:
        batch: Batch size B.
        num_tokens: Number of tokens N of an image; None if the model does not use tokens.
    """

    def __init__(self, batch: int, num_tokens: int | None = None) -> None:
        super().__init__()
        self.batch, self.num_tokens = batch, num_tokens
        self.maps: dict[tuple[int, int], torch.Tensor] = {}
        self.tokens: torch.Tensor | None = None
        self._sizes: set[tuple[int, int]] = set()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Runs a torch function and keeps its result if it is a feature map or tokens; torch calls this method."""
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.requires_grad and result.shape[:1] == (self.batch,):
            if result.ndim == 4:
                self._map(func, result)
            elif result.ndim == 3 and result.shape[1] == self.num_tokens:
                self.tokens = result
        return result

    def _map(self, func: Any, result: torch.Tensor) -> None:
        size = result.shape[2], result.shape[3]
        if func in _CONVOLUTIONS:
            self._sizes.add(size)
        if size in self._sizes and size != (1, 1) and getattr(func, "__name__", "") not in _VIEWS:
            self.maps.pop(size, None)
            self.maps[size] = result


__all__ = ["FeatureCapture"]
