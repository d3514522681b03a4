"""Token merging for a ViT or DeiT of this package (Bolya et al. 2023, "Token Merging: Your ViT But Faster",
https://arxiv.org/abs/2210.09461).

In every layer, between attention and MLP, the most similar patch tokens are averaged in pairs, so that later layers
compute fewer tokens. Nothing is trained; the answers change a little, and how much must be measured.

Shapes: B images, P prefix tokens (CLS, distillation token, registers), N tokens (P and the patches), D = hidden size,
H heads, K = D / H.
"""

from typing import Any

import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

from ...modeling.modeling_vit import HubViTModel, HubViTPreTrainedModel

ROTARY = "rotary"  # value of the configuration's `position_embedding_type`


def merge_tokens(
    states: torch.Tensor, sizes: torch.Tensor, keys: torch.Tensor, prefix: int, count: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Merges the most similar patch tokens by bipartite soft matching (section 3 of the paper).

    Patch tokens are split alternately into sets A and B. Each token of A has one edge, to the token of B with the most
    similar key by the cosine; the tokens of the `count` best edges are merged, as averages weighted by their sizes.
    Prefix tokens are in neither set.

    Args:
        states: Tokens (B, N, D), the prefix first.
        sizes: Number of patches that each token stands for, (B, N, 1).
        keys: Keys that tell similar tokens, (B, N, K).
        prefix: Number of prefix tokens P.
        count: Number of tokens to remove; at most half of the patch tokens are.

    Returns:
        Tokens (B, N - count, D) and their sizes (B, N - count, 1): prefix, tokens of A that were not merged, B.
    """
    count = min(count, (states.shape[1] - prefix) // 2)
    if count <= 0:
        return states, sizes
    keys = nn.functional.normalize(keys, dim=-1)
    scores = torch.matmul(keys[:, prefix::2], keys[:, prefix + 1 :: 2].transpose(1, 2))  # (B, |A|, |B|)
    best, partner = scores.max(dim=-1)  # (B, |A|) each
    first, second = torch.arange(scores.shape[1], device=best.device), torch.arange(scores.shape[2], device=best.device)
    # Place of each token of A in the order of the best edges, by counting, and tokens joined by a product: every
    # runtime computes both as they are, where sorting and scattering are exported as long detours.
    one, other = best[:, :, None], best[:, None]
    place = ((other > one) | ((other == one) & (first < first[:, None]))).sum(dim=-1)  # (B, |A|)
    rest = len(first) - count
    targets = torch.cat(
        [
            torch.arange(prefix, device=best.device).expand(best.shape[0], -1),
            prefix + torch.where(place < count, rest + partner, place - count),
            (prefix + rest + second).expand(best.shape[0], -1),
        ],
        dim=1,
    )  # (B, N), where each token of prefix, A and B goes
    apart = [torch.cat([part[:, :prefix], part[:, prefix::2], part[:, prefix + 1 :: 2]], 1) for part in (states, sizes)]
    places = torch.arange(states.shape[1] - count, device=best.device)
    weights = (targets[:, None] == places[:, None]).to(states.dtype) * apart[1].transpose(1, 2)  # (B, N - count, N)
    merged_sizes = weights.sum(dim=-1, keepdim=True)
    return torch.matmul(weights / merged_sizes, apart[0]), merged_sizes


class MergingEncoder(nn.Module):
    """Encoder that merges tokens in every layer, and shares the modules of the encoder that it was made from.

    Attention is proportional to the sizes of the tokens: softmax(Q K^T * scaling + log size) V. The mean over patch
    tokens is weighted by their sizes.

    Args:
        encoder: Encoder of a ViT or DeiT.
        count: Number of tokens to remove in each layer, r in the paper.
    """

    def __init__(self, encoder: HubViTModel, count: int) -> None:
        super().__init__()
        self.encoder, self.config, self.count = encoder, encoder.config, count

    def forward(self, pixel_values: torch.Tensor, **kwargs: Any) -> BaseModelOutputWithPooling:
        """Encodes images (B, C, height, width).

        Returns:
            `last_hidden_state` (B, N', D), in which merged tokens have no place on the grid, and `pooler_output`.

        Raises:
            ValueError: Attention maps or hidden states are asked for.
        """
        if asked := sorted(name for name, value in kwargs.items() if value and name.startswith("output_")):
            raise ValueError(f"merged tokens have no place on the grid of patches: leave out {', '.join(asked)}")
        encoder, prefix = self.encoder, self.config.num_prefix_tokens
        states = encoder.embeddings(pixel_values)
        sizes = states.new_ones(states.shape[0], states.shape[1], 1)
        layers: Any = encoder.layers
        for layer in layers:
            update, keys = proportional_attention(layer.attention, layer.layernorm_before(states), sizes)
            states = states + layer.layer_scale1(update)
            states, sizes = merge_tokens(states, sizes, keys, prefix, self.count)
            states = states + layer.transform(states)[0]
        if not self.config.norm_after_pool:
            states = encoder.layernorm(states)
        pooled = self._pool(states, sizes, prefix)
        if self.config.norm_after_pool:
            pooled = encoder.layernorm(pooled)
        if encoder.pooler is not None:
            pooled = encoder.pooler(pooled)
        return BaseModelOutputWithPooling(last_hidden_state=states, pooler_output=pooled)

    def _pool(self, states: torch.Tensor, sizes: torch.Tensor, prefix: int) -> torch.Tensor:
        """Pools as `HubViTModel.pool`; a token counts in the mean as often as it stands for patches."""
        parts = []
        if "cls" in self.config.pool:
            parts.append(states[:, 0])
        if "mean" in self.config.pool:
            weights = sizes[:, prefix:]
            parts.append((states[:, prefix:] * weights).sum(dim=1) / weights.sum(dim=1))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)


def proportional_attention(
    attention: Any, hidden_states: torch.Tensor, sizes: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Computes softmax(Q K^T * scaling + log size) V through a layer's projections.

    Args:
        attention: `HubViTAttention` of a layer.
        hidden_states: Normalised tokens (B, N, D).
        sizes: Number of patches that each token stands for, (B, N, 1).

    Returns:
        Output (B, N, D), and the keys averaged over the heads, (B, N, K).
    """
    batch, tokens, _ = hidden_states.shape
    heads = (batch, tokens, -1, attention.head_dim)
    query, key, value = (
        projection(hidden_states).view(heads) for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    if (norm := getattr(attention, "q_norm", None)) is not None:  # of models with norms of queries and keys
        query, key = norm(query), attention.k_norm(key)
    query, key, value = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)  # (B, H, N, K) each
    mask = sizes.log().transpose(1, 2)[:, None]  # (B, 1, 1, N)
    context = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=attention.scaling)
    return attention.o_proj(context.transpose(1, 2).reshape(batch, tokens, -1)), key.mean(dim=1)


def merge_in(model: nn.Module, count: int) -> nn.Module:
    """Makes a classifier merge tokens in every layer, in place, and returns it.

    Args:
        model: `HubViTForImageClassification` or `HubDeiTForImageClassification`, in evaluation mode.
        count: Number of tokens to remove in each layer, at least 1.

    Raises:
        ValueError: The model is another one, or `count` is below 1.
    """
    check_merging(model, count)
    prefix = str(model.base_model_prefix)
    setattr(model, prefix, MergingEncoder(getattr(model, prefix), count))
    return model


def check_merging(model: nn.Module, count: int) -> None:
    """Raises a `ValueError` if tokens of a model cannot be merged, or if `count` is below 1."""
    if isinstance(count, bool) or count < 1:
        raise ValueError(f"token merging removes at least 1 token in each layer, got {count!r}")
    encoder = getattr(model, getattr(model, "base_model_prefix", ""), None)
    if not isinstance(model, HubViTPreTrainedModel) or not isinstance(encoder, HubViTModel):
        raise ValueError(
            f"token merging is for the ViT and DeiT classifiers of this package, got {type(model).__name__}"
        )
    if encoder.config.position_embedding_type == ROTARY:
        raise ValueError("token merging is not for rotary positions: merged tokens have no place to be turned by")
    if encoder.config.pool == "map":
        raise ValueError("token merging is not for the pool 'map', whose query would count merged tokens once")


__all__ = ["ROTARY", "MergingEncoder", "check_merging", "merge_in", "merge_tokens", "proportional_attention"]
