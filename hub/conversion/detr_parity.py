"""Comparison of a converted detector's outputs with those of its source."""

from copy import deepcopy
from typing import Any

import torch
from transformers import PreTrainedModel

from .parity import ParityError

TOLERANCE = 1e-4  # relative to the largest absolute value, or absolute if that is below 1; fp32


def padded_batch(channels: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two non-square images of noise, the second padded, and their mask: (2, channels, 96, 160), (2, 96, 160)."""
    pixels = torch.randn(2, channels, 96, 160, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(2, 96, 160, dtype=torch.int64)
    mask[1, 70:], mask[1, :, 101:] = 0, 0
    return pixels * mask[:, None], mask


def check_detr_parity(ours: PreTrainedModel, reference: Any) -> dict[str, float]:
    """Compares logits and boxes in fp32, of a single image and of a padded batch, with eager and sdpa attention.

    Args:
        ours: Our detector; it is not changed.
        reference: Detector with the same call signature, and `logits` and `pred_boxes` in its output.

    Returns:
        Largest absolute difference by "attention, batch, output", for example "sdpa, padded, boxes".

    Raises:
        ParityError: A difference is above `TOLERANCE`; the message lists all differences.
    """
    model, other = deepcopy(ours).float().eval(), deepcopy(reference).float().eval()
    pixels, mask = padded_batch(model.config.num_channels)
    batches = {"single": (pixels[:1], None), "padded": (pixels, mask)}
    differences: dict[str, float] = {}
    failed = False
    for attention in ("eager", "sdpa"):
        model.set_attn_implementation({"": attention})
        other.set_attn_implementation({"": attention})
        for kind, (images, shown) in batches.items():
            with torch.inference_mode():
                got, expected = model(images, pixel_mask=shown), other(images, pixel_mask=shown)
            for name, short in (("logits", "logits"), ("pred_boxes", "boxes")):
                mine, theirs = getattr(got, name), getattr(expected, name)
                difference = (mine - theirs).abs().max().item()
                differences[f"{attention}, {kind}, {short}"] = difference
                failed |= not difference <= TOLERANCE * max(1.0, theirs.abs().max().item())
    if failed:
        lines = "\n  ".join(f"{name}: {value:.2e}" for name, value in differences.items())
        raise ParityError(f"the converted model differs from its source by more than {TOLERANCE:g}:\n  {lines}")
    return differences


__all__ = ["TOLERANCE", "check_detr_parity", "padded_batch"]
