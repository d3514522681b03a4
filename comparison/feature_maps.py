"""Last feature map of any classifier: its features before pooling over the image."""

from typing import Any

import torch
from torch import nn


def feature_map(model: nn.Module, pixel_values: torch.Tensor) -> torch.Tensor:
    """Computes the feature map (B, D, h, w) of pixels (B, C, H, W); patch tokens become a grid without prefix tokens.

    Raises:
        ValueError: The model does not expose its features in a known way.
    """
    timms: Any = getattr(model, "timm_model", model)
    if hasattr(timms, "forward_features"):
        features = timms.forward_features(pixel_values)
        if isinstance(features, tuple):  # class token and patches are separate
            features = max(features, key=lambda part: part.numel())
        channels_last = getattr(timms, "output_fmt", "NCHW") == "NHWC"
    elif hasattr(model, "base_model"):
        whole: Any = model
        features, channels_last = whole.base_model(pixel_values).last_hidden_state, False
    else:
        features, channels_last = _pooled_from(model, pixel_values), False
    if features.ndim == 3:
        return token_grid(features, (pixel_values.shape[2], pixel_values.shape[3]))
    if features.ndim != 4:
        raise ValueError(f"{type(model).__name__} shows features of shape {tuple(features.shape)}, which are no map")
    return features.permute(0, 3, 1, 2) if channels_last else features


def token_grid(tokens: torch.Tensor, image_hw: tuple[int, int]) -> torch.Tensor:
    """Arranges the last h x w tokens of (B, N, D) as (B, D, h, w), in square cells with the fewest tokens left over.

    Raises:
        ValueError: No grid of square cells has about as many cells as there are tokens.
    """
    count, (height, width) = tokens.shape[1], image_hw
    grids = {(height // cell, width // cell) for cell in range(1, min(image_hw) + 1)}
    fitting = {grid: count - grid[0] * grid[1] for grid in grids if 0 <= count - grid[0] * grid[1] <= 16}
    if not fitting:
        raise ValueError(f"{count} tokens are no grid of square patches of an image of {image_hw} pixels")
    rows, columns = min(fitting, key=lambda grid: fitting[grid])
    patches = tokens[:, count - rows * columns :]
    return patches.transpose(1, 2).reshape(len(tokens), -1, rows, columns)


def _pooled_from(model: nn.Module, pixel_values: torch.Tensor) -> torch.Tensor:
    """Returns the input of torchvision's global pooling, or the output of its ViT's encoder."""
    seen: list[Any] = []
    if (encoder := getattr(model, "encoder", None)) is not None:
        handle = encoder.register_forward_hook(lambda _module, _given, out: seen.append(out))
    elif (pool := getattr(model, "avgpool", None)) is not None:
        handle = pool.register_forward_pre_hook(lambda _module, given: seen.append(given[0]))
    elif (features := getattr(model, "features", None)) is not None:
        handle = features.register_forward_hook(lambda _module, _given, out: seen.append(out))
    else:
        last = [part for part in model.modules() if isinstance(part, nn.Conv2d)]
        if not last:
            raise ValueError(f"{type(model).__name__} has no feature map that is known")
        handle = last[-1].register_forward_hook(lambda _module, _given, out: seen.append(out))
    try:
        model(pixel_values)
    finally:
        handle.remove()
    found: torch.Tensor = seen[-1]
    return found


__all__ = ["feature_map", "token_grid"]
