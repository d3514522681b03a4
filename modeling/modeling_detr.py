"""DETR models: detection as the prediction of a set (Carion et al. 2020, https://arxiv.org/abs/2005.12872).

Shapes: B images, h x w cells of the feature map, N = h w, Q queries, S denoising queries, D width, L decoder layers,
C classes. Boxes are (center x, center y, width, height) relative to the image without padding.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from transformers import initialization as init
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from ..configuration.configuration_detr import HubDetrConfig
from .box_geometry import logit
from .classifier_heads import HeadResizing
from .detr_attention import HubDetrAnchorCrossAttention, HubDetrAttention, additive_mask
from .detr_backbone import HubDetrBackbone
from .detr_decoder import DecoderStates, HubDetrAnchorDecoder, HubDetrDecoder, HubDetrHead
from .detr_denoising import HubDetrDenoisingEmbedding, NoisedQueries, denoising_loss, noised_queries
from .detr_encoder import HubDetrEncoder, HubDetrMLP, sine_positions
from .detr_loss import average_over_processes, counts_of_sizes, detection_loss
from .detr_targets import PaddedTargets, read_targets
from .modeling_base import HubPreTrainedModel
from .modeling_vit import HubViTModel

# Initial probability of each class under the focal loss (https://arxiv.org/abs/1708.02002, section 4.1).
_FOCAL_PRIOR = 0.01


@dataclass
class HubDetrModelOutput(ModelOutput):
    """Output of encoder and decoder, with the fields in the order of transformers' `DetrModelOutput`.

    `feature_size`, (h, w), is an attribute and not an item, so that the items are those of transformers.

    Args:
        last_hidden_state: Queries after the last layer, normalised, (B, Q, D).
        decoder_hidden_states: Queries before the first and after each layer, (B, Q, D) each; only the last normalised.
        decoder_attentions: Self-attention weights of each decoder layer, L times (B, heads, Q, Q).
        cross_attentions: Cross-attention weights of each decoder layer, L times (B, heads, Q, N).
        encoder_last_hidden_state: Output of the encoder, (B, N, D).
        encoder_hidden_states: Tokens before the first and after each encoder layer, (B, N, D) each.
        encoder_attentions: Attention weights of each encoder layer, (B, heads, N, N) each.
        intermediate_hidden_states: Normalised queries after each layer, (L, B, Q, D); with `auxiliary_loss` only.
        intermediate_boxes: Boxes after each layer, (L, B, Q, 4), where queries are boxes.
    """

    feature_size = cast("tuple[int, int] | None", None)  # an annotation would make it an item

    last_hidden_state: torch.Tensor | None = None
    decoder_hidden_states: tuple[torch.Tensor, ...] | None = None
    decoder_attentions: tuple[torch.Tensor, ...] | None = None
    cross_attentions: tuple[torch.Tensor, ...] | None = None
    encoder_last_hidden_state: torch.Tensor | None = None
    encoder_hidden_states: tuple[torch.Tensor, ...] | None = None
    encoder_attentions: tuple[torch.Tensor, ...] | None = None
    intermediate_hidden_states: torch.Tensor | None = None
    intermediate_boxes: torch.Tensor | None = None


@dataclass
class HubDetrObjectDetectionOutput(ModelOutput):
    """Output of the detector, with the fields in the order of transformers' `DetrObjectDetectionOutput`.

    The other fields, and `feature_size`, are those of the same name of `HubDetrModelOutput`.

    Args:
        loss: Weighted sum of the loss terms; with `labels` only.
        loss_dict: Loss terms by name, unweighted, detached; with `labels` only.
        logits: Class logits (B, Q, C + 1), "no object" last; or (B, Q, C) with the focal loss.
        pred_boxes: Predicted boxes (B, Q, 4) in [0, 1].
        auxiliary_outputs: `logits` and `pred_boxes` of each layer before the last; with `labels` only.
    """

    feature_size = cast("tuple[int, int] | None", None)  # an annotation would make it an item

    loss: torch.Tensor | None = None
    loss_dict: dict[str, torch.Tensor] | None = None
    logits: torch.Tensor | None = None
    pred_boxes: torch.Tensor | None = None
    auxiliary_outputs: list[dict[str, torch.Tensor]] | None = None
    last_hidden_state: torch.Tensor | None = None
    decoder_hidden_states: tuple[torch.Tensor, ...] | None = None
    decoder_attentions: tuple[torch.Tensor, ...] | None = None
    cross_attentions: tuple[torch.Tensor, ...] | None = None
    encoder_last_hidden_state: torch.Tensor | None = None
    encoder_hidden_states: tuple[torch.Tensor, ...] | None = None
    encoder_attentions: tuple[torch.Tensor, ...] | None = None


class HubDetrPreTrainedModel(HubPreTrainedModel):
    """Base class of the DETR models, with their initialisation: Xavier in the transformer, torch's elsewhere."""

    config: HubDetrConfig
    config_class = HubDetrConfig
    base_model_prefix = "detr"
    _no_split_modules = ["HubDetrBackbone", "HubDetrEncoderLayer", "HubDetrDecoderLayer"]  # noqa: RUF012
    # Padding and denoising need attention masks that these two do not support.
    _supports_flash_attn = False
    _supports_flex_attn = False

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """Loads a checkpoint as transformers does, which makes every parameter trainable, then freezes the backbone."""
        loaded = super().from_pretrained(*args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model.base_model.backbone.freeze()
        return loaded

    def set_attn_implementation(self, attn_implementation: Any, **kwargs: Any) -> None:
        """Sets the attention implementation; a single name is not passed to a convolutional backbone."""
        if isinstance(attn_implementation, str):
            backbone = self.base_model.backbone.model
            if isinstance(backbone, HubViTModel):
                backbone.set_attn_implementation(attn_implementation, **kwargs)
            attn_implementation = {"": attn_implementation}
        super().set_attn_implementation(attn_implementation, **kwargs)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, HubDetrAttention):
            _init_attention(module)
        elif isinstance(module, HubDetrMLP):
            for linear in (module.fc1, module.fc2):
                init.xavier_uniform_(linear.weight)
                _init_bias(linear)
        elif isinstance(module, HubDetrHead):
            for layer in module.layers:
                _init_as_torch(layer)
        elif isinstance(module, HubDetrAnchorDecoder):
            init.zeros_(module.bbox_predictor.layers[-1].weight)  # initially no layer moves its boxes
            init.zeros_(module.bbox_predictor.layers[-1].bias)
        elif isinstance(module, HubDetrDenoisingEmbedding):
            init.normal_(module.label_embedding.weight)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, HubDetrModel):
            module.init_queries()
        elif isinstance(module, HubDetrForObjectDetection):
            _init_as_torch(module.class_labels_classifier)
            if self.config.focal_loss:
                init.constant_(module.class_labels_classifier.bias, module.fresh_bias)


