"""Wrappers of other libraries' models as functions from pixels to output, for comparison with ours."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from transformers import PreTrainedModel

from .parity import model_output

Reference = Callable[[torch.Tensor, str], torch.Tensor]


def native_reference(native: PreTrainedModel) -> Reference:
    """Reference function of a transformers model in fp32, at any image size that it can resample to."""
    model = deepcopy(native).float().eval()
    config: Any = getattr(model.config, "vision_config", model.config)  # of SigLIP's classifier
    trained = tuple(config.image_size) if isinstance(config.image_size, list | tuple) else (config.image_size,) * 2

    def run(pixels: torch.Tensor, attention: str) -> torch.Tensor:
        model.set_attn_implementation(attention)
        if config.model_type == "vit_mae":  # masks at random otherwise
            return _unmasked(model, pixels, trained)
        resamples_only_when_asked = config.model_type in ("vit", "deit", "ijepa", "siglip_vision_model")
        if resamples_only_when_asked and tuple(pixels.shape[2:]) != trained:
            return model_output(model, pixels, interpolate_pos_encoding=True)
        return model_output(model, pixels)

    return run


def _unmasked(model: PreTrainedModel, pixels: torch.Tensor, trained: tuple[int, int]) -> torch.Tensor:
    """States of all patches by the encoder of MAE, which shuffles and masks them by its argument `noise`."""
    config: Any = model.config
    config.mask_ratio = 0.0
    patches = (pixels.shape[2] // config.patch_size) * (pixels.shape[3] // config.patch_size)
    noise = torch.arange(patches, dtype=torch.float32).expand(len(pixels), -1)
    asked = {} if tuple(pixels.shape[2:]) == trained else {"interpolate_pos_encoding": True}
    return model_output(model, pixels, noise=noise, **asked)


def timm_reference(model: Any) -> Reference:
    """Reference function of a timm vision transformer in fp32; position embeddings are resampled to the image size."""

    def run(pixels: torch.Tensor, attention: str) -> torch.Tensor:
        resized = deepcopy(model).float().eval()
        for block in resized.blocks:
            block.attn.fused_attn = attention == "sdpa"
        if tuple(pixels.shape[2:]) != tuple(resized.patch_embed.img_size):
            resized.set_input_size(img_size=tuple(pixels.shape[2:]))
        return resized(pixels) if model.num_classes else resized.forward_features(pixels)

    return run


__all__ = ["Reference", "native_reference", "timm_reference"]
