"""Description of how a model of any family tokenises an image: patch grid, prefix tokens and image size."""

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

# Last parts of the names of token parameters in this package, transformers, timm and torchvision.
_TOKENS = {
    "cls": ("cls_token", "class_token", "class_embedding"),
    "distillation": ("distillation_token", "dist_token"),
    "register": ("register_tokens", "reg_token", "reg_tokens", "storage_tokens"),
}
_STRIDES = (32, 16, 8, 64, 4)  # strides of detector backbones, the most common first


@dataclass(frozen=True)
class Architecture:
    """Structure of a model, as far as explanations need it.

    Args:
        kind: "vit" (patches are tokens), "detector" (encoder and decoder on the features of a backbone) or "cnn" (any
            other model, treated as producing feature maps).
        patch_hw: (height, width) of a patch in pixels, for a "vit" or a detector on a ViT backbone; otherwise None.
        prefix: Names of the tokens before the patches, in order: "cls", "distillation", "register".
        image_hw: The one image size (height, width) in pixels that the model accepts; None if it accepts several.
        own_hw: Image size (height, width) in pixels that the position embeddings are stored for; None if the
            configuration does not state it.
        pads: Whether the model pads images to whole patches.
        reads: Inputs of the classifier of a "vit": names of prefix tokens, and "patches" if it uses their mean.
        backbone_layers: Number of attention layers in a detector's backbone, which run first.
        encoder_layers: Number of attention layers in a detector's encoder, which run before the decoder's.
    """

    kind: str
    patch_hw: tuple[int, int] | None = None
    prefix: tuple[str, ...] = ()
    image_hw: tuple[int, int] | None = None
    pads: bool = False
    reads: tuple[str, ...] = ()
    backbone_layers: int = 0
    encoder_layers: int = 0
    own_hw: tuple[int, int] | None = None

    def grid(self, image_hw: tuple[int, int]) -> tuple[int, int]:
        """(rows, columns) of patches of an image of (height, width) pixels.

        Raises:
            ValueError: The model does not accept this image size.
        """
        assert self.patch_hw is not None
        (height, width), (patch_height, patch_width) = image_hw, self.patch_hw
        if self.image_hw is not None and image_hw != self.image_hw:
            raise ValueError(
                f"the model takes images of {self.image_hw[0]} x {self.image_hw[1]} pixels only, got {height} x {width}"
            )
        if self.pads:
            return -(-height // patch_height), -(-width // patch_width)
        if height % patch_height or width % patch_width or not height or not width:
            raise ValueError(
                f"height and width of `pixel_values` must be multiples of the patch {patch_height} x {patch_width}, "
                f"got {height} x {width}"
            )
        return height // patch_height, width // patch_width

    def feature_grid(self, image_hw: tuple[int, int], tokens: int) -> tuple[int, int]:
        """(rows, columns) of the backbone's feature map, which the encoder of a detector receives as `tokens` tokens.

        Args:
            image_hw: (height, width) of the image in pixels.
            tokens: Number of tokens of the encoder.

        Raises:
            ValueError: No known stride gives that many tokens.
        """
        for height, width in [(stride, stride) for stride in _STRIDES] if self.patch_hw is None else [self.patch_hw]:
            grid = -(-image_hw[0] // height), -(-image_hw[1] // width)
            if grid[0] * grid[1] == tokens:
                return grid
        raise ValueError(f"{tokens} tokens are no grid of features of an image of {image_hw[0]} x {image_hw[1]} pixels")


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside the wrappers of `torch.compile`, `DataParallel` and `DistributedDataParallel`."""
    while isinstance(inner := getattr(model, "_orig_mod", None) or _parallel(model), nn.Module):
        model = inner
    return model


def _parallel(model: nn.Module) -> Any:
    parallel = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    return model.module if isinstance(model, parallel) else None


def read_architecture(model: nn.Module) -> Architecture:
    """Reads the structure of a model from its configuration and the names of its parameters.

    Known are ViT, DeiT and DETR of this package; ViT, DeiT, DINOv2 (with or without registers), DETR and similar models
    of transformers; vision transformers of timm, directly or in transformers' wrapper, and of torchvision. Every other
    model is a "cnn", also a detector with deformable attention.
    """
    model = unwrap(model)
    inner = getattr(model, "timm_model", model)  # inside transformers' wrapper of timm
    config = None if inner is not model else getattr(model, "config", None)
    encoder_layers = getattr(config, "encoder_layers", None)
    if getattr(config, "decoder_n_points", None) is not None:
        return Architecture("cnn")  # its decoder samples points of feature maps, where DETR's attends to all of them
    if isinstance(encoder_layers, int) and isinstance(getattr(config, "num_queries", None), int):
        return _detector(config, encoder_layers)
    if isinstance(embed := getattr(inner, "patch_embed", None), nn.Module) and hasattr(inner, "blocks"):
        return _timm(inner, embed)
    source = inner if config is None else config
    patch = getattr(source, "patch_size", None)
    if patch is None or not (config is None or isinstance(getattr(config, "num_attention_heads", None), int)):
        return Architecture("cnn")
    size = getattr(source, "image_size", None)
    own = None if size is None else _pair(size)
    fixed = own if config is None and isinstance(size, int) else None
    if own is not None and _resamples_squares_only(model) and own[0] != own[1]:
        fixed = own
    prefix = prefix_tokens(inner)
    return Architecture("vit", _pair(patch), prefix, fixed, reads=_reads(inner, config, prefix), own_hw=own)


def _resamples_squares_only(model: nn.Module) -> bool:
    """Whether a model is a transformers ViT or DeiT, which assumes that its stored position grid is square."""
    return getattr(getattr(model, "config", None), "model_type", None) in ("vit", "deit")


def _detector(config: Any, encoder_layers: int) -> Architecture:
    """Architecture of a DETR with a CNN or a ViT as backbone."""
    backbone = getattr(config, "backbone_config", None)
    names = ("patch_size", "num_hidden_layers", "num_attention_heads")
    patch, layers, heads = (getattr(backbone, name, None) for name in names)
    if patch is None or not isinstance(layers, int) or not isinstance(heads, int):
        return Architecture("detector", encoder_layers=encoder_layers)
    return Architecture("detector", _pair(patch), backbone_layers=layers, encoder_layers=encoder_layers)


def _reads(model: nn.Module, config: Any, prefix: tuple[str, ...]) -> tuple[str, ...]:
    """Inputs of the classifier head of a model of this package, transformers or torchvision."""
    pool, name = getattr(config, "pool", "cls"), type(model).__name__
    if "cls" not in prefix or pool == "mean" or getattr(config, "use_mean_pooling", False):
        return ("patches",)
    reads = ["cls"]
    if "distillation" in prefix and (getattr(config, "use_distillation_head", False) or "WithTeacher" in name):
        reads.append("distillation")
    if pool == "cls+mean" or (name.startswith("Dinov2") and name.endswith("ForImageClassification")):
        reads.append("patches")
    return tuple(reads)


def _timm(model: nn.Module, embed: nn.Module) -> Architecture:
    patch, size = getattr(embed, "patch_size", None), getattr(embed, "img_size", None)
    prefix = prefix_tokens(model)
    if patch is None or len(prefix) != getattr(model, "num_prefix_tokens", -1):
        return Architecture("cnn")  # Swin and others whose tokens are not a plain sequence of patches
    free = getattr(model, "dynamic_img_size", False) or not getattr(embed, "strict_img_size", True) or size is None
    pads = bool(getattr(embed, "dynamic_img_pad", False))
    reads: tuple[str, ...] = (
        ("cls",) if getattr(model, "global_pool", "token") == "token" and "cls" in prefix else ("patches",)
    )
    if "distillation" in prefix:  # timm's models with this token always have two heads
        reads = ("cls", "distillation")
    return Architecture("vit", _pair(patch), prefix, None if free else _pair(size), pads, reads)


def prefix_tokens(model: nn.Module) -> tuple[str, ...]:
    """Names of the tokens before the patches, in order, from the names of the model's parameters."""
    found = dict.fromkeys(_TOKENS, 0)
    for name, parameter in model.named_parameters():
        last = name.rsplit(".", 1)[-1]
        for kind, names in _TOKENS.items():
            if last in names:
                found[kind] = parameter.shape[-2] if parameter.ndim > 1 else 1
    return tuple(kind for kind, count in found.items() for _ in range(count))


def _pair(size: Any) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    return int(height), int(width)


def takes_argument(model: nn.Module, name: str) -> bool:
    """Whether the model's `forward` has an argument of this name."""
    return name in inspect.signature(unwrap(model).forward).parameters


def device_and_dtype(model: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Device and floating-point type of a model's parameters; CPU and fp32 if it has none."""
    for parameter in model.parameters():
        if parameter.is_floating_point():
            return parameter.device, parameter.dtype
    return torch.device("cpu"), torch.float32


__all__ = ["Architecture", "device_and_dtype", "prefix_tokens", "read_architecture", "takes_argument", "unwrap"]
