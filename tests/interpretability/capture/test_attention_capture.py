"""Attention that is seen equals attention that a model returns, and seeing it changes nothing."""

import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F  # noqa: N812
from vithub.interpretability.capture.attention_calls import AttentionCall, attention_weights
from vithub.interpretability.capture.forward_capture import AttentionCapture
from vithub.interpretability.capture.subject import make_subject

import vithub
from vithub import attention_maps, attention_rows

TRANSFORMERS = ["transformers vit", "transformers deit", "transformers dinov2", "transformers dinov2 registers"]


@pytest.mark.parametrize("name", TRANSFORMERS)
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_maps_equal_those_of_transformers_in_eager_mode(name, implementation, build, pixels):
    model, images = build(name), pixels()
    model.set_attn_implementation(implementation)
    seen = list(attention_maps(model, images))
    model.set_attn_implementation("eager")
    with torch.no_grad():
        expected = model(images, output_attentions=True).attentions
    assert len(seen) == len(expected) == 2
    for ours, theirs in zip(seen, expected, strict=True):
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("part", "field"), [
    ("encoder", "encoder_attentions"), ("decoder", "decoder_attentions"), ("cross", "cross_attentions"),
])  # fmt: skip
def test_maps_of_a_detector_equal_those_of_transformers(part, field, build, pixels):
    model, images = build("transformers detr"), pixels(2, 64, 96)
    mask = torch.ones(2, 64, 96, dtype=torch.long)
    mask[1, :, 64:] = 0
    seen = list(attention_maps(model, images, part=part, pixel_mask=mask))
    model.set_attn_implementation("eager")
    with torch.no_grad():
        expected = model(images, pixel_mask=mask, output_attentions=True)[field]
    for ours, theirs in zip(seen, expected, strict=True):
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["vithub vit registers", "vithub vit mean", "vithub deit"])
def test_maps_equal_what_our_models_return(name, build, pixels):
    model, images = build(name), pixels()
    with torch.no_grad():
        expected = model(images, output_attentions=True).attentions
    for ours, theirs in zip(attention_maps(model, images), expected, strict=True):
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-6)


def test_maps_of_half_precision_come_from_its_own_products(build, pixels):
    """Our models multiply plainly there, in the place of torch's fused attention."""
    model, images = build("vithub vit").bfloat16(), pixels()
    with torch.no_grad():
        expected = model(images.bfloat16(), output_attentions=True).attentions
    for ours, theirs in zip(attention_maps(model, images), expected, strict=True):
        assert torch.allclose(ours, theirs.float(), rtol=0, atol=0.02)


@pytest.mark.parametrize("name", ["timm vit", "timm deit", "timm vit wrapped"])
def test_maps_of_timm_are_the_same_fused_and_plain(name, build, pixels):
    model, images = build(name), pixels()
    fused = list(attention_maps(model, images))
    for module in model.modules():
        if isinstance(module, timm.layers.Attention):
            module.fused_attn = False
    plain = list(attention_maps(model, images))
    assert len(fused) == len(plain) == 2
    for one, other in zip(fused, plain, strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-6)


def test_maps_of_torchvision_equal_those_of_its_layers(build, pixels):
    model, images = build("torchvision vit"), pixels()
    seen = list(attention_maps(model, images))
    given = []
    layers = [layer.self_attention for layer in model.encoder.layers]
    handles = [layer.register_forward_pre_hook(lambda module, args: given.append(args)) for layer in layers]
    with torch.no_grad():
        model(images)
    for handle in handles:
        handle.remove()
    with torch.no_grad():
        expected = [layer(*states, average_attn_weights=False)[1] for layer, states in zip(layers, given, strict=True)]
    assert len(seen) == len(expected) == 2
    for ours, theirs in zip(seen, expected, strict=True):
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-6)


def test_rows_are_the_rows_of_the_maps(vit_name, build, pixels):
    model, images = build(vit_name), pixels()
    maps = list(attention_maps(model, images))
    for token in (0, 1, -1):
        for row, whole in zip(attention_rows(model, images, token), maps, strict=True):
            assert torch.allclose(row, whole[:, :, token], rtol=0, atol=1e-6)
            assert torch.allclose(row.sum(dim=-1), torch.ones(row.shape[:-1]), rtol=0, atol=1e-6)


def test_rows_by_name(build, pixels):
    model, images = build("timm deit"), pixels()
    for name, index in (("cls", 0), ("distillation", 1)):
        for by_name, by_index in zip(
            attention_rows(model, images, name), attention_rows(model, images, index), strict=True
        ):
            assert torch.equal(by_name, by_index)
    with pytest.raises(ValueError, match="no 'register' token; before its patches are cls, distillation"):
        attention_rows(model, images, "register")
    with pytest.raises(ValueError, match="`token` must lie in -18 to 17, got 18"):
        attention_rows(model, images, 18)
    with pytest.raises(ValueError, match="no attention of the part 'cross'"):
        attention_rows(model, images, part="cross")
    with pytest.raises(ValueError, match="`part` must be one of encoder, decoder, cross, got 'head'"):
        attention_maps(model, images, part="head")


def logits_of(output):
    return output if isinstance(output, torch.Tensor) else output.logits


