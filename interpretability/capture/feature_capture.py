"""Seeing the features of a forward pass without touching the model, for class activation maps.

Shapes: B images, C channels, h x w positions, N tokens, D = hidden size.
"""

from typing import Any

import torch
from torch.nn import functional as F  # noqa: N812
from torch.overrides import TorchFunctionMode

# What makes maps of features of a new size; a map of another size is no map of features.
_CONVOLUTIONS = {F.conv2d, torch.conv2d, F.max_pool2d, torch.max_pool2d, F.avg_pool2d, torch._C._nn.avg_pool2d}
# What only looks at a tensor in another way.
_VIEWS = {"view", "reshape", "transpose", "permute", "expand", "contiguous", "unflatten", "flatten", "movedim", "chunk"}


class FeatureCapture(TorchFunctionMode):
    """Keeps the last map of features of each resolution, and the last row of tokens, of what runs inside.

    Attributes:
        maps: (h, w) to (B, C, h, w) with h * w > 1, in the order in which they were last made.
        tokens: The last (B, N, D), or None.

    Args:
        batch: B.
        num_tokens: N, where the model makes tokens of the image.
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
        """Called by torch in the place of each of its functions."""
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