def _init_attention(module: nn.Module) -> None:
    """Initialises queries, keys and values with the Xavier range of one matrix of 3 D rows, as torch does."""
    for name, layer in module.named_children():
        init.xavier_uniform_(layer.weight, gain=1.0 if name == "o_proj" else math.sqrt(0.5))
        init.zeros_(layer.bias)
    if isinstance(module, HubDetrAnchorCrossAttention):  # initially a query attends to its own box
        init.copy_(module.k_position_proj.weight, module.q_position_proj.weight)


def _init_as_torch(layer: Any) -> None:
    """Initialises a linear layer or convolution as torch does by default."""
    init.kaiming_uniform_(layer.weight, a=math.sqrt(5))
    _init_bias(layer)


def _init_bias(layer: Any) -> None:
    """Initialises a bias as torch does: uniform within 1 / sqrt(number of inputs)."""
    bound = layer.weight[0].numel() ** -0.5
    init.uniform_(layer.bias, -bound, bound)


class HubDetrModel(HubDetrPreTrainedModel):
    """DETR without the heads: backbone, encoder and decoder."""

    # Weights of the heads, where a detector is loaded as a bare model.
    _keys_to_ignore_on_load_unexpected = [r"^class_labels_classifier\.", r"^bbox_predictor\."]  # noqa: RUF012

    def __init__(self, config: HubDetrConfig) -> None:
        super().__init__(config)
        self.backbone = HubDetrBackbone(config)
        self.input_projection = nn.Conv2d(self.backbone.out_channels, config.d_model, kernel_size=1)
        self.query_embeddings = nn.Embedding(config.num_queries, config.d_model)
        self.query_anchors = nn.Embedding(config.num_queries, 4) if config.anchor_queries else None
        self.denoising = HubDetrDenoisingEmbedding(config) if config.denoising_queries else None
        self.encoder = HubDetrEncoder(config)
        self.decoder = (HubDetrAnchorDecoder if config.anchor_queries else HubDetrDecoder)(config)
        self.post_init()

    @torch.no_grad()
    def init_queries(self) -> None:
        """Initialises the queries at random; boxes have sides of a tenth of the image and are spread evenly over it."""
        _init_as_torch(self.input_projection)
        init.normal_(self.query_embeddings.weight, std=1.0 if self.query_anchors is None else 0.02)
        if self.query_anchors is not None:
            index = torch.arange(self.config.num_queries, dtype=torch.float32)[:, None]
            steps = torch.tensor([[0.7548776662, 0.5698402910]])  # a quasi-random sequence, even at any length
            centers = (0.5 + index * steps) % 1
            init.copy_(self.query_anchors.weight, logit(torch.cat([centers, torch.full_like(centers, 0.1)], dim=1)))

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        pixel_mask: torch.Tensor | None = None,
        noised: NoisedQueries | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        **kwargs: Any,
    ) -> HubDetrModelOutput:
        """Encodes images and decodes their queries.

        Args:
            pixel_values: Normalised images (B, channels, height, width), padded at right and bottom.
            pixel_mask: Mask (B, height, width), 1 on the image and 0 on padding; None where there is no padding.
            noised: Denoising queries, which precede the Q other queries in the decoder's output.
            output_attentions: Whether to return the attention weights of each layer, under any implementation.
            output_hidden_states: Whether to return the output of each layer.
            **kwargs: Further arguments of the attention implementation.
        """
        self._check_inputs(pixel_values, pixel_mask)
        attentions = self.config.output_attentions if output_attentions is None else output_attentions
        hidden = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        dtype = self.input_projection.weight.dtype
        features, mask = self.backbone(pixel_values.to(dtype), pixel_mask)
        size = (features.shape[-2], features.shape[-1])
        tokens = self.input_projection(features).flatten(2).transpose(1, 2)  # (B, N, D)
        positions = sine_positions(
            size, mask, self.config.d_model, self.config.position_temperature, pixel_values.device
        ).to(tokens.dtype)
        padding = None if mask is None else additive_mask(mask.flatten(1)[:, None, None], tokens.dtype)
        memory, encoder_states, encoder_maps = self.encoder(tokens, positions, padding, attentions, **kwargs)
        content, queries, self_mask = self._queries(tokens.shape[0], tokens.dtype, noised)
        decoded: DecoderStates = self.decoder(
            content, queries, memory, positions, self_mask, padding, attentions, **kwargs
        )
        outputs = HubDetrModelOutput(
            last_hidden_state=decoded.normed[-1],
            intermediate_hidden_states=decoded.normed if self.config.auxiliary_loss else None,
            intermediate_boxes=decoded.boxes,
            encoder_last_hidden_state=memory,
            decoder_hidden_states=(*decoded.states[:-1], decoded.normed[-1]) if hidden else None,
            decoder_attentions=_maps(decoded.self_maps) if attentions else None,
            cross_attentions=_maps(decoded.cross_maps) if attentions else None,
            encoder_hidden_states=tuple(encoder_states) if hidden else None,
            encoder_attentions=_maps(encoder_maps) if attentions else None,
        )
        outputs.feature_size = size
        return outputs

    def _check_inputs(self, pixel_values: torch.Tensor, pixel_mask: torch.Tensor | None) -> None:
        channels = self.config.num_channels
        if pixel_values.ndim != 4 or pixel_values.shape[1] != channels:
            shape = tuple(pixel_values.shape)
            raise ValueError(f"`pixel_values` must be (batch, {channels}, height, width), got {shape}")
        wanted = (pixel_values.shape[0], *pixel_values.shape[2:])
        if pixel_mask is not None and tuple(pixel_mask.shape) != wanted:
            raise ValueError(f"`pixel_mask` must be (batch, height, width) {wanted}, got {tuple(pixel_mask.shape)}")

    def _queries(
        self, batch: int, dtype: torch.dtype, noised: NoisedQueries | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Initial content (B, T, D) of the queries, their positions or boxes (B, T, D or 4), and their mask."""
        learned = self.query_embeddings.weight.to(dtype).expand(batch, -1, -1)
        if self.query_anchors is None:
            return torch.zeros_like(learned), learned, None
        anchors = self.query_anchors.weight.float().sigmoid().expand(batch, -1, -1)
        if noised is None:
            return learned, anchors, None
        assert self.denoising is not None
        content = torch.cat([self.denoising(noised.classes).to(dtype), learned], dim=1)
        return content, torch.cat([noised.boxes, anchors], dim=1), additive_mask(noised.allowed, dtype)


def _maps(maps: list[torch.Tensor | None]) -> tuple[torch.Tensor, ...]:
    return tuple(weights for weights in maps if weights is not None)


class HubDetrForObjectDetection(HeadResizing, HubDetrPreTrainedModel):
    """DETR detector, whose heads predict a class (or "no object") and a box for each query."""

    head_names = ("class_labels_classifier",)

    def __init__(self, config: HubDetrConfig) -> None:
        super().__init__(config)
        self.detr = HubDetrModel(config)
        self.class_labels_classifier = nn.Linear(config.d_model, config.num_class_logits)
        self.extra_rows = 0 if config.focal_loss else 1  # "no object"
        self.fresh_bias = -math.log((1 - _FOCAL_PRIOR) / _FOCAL_PRIOR) if config.focal_loss else 0.0
        widths = (config.d_model, config.d_model, config.d_model, 4)
        self.bbox_predictor = None if config.anchor_queries else HubDetrHead(*widths)  # otherwise the decoder's
        self.post_init()

    def _replace_heads(self, names: Sequence[str], kept: dict[int, int]) -> None:
        """Gives the heads other labels; "no object" keeps its row, and the denoising class embedding starts anew."""
        super()._replace_heads(names, kept)
        if self.detr.denoising is not None:
            fresh = HubDetrDenoisingEmbedding(self.config)
            self.detr.denoising = fresh.to(self.class_labels_classifier.weight)

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        pixel_mask: torch.Tensor | None = None,
        labels: Sequence[dict[str, Any]] | PaddedTargets | None = None,
        loss_counts: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> HubDetrObjectDetectionOutput:
        """Detects objects.

        Args:
            pixel_values: Normalised images (B, channels, height, width), padded at right and bottom.
            pixel_mask: Mask (B, height, width), 1 on the image and 0 on padding; None where there is no padding.
            labels: For each image `class_labels` (n,) int64 in 0..C-1 and `boxes` (n, 4) floats: center x, center y,
                width, height relative to the image WITHOUT padding, so that an image's targets and predictions do
                not depend on its batch. `image_id` is used in messages; `noise` (S, 6) in [0, 1) is the noise of the
                denoising queries in training, drawn if missing; or all of them as `read_targets` returns them.
            loss_counts: Divisors of the loss as the function `loss_counts` returns them, where these images are a
                piece of a batch; None counts `labels`, in training averaged over all processes.
            **kwargs: Further arguments of `HubDetrModel.forward`, such as `output_attentions`.

        Raises:
            ValueError: Targets are wrong; the message names the image.
            NonFiniteCostError: Predictions are infinite or not a number; the message names layer and images.
        """
        targets, noised = None, None
        if labels is not None:
            targets, noised = self._targets(labels, pixel_values)
        outputs = self.detr(pixel_values, pixel_mask, noised=noised, **kwargs)
        hidden = outputs.intermediate_hidden_states
        if labels is None or hidden is None:
            hidden = outputs.last_hidden_state[None]
        logits = self.class_labels_classifier(hidden)  # (L, B, S + Q, classes)
        if self.bbox_predictor is None:
            boxes = outputs.intermediate_boxes[-len(hidden) :]
        else:
            boxes = self.bbox_predictor(hidden).sigmoid()
        slots = 0 if noised is None else self.config.denoising_queries
        layers = zip(logits[:-1, :, slots:], boxes[:-1, :, slots:], strict=True)
        others = [{"logits": logit, "pred_boxes": box} for logit, box in layers]
        loss, terms = None, None
        if targets is not None:
            loss, terms = self._loss(logits, boxes, targets, loss_counts, noised)
        detected = HubDetrObjectDetectionOutput(
            loss=loss,
            loss_dict=terms,
            logits=logits[-1, :, slots:],
            pred_boxes=boxes[-1, :, slots:],
            auxiliary_outputs=others or None,
            last_hidden_state=outputs.last_hidden_state[:, slots:],
            encoder_last_hidden_state=outputs.encoder_last_hidden_state,
            decoder_hidden_states=outputs.decoder_hidden_states,
            decoder_attentions=outputs.decoder_attentions,
            cross_attentions=outputs.cross_attentions,
            encoder_hidden_states=outputs.encoder_hidden_states,
            encoder_attentions=outputs.encoder_attentions,
        )
        detected.feature_size = outputs.feature_size
        return detected

    @torch.compiler.disable
    def _targets(
        self, labels: Sequence[dict[str, Any]] | PaddedTargets, pixel_values: torch.Tensor
    ) -> tuple[PaddedTargets, NoisedQueries | None]:
        """Checked targets, and in training the denoising queries made from them, where the model has such."""
        targets = read_targets(labels, len(pixel_values), self.config, pixel_values.device)
        if not (self.training and self.config.denoising_queries):
            return targets, None
        return targets, noised_queries(targets, self.config)

    @torch.compiler.disable
    def _loss(
        self,
        logits: torch.Tensor,
        boxes: torch.Tensor,
        targets: PaddedTargets,
        counts: torch.Tensor | None,
        noised: NoisedQueries | None,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Loss of (L, B, S + Q, ...) predictions, and its terms."""
        if counts is None:
            counts = counts_of_sizes(targets.counts, self.config)
            if self.training:  # processes may differ in evaluation batches, not in training steps
                counts = average_over_processes(counts, logits.device)
        slots = 0 if noised is None else self.config.denoising_queries
        loss, terms = detection_loss(logits[:, :, slots:], boxes[:, :, slots:], targets, self.config, counts)
        if noised is not None:
            further, named = denoising_loss(logits[:, :, :slots], boxes[:, :, :slots], noised, self.config, counts)
            loss, terms = loss + further, terms | named
        return loss, terms


__all__ = [
    "HubDetrForObjectDetection",
    "HubDetrModel",
    "HubDetrModelOutput",
    "HubDetrObjectDetectionOutput",
    "HubDetrPreTrainedModel",
]