@pytest.mark.parametrize("differentiable", [False, True])
def test_logits_are_the_same_while_attention_is_seen(differentiable, attending_name, build, pixels):
    model, images = build(attending_name), pixels(2, *((64, 96) if "detr" in attending_name else (32, 32)))
    with torch.no_grad():
        expected = logits_of(model(images))
    logits = make_subject(model, images).attend(lambda call: None, differentiable)
    assert torch.allclose(logits, expected, rtol=0, atol=1e-5)
    assert logits.requires_grad == differentiable


@given(
    batch=st.integers(1, 3), heads=st.sampled_from([2, 4]), queries=st.integers(1, 6), keys=st.integers(1, 6),
    mask_kind=st.sampled_from(["none", "added", "boolean", "causal"]), groups=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_seen_weights_give_the_output_of_fused_attention(batch, heads, queries, keys, mask_kind, groups, seed):
    draws = torch.Generator().manual_seed(seed)
    query = torch.randn(batch, heads, queries, 8, generator=draws)
    key, value = (torch.randn(batch, heads // 2 if groups else heads, keys, 8, generator=draws) for _ in range(2))
    options = {"enable_gqa": groups, "scale": 0.3}
    if mask_kind == "added":
        options["attn_mask"] = torch.randn(batch, 1, queries, keys, generator=draws)
    elif mask_kind == "boolean":
        allowed = torch.rand(queries, keys, generator=draws) > 0.5
        allowed[:, 0] = True
        options["attn_mask"] = allowed
    elif mask_kind == "causal":
        options["is_causal"] = True
    expected = F.scaled_dot_product_attention(query, key, value, **options)
    for differentiable in (False, True):
        calls: list[AttentionCall] = []
        with AttentionCapture(calls.append, batch, differentiable):
            output = F.scaled_dot_product_attention(query, key, value, **options)
        (call,) = calls
        assert call.shape == (batch, heads, queries, keys)
        weights = call.weights()
        whole = value.repeat_interleave(heads // value.shape[1], dim=1)
        assert torch.allclose(output, expected, rtol=0, atol=1e-5)
        assert torch.allclose(weights @ whole, expected, rtol=0, atol=1e-5)
        assert torch.allclose(call.head_mean(), weights.mean(dim=1), rtol=0, atol=1e-6)
        assert torch.allclose(call.weights(slice(0, 1), slice(1, 2)), weights[:, 1:2, :1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("kind", ["self", "cross"])
def test_multi_head_attention_of_torch_is_computed_as_ever(batch_first, kind):
    torch.manual_seed(0)
    layer = torch.nn.MultiheadAttention(
        16, 4, batch_first=batch_first, kdim=None if kind == "self" else 12, vdim=None if kind == "self" else 10
    ).eval()
    queries = torch.randn(2, 5, 16)
    keys, values = (queries, queries) if kind == "self" else (torch.randn(2, 5, 12), torch.randn(2, 5, 10))
    states = [queries, keys, values] if batch_first else [s.transpose(0, 1) for s in (queries, keys, values)]
    masks = {
        "attn_mask": torch.rand(8, 5, 5) > 0.7,
        "key_padding_mask": torch.tensor([[False] * 5, [False] * 3 + [True] * 2]),
    }
    masks["attn_mask"][:, :, 0] = False
    expected, weights = layer(*states, **masks, average_attn_weights=False)
    for wanted in ({"need_weights": False}, {"average_attn_weights": True}, {"average_attn_weights": False}):
        calls: list[AttentionCall] = []
        with AttentionCapture(calls.append, 2):
            output, returned = layer(*states, **masks, **wanted)
        assert torch.allclose(output, expected, rtol=0, atol=1e-5)
        assert torch.allclose(calls[0].weights(), weights, rtol=0, atol=1e-6)
        if "average_attn_weights" in wanted:
            average = wanted["average_attn_weights"]
            assert torch.allclose(returned, weights.mean(dim=1) if average else weights, rtol=0, atol=1e-6)


def test_a_mask_that_hides_a_key_gives_it_no_weight():
    query, key = torch.randn(1, 2, 3, 4), torch.randn(1, 2, 5, 4)
    mask = torch.tensor([True, True, False, True, True])
    weights = attention_weights(query, key, mask, 0.5)
    assert (weights[..., 2] == 0).all()
    assert torch.allclose(weights.sum(dim=-1), torch.ones(1, 2, 3), rtol=0, atol=1e-6)


def test_softmax_elsewhere_is_not_taken_for_attention():
    with AttentionCapture(lambda call: pytest.fail("seen"), 2):
        torch.randn(2, 5).softmax(dim=-1)
        torch.randn(2, 3, 4, 5).softmax(dim=1)
        F.softmax(torch.randn(3, 4, 5), dim=-1)  # of another batch


def test_maps_are_made_one_at_a_time(tiny, pixels):
    """What the iterator holds is queries and keys: it computes a layer when that is asked for."""
    model = vithub.HubViTForImageClassification(tiny(num_hidden_layers=6)).eval()
    maps = attention_maps(model, pixels())
    for _ in range(6):
        assert next(maps).shape == (2, 4, 17, 17)
    assert next(maps, None) is None
