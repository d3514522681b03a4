"""Token merging computes what the paper says, and leaves the classifiers' outputs and labels as they are."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import ViTConfig, ViTForImageClassification
from vithub.deployment.exports.token_merging import MergingEncoder, merge_in, merge_tokens

import vithub

# Norms of queries and keys, where the configuration has them.
QK_NORM = {"qk_norm": True} if hasattr(vithub.HubViTConfig(), "qk_norm") else {}


def merged_slowly(states, sizes, keys, prefix, count):
    """One image, token by token: (N, D), N sizes and (N, K) to lists of tokens and sizes."""
    patches = range(prefix, len(states))
    first, second = list(patches)[0::2], list(patches)[1::2]
    count = min(count, len(patches) // 2)
    edges = []
    for one in first:
        cosines = {other: float(keys[one] @ keys[other] / (keys[one].norm() * keys[other].norm())) for other in second}
        if cosines:
            partner = max(cosines, key=cosines.get)
            edges.append((cosines[partner], one, partner))
    edges.sort(reverse=True)
    into = {one: partner for _, one, partner in edges[:count]}
    tokens, new_sizes = [], []
    rest = [one for _, one, _ in sorted(edges, reverse=True)[count:]] if edges else first
    for place in [*range(prefix), *rest, *second]:
        members = [place, *(one for one, partner in into.items() if partner == place)]
        total = sum(float(sizes[member]) for member in members)
        tokens.append(sum(states[member] * float(sizes[member]) for member in members) / total)
        new_sizes.append(total)
    return torch.stack(tokens), torch.tensor(new_sizes)


def forward_slowly(model, pixels, count):
    """The classifier's logits for one image, with every sum of attention and merging written out."""
    encoder = getattr(model, model.base_model_prefix)
    config, prefix = encoder.config, encoder.config.num_prefix_tokens
    states = encoder.embeddings(pixels)[0]
    sizes = torch.ones(len(states))
    for layer in encoder.layers:
        attention, normed = layer.attention, layer.layernorm_before(states)
        queries, keys, values = (
            projection(normed).view(len(states), -1, attention.head_dim)
            for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        if QK_NORM:
            queries, keys = attention.q_norm(queries), attention.k_norm(keys)
        contexts = []
        for head in range(config.num_attention_heads):
            # a token that stands for several patches has the weight of as many
            scores = (queries[:, head] @ keys[:, head].T / math.sqrt(attention.head_dim)).exp() * sizes[None]
            contexts.append(scores / scores.sum(dim=1, keepdim=True) @ values[:, head])
        states = states + layer.layer_scale1(attention.o_proj(torch.cat(contexts, dim=1)))
        states, sizes = merged_slowly(states, sizes, keys.mean(dim=1), prefix, count)
        states = states + layer.layer_scale2(layer.mlp(layer.layernorm_after(states)))
    if not config.norm_after_pool:
        states = encoder.layernorm(states)
    parts = []
    if "cls" in config.pool:
        parts.append(states[0])
    if "mean" in config.pool:
        parts.append((states[prefix:] * sizes[prefix:, None]).sum(dim=0) / sizes[prefix:].sum())
    pooled = torch.cat(parts)
    if config.norm_after_pool:
        pooled = encoder.layernorm(pooled)
    logits = model.classifier(pooled)
    if getattr(model, "distillation_classifier", None) is not None:
        logits = (logits + model.distillation_classifier(states[1])) / 2
    return logits


@given(
    tokens=st.integers(1, 12), prefix=st.integers(0, 3), count=st.integers(1, 9), batch=st.integers(1, 3),
    seed=st.integers(0, 1000),
)  # fmt: skip
def test_merging_equals_the_slow_version_and_keeps_the_sum(tokens, prefix, count, batch, seed):
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(batch, prefix + tokens, 5, generator=generator, dtype=torch.float64)
    sizes = torch.randint(1, 4, (batch, prefix + tokens, 1), generator=generator).double()
    keys = torch.randn(batch, prefix + tokens, 4, generator=generator, dtype=torch.float64)
    merged, counts = merge_tokens(states, sizes, keys, prefix, count)
    assert merged.shape[1] == prefix + tokens - min(count, tokens // 2)
    torch.testing.assert_close((merged * counts).sum(1), (states * sizes).sum(1))  # nothing is lost
    torch.testing.assert_close(counts.sum(1), sizes.sum(1))
    torch.testing.assert_close(merged[:, :prefix], states[:, :prefix])
    for number in range(batch):
        slow, slow_sizes = merged_slowly(states[number], sizes[number, :, 0], keys[number], prefix, count)
        torch.testing.assert_close(_sorted(merged[number], counts[number, :, 0]), _sorted(slow, slow_sizes.double()))


def _sorted(tokens, sizes):
    rows = torch.cat([tokens, sizes[:, None]], dim=1)
    return rows[rows[:, 0].argsort()]


@pytest.mark.parametrize(
    ("model_class", "fields"),
    [
        ("HubViTForImageClassification", {"pool": "cls", **QK_NORM}),
        ("HubViTForImageClassification", {"pool": "mean", "use_cls_token": False}),
        ("HubViTForImageClassification", {"pool": "cls+mean", "num_register_tokens": 2, "layer_scale_init_value": 0.5}),
        ("HubDeiTForImageClassification", {}),
    ],
)
def test_a_classifier_with_merged_tokens_equals_the_slow_version(model_class, fields, tiny, randomised):
    made = getattr(vithub, model_class)
    model = randomised(made(tiny(made.config_class, **fields))).double()
    pixels = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        wanted = torch.stack([forward_slowly(model, one[None], 3) for one in pixels])
        plain = model(pixels).logits
        found = merge_in(model, 3)(pixels)
    assert type(found).__name__.endswith("ImageClassifierOutput")
    torch.testing.assert_close(found.logits, wanted)
    assert not torch.allclose(found.logits, plain, atol=1e-4)


@pytest.mark.parametrize("fields", [{}, {**QK_NORM, "use_swiglu_ffn": True, "num_register_tokens": 3}])
def test_with_nothing_to_merge_the_answers_are_those_of_the_model(tiny, randomised, fields):
    model = randomised(vithub.HubViTForImageClassification(tiny(image_size=8, **fields)))  # one patch
    pixels = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        wanted = model(pixels).logits
        torch.testing.assert_close(merge_in(model, 5)(pixels).logits, wanted)


def test_other_models_and_wrong_counts_are_refused_by_name(tiny, tiny_detr):
    config = ViTConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=48)
    for model in (ViTForImageClassification(config), vithub.HubDetrForObjectDetection(tiny_detr()), nn.Linear(1, 1)):
        with pytest.raises(ValueError, match=f"of this package, got {type(model).__name__}"):
            merge_in(model, 2)
    turned = vithub.HubViTForImageClassification(tiny())
    turned.vit.config.position_embedding_type = "rotary"
    attending = vithub.HubViTForImageClassification(tiny(pool="map"))
    with pytest.raises(ValueError, match="not for the pool 'map'"):
        merge_in(attending, 2)
    with pytest.raises(ValueError, match="not for rotary positions"):
        merge_in(turned, 2)
    model = vithub.HubViTForImageClassification(tiny())
    for count in (0, -1, True):
        with pytest.raises(ValueError, match=f"at least 1 token in each layer, got {count}"):
            merge_in(model, count)
    with pytest.raises(ValueError, match="at least 1"):
        merge_in(model, False)
    merged = merge_in(model, 2)
    assert isinstance(merged.vit, MergingEncoder)
    with pytest.raises(ValueError, match=r"no place on the grid.*output_attentions"):
        merged(torch.randn(1, 3, 32, 32), output_attentions=True)
