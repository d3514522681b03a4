"""One model's weights in the form of each contender, and what a pass through it costs."""

from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save_file
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from worker import NUM_LABELS, TIMM_NAMES, make_batch

import vithub


def write_weights(folder: Path, model_name: str, image_size: int) -> dict[str, float]:
    """Writes folders "timm", "vithub" and "transformers" with the same random weights.

    Returns:
        Floating-point operations per image of "inference" and of "training" (forward and backward).
    """
    torch.manual_seed(0)
    model = timm.create_model(TIMM_NAMES[model_name], img_size=image_size, num_classes=NUM_LABELS)
    with torch.no_grad():
        for parameter in model.parameters():  # no bias may stay 0 and no scale 1, or a mix-up would not be seen
            parameter.add_(torch.randn_like(parameter) * 0.02)
    (folder / "timm").mkdir()
    save_file(model.state_dict(), folder / "timm" / "model.safetensors")
    vithub.convert(model, folder / "vithub")
    vithub.convert(folder / "vithub", folder / "transformers", to="transformers")
    return count_operations(model, image_size)


def count_operations(model: Any, image_size: int) -> dict[str, float]:
    """Operations of the matrix products and the convolution, two per multiply-add; attention as plain products."""
    for block in model.blocks:
        block.attn.fused_attn = False
    pixels, labels = make_batch(1, image_size)
    with FlopCounterMode(display=False) as forward:
        logits = model(pixels)
    with FlopCounterMode(display=False) as backward:
        nn.functional.cross_entropy(logits, labels).backward()
    inference = float(forward.get_total_flops())
    return {"inference": inference, "training": inference + backward.get_total_flops()}
