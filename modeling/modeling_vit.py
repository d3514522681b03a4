"""Vision Transformer models (Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929).

Shapes: B images, C channels, P prefix tokens (CLS, registers), N tokens (P and the patches), D = hidden size, L labels.
"""

from collections.abc import Collection, Sequence
from copy import deepcopy
from functools import partial
from typing import Any, TypeVar

import torch
from torch import nn
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPooling, ImageClassifierOutput, MaskedImageModelingOutput
from transformers.utils.generic import can_return_tuple

from ..configuration.configuration_vit import HubViTConfig
from .attention import HubViTAttention
from .attention_pooling import HubViTAttentionPooling
from .classification_loss import classification_loss
from .classifier_heads import HeadResizing
from .input_size import InputSizing
from .intermediate_layers import IntermediateLayers, as_map
from .layers import HubViTLayerScale, HubViTMLP, HubViTPatchEmbedding, HubViTSwiGLU, KeptSamples, add_residual
from .modeling_base import HubPreTrainedModel
from .rotary_positions import rotary_angles
from .vit_embeddings import HubViTEmbeddings

ConfigT = TypeVar("ConfigT", bound=HubViTConfig)


def with_fields(config: ConfigT, **fields: Any) -> ConfigT:
    """Configuration with the given field values (None keeps a field); a copy where any of them differs."""
    changed = {name: value for name, value in fields.items() if value not in (None, getattr(config, name))}
    if changed:
        config = deepcopy(config)
        for name, value in changed.items():
            setattr(config, name, value)
    return config


