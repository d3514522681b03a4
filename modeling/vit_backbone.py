"""ViT as a backbone: the class that `AutoBackbone` of transformers builds for a `HubViTConfig`.

Shapes: B images, C channels, N tokens, D = hidden size.
"""

from typing import Any

import torch
from transformers.backbone_utils import BackboneMixin
from transformers.modeling_outputs import BackboneOutput
from transformers.utils.generic import can_return_tuple

from ..configuration.configuration_vit import HubViTConfig
from .modeling_vit import HubViTModel, freeze_mask_token, with_fields


class HubViTBackbone(BackboneMixin, HubViTModel):
    """ViT encoder that returns feature maps. Differs from `HubViTModel` by having no pooling.

    The maps are those of `config.out_indices` (0 the embeddings, n the n-th layer), or of `config.out_features`.
    """

    uses_mask_token = False
    # Weights of heads and of pooling, where another model is loaded as a backbone.
    _keys_to_ignore_on_load_unexpected = [  # noqa: RUF012
        r"^(distillation_)?classifier\.",
        r"^decoder\.",
        r"(^|\.)pool(er|ing)\.",
    ]

    def __init__(self, config: HubViTConfig) -> None:
        super().__init__(with_fields(config, add_pooling_layer=False, pool="mean" if config.pool == "map" else None))
        self.num_features = [config.hidden_size] * (config.num_hidden_layers + 1)
        freeze_mask_token(self)

    @property
    def out_features(self) -> list[str]:
        """Names of the feature maps."""
        return self.config.out_features

    @out_features.setter
    def out_features(self, out_features: list[str]) -> None:
        self.config.out_features = out_features

    @property
    def out_indices(self) -> list[int]:
        """Indices of the feature maps."""
        return self.config.out_indices

    @out_indices.setter
    def out_indices(self, out_indices: list[int] | tuple[int, ...]) -> None:
        self.config.out_indices = out_indices

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        **kwargs: Any,
    ) -> BackboneOutput:
        """Computes feature maps. Layers after the last map are computed only for hidden states or weights.

        Args:
            pixel_values: Normalised images (B, C, height, width); the sides are any multiples of the patch's.
            output_attentions: Whether to return each layer's weights, (B, heads, N, N), under any implementation.
            output_hidden_states: Whether to return the embeddings and layer outputs, before the last LayerNorm.
            **kwargs: Further arguments of `HubViTModel.run_layers`.

        Returns:
            `feature_maps`, each (B, D, rows, columns), or (B, N, D) with `reshape_hidden_states=False`, in which case
            the prefix tokens are among them.
        """
        config, indices = self.config, self.config.out_indices
        attentions = config.output_attentions if output_attentions is None else output_attentions
        states_too = config.output_hidden_states if output_hidden_states is None else output_hidden_states
        _, states, weights = self.run_layers(
            pixel_values,
            keep=range(len(self.layers) + 1) if states_too else indices,
            depth=None if states_too or attentions else indices[-1],
            output_attentions=attentions,
            **kwargs,
        )
        return BackboneOutput(
            feature_maps=tuple(self.feature_map(states[index], pixel_values) for index in indices),
            hidden_states=tuple(states.values()) if states_too else None,
            attentions=tuple(weights) if attentions else None,
        )


__all__ = ["HubViTBackbone"]
