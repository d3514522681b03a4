"""Backbone of DETR: any model of transformers' `AutoBackbone`, including timm's, or our ViT or DeiT.

The ViT is used as in ViTDet (https://arxiv.org/abs/2203.16527), without its pyramid.

Shapes: B images, C channels of the feature map, h x w its size.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Self

import torch
from torch import nn
from transformers import AutoBackbone, PreTrainedConfig
from transformers.backbone_utils import BackboneMixin

from ..configuration.configuration_deit import HubDeiTConfig
from ..configuration.configuration_detr import HubDetrConfig
from ..configuration.configuration_vit import HubViTConfig
from .fixed_batch_norm import FixedBatchNorms
from .modeling_deit import HubDeiTModel
from .modeling_vit import HubViTModel, freeze_mask_token, with_fields

_OURS: dict[str, type[HubViTModel]] = {HubViTConfig.model_type: HubViTModel, HubDeiTConfig.model_type: HubDeiTModel}


class HubDetrBackbone(nn.Module):
    """Backbone that returns its last feature map, and a mask of the cells that show the image rather than padding.

    Batch normalisation is frozen in place rather than replaced, so that layers with more than a normalisation (timm's
    have their own activation and epsilon) keep the rest. The stem and the first `frozen_stages` stages are not
    trained; all other layers are.
    """

    def __init__(self, config: HubDetrConfig) -> None:
        super().__init__()
        self.config = config
        backbone: Any = config.backbone_config
        assert isinstance(backbone, PreTrainedConfig)
        # Compared by type name, not by class: transformers may load a published configuration twice, as two classes.
        if backbone.model_type in _OURS:
            self.model: Any = _OURS[backbone.model_type](with_fields(backbone, add_pooling_layer=False))
            self.out_channels = backbone.hidden_size
            self.patch_hw = backbone.patch_hw
            del self.model.layers[backbone.out_indices[-1] :]
        else:
            backbone._attn_implementation = None  # a convolutional backbone may refuse the name
            if config.dilation and backbone.model_type == "timm_backbone":
                backbone.output_stride = 16
            self.model = AutoBackbone.from_config(backbone)
            self.out_channels = self.model.channels[-1]
            self.patch_hw = (1, 1)
            drop_unused_stages(self.model)
        if config.dilation and backbone.model_type != "timm_backbone":
            dilate(stages_of(self.model)[-1])
        self.freeze()
        self.train(self.training)

    def freeze(self) -> None:
        """Disables gradients of the stages and batch normalisations that the configuration freezes."""
        freeze_stages(self.model, self.config.frozen_stages)
        if isinstance(self.model, HubViTModel):
            freeze_mask_token(self.model)
        if self.config.freeze_batch_norm:
            for module in batch_norms(self.model):
                module.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """Sets the training mode; frozen batch normalisation stays in evaluation mode and keeps its statistics."""
        super().train(mode)
        if self.config.freeze_batch_norm:
            for module in batch_norms(self.model):
                module.eval()
        return self

    def forward(
        self, pixel_values: torch.Tensor, pixel_mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Computes the feature map (B, C, h, w), and its mask (B, h, w), True on the image.

        Args:
            pixel_values: Images (B, channels, height, width).
            pixel_mask: Mask (B, height, width), True or 1 on the image. None means no padding; then no mask is
                returned either, unless a ViT has to pad its last patches.
        """
        if isinstance(self.model, HubViTModel):
            features, pixel_mask = self._patch_features(pixel_values, pixel_mask)
        else:
            with self._saving():
                features = self.model(pixel_values).feature_maps[-1]
        if pixel_mask is None:
            return features, None
        mask = nn.functional.interpolate(pixel_mask[:, None].float(), size=features.shape[-2:], mode="nearest")
        return features, mask[:, 0] > 0.5

    def _saving(self) -> AbstractContextManager[Any]:
        """Context that keeps less of frozen normalisations in training.

        Compiled graphs choose by themselves what they keep, and a layer that is computed again must keep the same.
        """
        plain = torch.compiler.is_compiling() or not (self.training and self.config.freeze_batch_norm)
        if plain or any(getattr(part, "gradient_checkpointing", False) for part in self.model.modules()):
            return nullcontext()
        return FixedBatchNorms()

    def _patch_features(
        self, pixel_values: torch.Tensor, pixel_mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Patch tokens of a ViT as a feature map; the image is padded at the right and bottom to whole patches."""
        (height, width), (patch_height, patch_width) = pixel_values.shape[-2:], self.patch_hw
        padding = (0, -width % patch_width, 0, -height % patch_height)
        if any(padding):
            if pixel_mask is None:
                pixel_mask = pixel_values.new_ones(pixel_values.shape[0], height, width)
            pixel_mask = nn.functional.pad(pixel_mask.float(), padding)
            pixel_values = nn.functional.pad(pixel_values, padding)
        last, _, _ = self.model.run_layers(pixel_values)
        return self.model.feature_map(last, pixel_values), pixel_mask


def batch_norms(module: nn.Module) -> list[nn.Module]:
    """All batch normalisation layers of a module, including those of subclasses of torch's."""
    return [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]


def stages_of(backbone: nn.Module) -> list[nn.Module]:
    """Stages of a backbone in order, without the stem; for a ViT its layers.

    Raises:
        ValueError: The backbone has no module list with as many entries as stages.
    """
    if isinstance(backbone, HubViTModel):
        return list(backbone.layers)
    assert isinstance(backbone, BackboneMixin)
    most = len(backbone.stage_names) - 1
    used = max(backbone.out_indices[-1] % len(backbone.stage_names), 1)
    for module in backbone.modules():
        if isinstance(module, nn.ModuleList) and len(module) in (used, most):
            return list(module)
    raise ValueError(f"the stages of {type(backbone).__name__} are not known: use `frozen_stages=0`, `dilation=False`")


def drop_unused_stages(backbone: Any) -> None:
    """Removes the stages after the last feature map, which would be computed without use and get no gradient."""
    if hasattr(backbone, "_backbone"):
        features = backbone._backbone
        parent, _, last = features.feature_info.module_name()[-1].rpartition(".")
        stages = features.get_submodule(parent) if parent in dict(features.named_children()) else None
        if isinstance(stages, nn.Sequential) and last.isdigit():
            del stages[int(last) + 1 :]
        return
    used = max(backbone.out_indices[-1] % len(backbone.stage_names), 1)  # stage 0 is the stem
    for module in backbone.modules():
        if isinstance(module, nn.ModuleList) and len(module) == len(backbone.stage_names) - 1:
            del module[used:]
            return


def freeze_stages(backbone: Any, count: int) -> None:
    """Disables gradients of the stem and the first `count` stages; a count of 0 freezes nothing.

    In timm, whose stage names differ between model families, stage n ends where the feature map of stride 2^(n+1) is
    complete.

    Raises:
        ValueError: The backbone has fewer than `count` stages.
    """
    if count == 0:
        return
    if hasattr(backbone, "_backbone"):
        reached = [i["module"] for i in backbone._backbone.feature_info.info if i["reduction"] <= 2 ** (count + 1)]
        last: nn.Module | None = backbone._backbone.get_submodule(_timm_name(backbone._backbone, reached[-1]))
    else:
        stages = stages_of(backbone)
        if count > len(stages):
            raise ValueError(f"`frozen_stages` must be at most the backbone's {len(stages)} stages, got {count}")
        last = stages[count - 1]
    assert last is not None
    final = list(last.parameters())[-1]
    for parameter in backbone.parameters():  # in the order in which they are used
        parameter.requires_grad_(False)
        if parameter is final:
            return


def _timm_name(features: nn.Module, module: str) -> str:
    """Name of a module in a timm feature extractor, which stores `stages.0` under that name or as `stages_0`."""
    flat = module.replace(".", "_")
    return flat if flat in dict(features.named_children()) else module


def dilate(stage: nn.Module) -> None:
    """Replaces the stride of the last stage by dilation (DETR's "DC5"), which doubles the side of its feature map.

    The strides become 1, and convolutions after the first strided one get dilation 2.
    """
    strided = False
    for module in stage.modules():
        if not isinstance(module, nn.Conv2d):
            continue
        if max(module.stride) > 1:
            module.stride = (1, 1)
            strided = True
        elif strided and max(module.kernel_size) > 1:
            module.dilation = (2, 2)
            assert isinstance(module.padding, tuple)
            module.padding = tuple(2 * int(side) for side in module.padding)


__all__ = ["HubDetrBackbone", "batch_norms", "dilate", "drop_unused_stages", "freeze_stages", "stages_of"]
