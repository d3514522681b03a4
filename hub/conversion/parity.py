"""Comparison of a converted model's outputs with those of its source."""

from collections.abc import Callable, Iterable
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_sample_images
from torch import nn
from transformers import PreTrainedModel

TOLERANCE = 1e-5  # relative to the largest absolute value, or absolute if that is below 1; fp32


class ParityError(RuntimeError):
    """The outputs of a converted model differ from those of its source; the message lists the differences."""


def check_parity(
    ours: PreTrainedModel,
    reference: Callable[[torch.Tensor, str], torch.Tensor],
    sizes: Iterable[tuple[int, int]],
) -> dict[str, float]:
    """Compares outputs in fp32, for random pixels and real photos, with eager and sdpa attention.

    Args:
        ours: Our model; it is not changed.
        reference: Function from pixels (B, C, height, width) and "eager" or "sdpa" to the source's logits or last
            hidden state.
        sizes: Image sizes (height, width) in pixels to compare at.

    Returns:
        Largest absolute difference by "attention, pixels, size", for example "sdpa, photo, 224x224".

    Raises:
        ParityError: A difference is above `TOLERANCE`; the message lists all differences.
    """
    model = deepcopy(ours).float().eval()
    differences: dict[str, float] = {}
    failed = False
    for height, width in sizes:
        for kind, pixels in _pixels(model.config.num_channels, height, width).items():
            for attention in ("eager", "sdpa"):
                model.set_attn_implementation(attention)
                with torch.inference_mode():
                    expected, got = reference(pixels, attention), model_output(model, pixels)
                if got.shape != expected.shape:
                    raise ParityError(f"output of shape {tuple(got.shape)}, the source gives {tuple(expected.shape)}")
                difference = (got - expected).abs().max().item()
                differences[f"{attention}, {kind}, {height}x{width}"] = difference
                failed |= not difference <= TOLERANCE * max(1.0, expected.abs().max().item())
    if failed:
        lines = "\n  ".join(f"{name}: {value:.2e}" for name, value in differences.items())
        raise ParityError(f"the converted model differs from its source by more than {TOLERANCE:g}:\n  {lines}")
    return differences


def model_output(model: nn.Module, pixels: torch.Tensor, **arguments: Any) -> torch.Tensor:
    """Logits, reconstruction, stacked feature maps or last hidden state of a model of transformers, ours or native."""
    outputs = model(pixels, **arguments)
    if (maps := getattr(outputs, "feature_maps", None)) is not None:
        return torch.stack(maps)
    for name in ("logits", "reconstruction", "last_hidden_state"):
        if (value := getattr(outputs, name, None)) is not None:
            return value
    raise TypeError(f"{type(outputs).__name__} has neither logits, reconstruction, feature maps nor last hidden state")


def _pixels(channels: int, height: int, width: int) -> dict[str, torch.Tensor]:
    """A random image and two photos of scikit-learn, normalised, each batch (B, channels, height, width)."""
    generator = torch.Generator().manual_seed(0)
    random = torch.randn(1, channels, height, width, generator=generator)
    photos = torch.from_numpy(np.stack(load_sample_images().images)).permute(0, 3, 1, 2).float() / 255
    photos = nn.functional.interpolate(photos, size=(height, width), mode="bilinear", antialias=True)
    photos = ((photos - 0.45) / 0.225).repeat(1, -(-channels // 3), 1, 1)[:, :channels]
    return {"random": random, "photo": photos}


__all__ = ["TOLERANCE", "ParityError", "check_parity", "model_output"]