class HubViTLayer(GradientCheckpointingLayer):
    """Pre-norm encoder layer: attention, then MLP, each on a residual branch (ViT, eq. 2 and 3)."""

    def __init__(self, config: HubViTConfig, drop_path: float) -> None:
        super().__init__()
        self.drop_path = drop_path
        self.layernorm_before = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention = HubViTAttention(config)
        self.layernorm_after = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = HubViTSwiGLU(config) if config.use_swiglu_ffn else HubViTMLP(config)
        scaled = config.layer_scale_init_value is not None
        self.layer_scale1 = HubViTLayerScale(config) if scaled else nn.Identity()
        self.layer_scale2 = HubViTLayerScale(config) if scaled else nn.Identity()
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        # with dropout all samples are computed, so that its draws do not depend on which of them are dropped
        self.skips = not (config.hidden_dropout_prob or config.attention_probs_dropout_prob)

    def forward(
        self,
        hidden_states: torch.Tensor,
        output_attentions: bool = False,
        batch_window: tuple[int, int] | None = None,
        kept_samples: tuple[KeptSamples | None, KeptSamples | None] = (None, None),
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Maps (B, N, D) to (B, N, D), with the attention weights when asked for; `kwargs` go to the attention."""
        rate = self.drop_path if self.training else 0.0
        skips = self.skips and not output_attentions  # attention maps include dropped samples
        attend = partial(self.attend, output_attentions=output_attentions, **kwargs)
        hidden_states, weights = add_residual(hidden_states, attend, rate, skips, batch_window, kept_samples[0])
        hidden_states, _ = add_residual(hidden_states, self.transform, rate, self.skips, batch_window, kept_samples[1])
        return hidden_states, weights if output_attentions else None

    def attend(
        self, hidden_states: torch.Tensor, output_attentions: bool = False, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Attention branch, (b, N, D) to (b, N, D), and its weights."""
        update, weights = self.attention(self.layernorm_before(hidden_states), output_attentions, **kwargs)
        return self.layer_scale1(self.dropout(update)), weights

    def transform(self, hidden_states: torch.Tensor) -> tuple[torch.Tensor, None]:
        """MLP branch, (b, N, D) to (b, N, D)."""
        return self.layer_scale2(self.dropout(self.mlp(self.layernorm_after(hidden_states)))), None


class HubViTPreTrainedModel(InputSizing, IntermediateLayers, HubPreTrainedModel):
    """Base class of the ViT models, with their initialisation, loading and resizing."""

    config: HubViTConfig
    config_class = HubViTConfig
    base_model_prefix = "vit"
    _no_split_modules = ["HubViTEmbeddings", "HubViTLayer"]  # noqa: RUF012
    _input_embed_layer = "patch_embeddings"

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialises matrices and tokens by a truncated normal, biases by 0, the patch projection by its fan-in."""
        std = self.config.initializer_range
        if isinstance(module, HubViTPatchEmbedding):
            init.trunc_normal_(module.weight, std=module.weight.shape[1] ** -0.5)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            init.trunc_normal_(module.weight, std=std)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, HubViTLayerScale):
            init.constant_(module.scale, self.config.layer_scale_init_value)
        elif isinstance(module, HubViTAttentionPooling):
            init.trunc_normal_(module.probe_token, std=std)
        elif isinstance(module, HubViTEmbeddings):
            module.initialize(std)


class HubViTPooler(nn.Module):
    """Linear layer and tanh (BERT, https://arxiv.org/abs/1810.04805): (B, D') to (B, D'), D' the pooled width."""

    def __init__(self, config: HubViTConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.pooled_size, config.pooled_size)

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """Maps (B, D') to (B, D'), in [-1, 1]."""
        return torch.tanh(self.dense(pooled))


class HubViTModel(HubViTPreTrainedModel):
    """ViT encoder without a head.

    Args:
        config: Configuration of the model; it is copied where the other arguments change it.
        add_pooling_layer: Whether to create the pooling layer; None takes the configuration's field.
        use_mask_token: Whether to create the mask token; None takes the configuration's field.
    """

    embeddings_class = HubViTEmbeddings

    def __init__(
        self, config: HubViTConfig, add_pooling_layer: bool | None = None, use_mask_token: bool | None = None
    ) -> None:
        config = with_fields(config, add_pooling_layer=add_pooling_layer, use_mask_token=use_mask_token)
        super().__init__(config)
        self.embeddings = self.embeddings_class(config)
        self.layers = nn.ModuleList(HubViTLayer(config, rate) for rate in config.drop_path_rates)
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.pooling = HubViTAttentionPooling(config) if config.pool == "map" else None
        self.pooler = HubViTPooler(config) if config.add_pooling_layer else None
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Patch projection, under transformers' name."""
        return self.embeddings.patch_embeddings

    # Weights of the heads, where a classifier or masked image model is loaded as a bare encoder.
    _keys_to_ignore_on_load_unexpected = [r"^(distillation_)?classifier\.", r"^decoder\."]  # noqa: RUF012

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        bool_masked_pos: torch.Tensor | None = None,
        interpolate_pos_encoding: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        kept_samples: Sequence[tuple[KeptSamples | None, KeptSamples | None]] | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPooling:
        """Encodes images.

        Args:
            pixel_values: Normalised images (B, C, height, width); the sides are any multiples of the patch's.
            bool_masked_pos: Mask (B, patches), True where the mask token replaces a patch.
            interpolate_pos_encoding: Not needed, as any size works; False refuses sizes other than `image_size`.
            output_attentions: Whether to return each layer's weights, (B, heads, N, N), under any implementation.
            output_hidden_states: Whether to return the embeddings and layer outputs, before the last LayerNorm.
            kept_samples: Samples that stochastic depth keeps in each layer's two branches; None draws them.
            **kwargs: `batch_window` (see `add_residual`), and arguments of the attention implementation.

        Returns:
            `last_hidden_state` (B, N, D) and `pooler_output` (B, D), or (B, 2 D) for pool "cls+mean".
        """
        if interpolate_pos_encoding is False and tuple(pixel_values.shape[2:]) != self.config.image_hw:
            raise ValueError(
                f"`pixel_values` of {tuple(pixel_values.shape[2:])} differ from `image_size` "
                f"{self.config.image_hw}, and `interpolate_pos_encoding=False` forbids resampling"
            )
        attentions = self.config.output_attentions if output_attentions is None else output_attentions
        states_too = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        hidden_states, all_states, all_weights = self.run_layers(
            pixel_values, bool_masked_pos, range(len(self.layers) + 1) if states_too else (),
            output_attentions=attentions, kept_samples=kept_samples, **kwargs,
        )  # fmt: skip
        hidden_states = self.normed(hidden_states)
        pooled = self.pool(hidden_states)
        if self.config.norm_after_pool:
            pooled = self.layernorm(pooled)
        return BaseModelOutputWithPooling(
            last_hidden_state=hidden_states,
            pooler_output=pooled if self.pooler is None else self.pooler(pooled),
            hidden_states=tuple(all_states.values()) if states_too else None,
            attentions=tuple(all_weights) if attentions else None,
        )

    def run_layers(
        self,
        pixel_values: torch.Tensor,
        bool_masked_pos: torch.Tensor | None = None,
        keep: Collection[int] = (),
        depth: int | None = None,
        output_attentions: bool = False,
        kept_samples: Sequence[tuple[KeptSamples | None, KeptSamples | None]] | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, dict[int, torch.Tensor], list[torch.Tensor]]:
        """Embeds images and runs the layers, without the last LayerNorm.

        Args:
            pixel_values: Normalised images (B, C, height, width).
            bool_masked_pos: Mask (B, patches), True where the mask token replaces a patch.
            keep: Numbers of the states to return: 0 the embeddings, n the output of the n-th layer.
            depth: Number of layers to run; None runs all.
            output_attentions: Whether to return each layer's weights.
            kept_samples: As in `forward`.
            **kwargs: Arguments of `HubViTLayer.forward`.

        Returns:
            The last state (B, N, D), the kept states by number, and the weights (B, heads, N, N) of the layers.
        """
        hidden_states = self.embeddings(pixel_values, bool_masked_pos)
        if self.config.position_embedding_type == "rotary":
            grid = self.embeddings.check_pixels(pixel_values)
            kwargs["rotary"] = rotary_angles(self.config, *grid, hidden_states.device, self.training)
        states, all_weights = {0: hidden_states} if 0 in keep else {}, []
        layers: list[Any] = list(self.layers)[:depth]
        drops = (kept_samples or [(None, None)] * len(layers))[:depth]
        for number, (layer, kept) in enumerate(zip(layers, drops, strict=True), start=1):
            hidden_states, weights = layer(hidden_states, output_attentions, kept_samples=kept, **kwargs)
            if number in keep:
                states[number] = hidden_states
            if output_attentions:
                all_weights.append(weights)
        return hidden_states, states, all_weights

    def normed(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Applies the last LayerNorm to tokens (B, N, D), unless it belongs after pooling."""
        return hidden_states if self.config.norm_after_pool else self.layernorm(hidden_states)

    def feature_map(self, hidden_states: torch.Tensor, pixel_values: torch.Tensor) -> torch.Tensor:
        """Feature map of one state (B, N, D), as `apply_layernorm` and `reshape_hidden_states` say.

        Args:
            hidden_states: Embeddings or output of a layer, (B, N, D).
            pixel_values: Images (B, C, height, width) that it was computed from.

        Returns:
            Patches (B, D, rows, columns), or all tokens (B, N, D).
        """
        if self.config.apply_layernorm:
            hidden_states = self.normed(hidden_states)
        if not self.config.reshape_hidden_states:
            return hidden_states
        grid = self.embeddings.check_pixels(pixel_values)
        return as_map(hidden_states[:, self.config.num_prefix_tokens :], grid)

    def pool(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Pools (B, N, D) to (B, D) or (B, 2 D), by `config.pool`; the mean is over patch tokens."""
        if self.pooling is not None:
            return self.pooling(hidden_states)
        parts = []
        if "cls" in self.config.pool:
            parts.append(hidden_states[:, 0])
        if "mean" in self.config.pool:
            parts.append(hidden_states[:, self.config.num_prefix_tokens :].mean(dim=1))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)


class HubViTForImageClassification(HeadResizing, HubViTPreTrainedModel):
    """ViT encoder with a linear classifier on its pooled output."""

    head_names = ("classifier",)
    uses_mask_token = False

    def __init__(self, config: HubViTConfig) -> None:
        config = with_fields(config, add_pooling_layer=False)
        super().__init__(config)
        self.vit = HubViTModel(config)
        freeze_mask_token(self.vit)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(config.pooled_size, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None, **kwargs: Any
    ) -> ImageClassifierOutput:
        """Classifies images.

        Args:
            pixel_values: Normalised images (B, C, height, width).
            labels: Class indices (B,), or floats (B, L), see `classification_loss`; they never set `problem_type`.
            **kwargs: Further arguments of `HubViTModel.forward`, such as `output_attentions`.

        Returns:
            `logits` (B, L), and `loss` when labels are given.
        """
        outputs = self.vit(pixel_values, **kwargs)
        logits = self.classifier(self.dropout(outputs.pooler_output))
        loss = None if labels is None else classification_loss(logits, labels, self.config)
        return ImageClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


class HubViTForMaskedImageModeling(HubViTPreTrainedModel):
    """ViT that reconstructs the pixels of masked patches (SimMIM, https://arxiv.org/abs/2111.09886)."""

    def __init__(self, config: HubViTConfig) -> None:
        config = with_fields(config, add_pooling_layer=False, use_mask_token=True)
        super().__init__(config)
        self.vit = HubViTModel(config)
        pixels = config.num_channels * config.patch_hw[0] * config.patch_hw[1]
        self.decoder = nn.Linear(config.hidden_size, pixels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        bool_masked_pos: torch.Tensor | None = None,
        return_loss: bool = True,
        **kwargs: Any,
    ) -> MaskedImageModelingOutput:
        """Reconstructs images.

        Args:
            pixel_values: Normalised images (B, C, height, width).
            bool_masked_pos: Mask (B, patches), True where a patch is hidden from the encoder.
            return_loss: Whether a mask yields a loss. `Trainer`, which finds no labels here, relies on the default.
            **kwargs: Further arguments of `HubViTModel.forward`.

        Returns:
            `reconstruction` (B, C, height, width); with a mask `loss`, the mean absolute error of masked pixels.
        """
        outputs = self.vit(pixel_values, bool_masked_pos=bool_masked_pos, **kwargs)
        batch, channels, height, width = pixel_values.shape
        (patch_height, patch_width) = self.config.patch_hw
        rows, columns = height // patch_height, width // patch_width
        patches = self.decoder(outputs.last_hidden_state[:, self.vit.config.num_prefix_tokens :])
        patches = patches.view(batch, rows, columns, channels, patch_height, patch_width)
        reconstruction = patches.permute(0, 3, 1, 4, 2, 5).reshape(batch, channels, height, width)
        loss = None
        if bool_masked_pos is not None and return_loss:
            mask = bool_masked_pos.to(reconstruction).view(batch, 1, rows, 1, columns, 1)
            cells = (batch, channels, rows, patch_height, columns, patch_width)
            error = (pixel_values - reconstruction).abs().view(cells)
            masked_pixels = mask.sum() * patch_height * patch_width
            loss = (error * mask).sum() / (masked_pixels + 1e-5) / channels
        return MaskedImageModelingOutput(
            loss=loss, reconstruction=reconstruction, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


def freeze_mask_token(encoder: HubViTModel) -> None:
    """Disables the gradient of an unused mask token, for which distributed training would wait."""
    if encoder.embeddings.mask_token is not None:
        encoder.embeddings.mask_token.requires_grad_(False)


__all__ = [
    "HubViTForImageClassification",
    "HubViTForMaskedImageModeling",
    "HubViTModel",
    "HubViTPreTrainedModel",
    "freeze_mask_token",
    "with_fields",
]
