"""Rollout and relevance against plain implementations of their formulas, and what rollout holds."""

import gc

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from vithub.interpretability.explanation.attention_flow import rolled
from vithub.interpretability.explanation.relevance import query_relevance

import vithub
from vithub import attention_maps, attention_rows, explain


@given(
    tokens=st.integers(2, 40), layers=st.integers(1, 24), sharpness=st.floats(0.1, 30), seed=st.integers(0, 1000)
)  # fmt: skip
def test_rows_of_rollout_sum_to_one(tokens, layers, sharpness, seed):
    draws = torch.Generator().manual_seed(seed)
    product, exact = None, torch.eye(tokens, dtype=torch.float64)
    for _ in range(layers):
        weights = (sharpness * torch.randn(2, tokens, tokens, generator=draws)).softmax(dim=-1)
        product = rolled(weights, product)
        exact = (weights.double() + torch.eye(tokens)) / 2 @ exact
    assert (product.sum(dim=-1) - 1).abs().max() < 1e-6
    assert torch.allclose(product.double(), exact, rtol=0, atol=1e-6)


def test_rollout_of_a_model_is_the_product_of_its_maps(vit_name, build, pixels):
    model, images = build(vit_name), pixels(3)
    product = torch.eye(1)
    for number, weights in enumerate(attention_maps(model, images)):
        layer = (weights.mean(dim=1) + torch.eye(weights.shape[-1])) / 2
        product = layer if number == 0 else layer @ product
    prefix = product.shape[-1] - 16
    row = product[:, 0]
    if "mean" in vit_name:  # what the classifier reads, each part weighing the same
        row = product[:, prefix:].mean(dim=1)
    elif "deit" in vit_name:
        row = product[:, :2].mean(dim=1)
    elif "dinov2" in vit_name:
        row = (row + product[:, prefix:].mean(dim=1)) / 2
    grid = explain(model, images, "rollout").grid
    assert torch.allclose(grid.flatten(1), row[:, prefix:], rtol=0, atol=1e-6)


def square_matrices(tokens):
    """How many tensors as large as tokens x tokens are alive."""
    return sum(
        1 for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor) and thing.numel() >= tokens * tokens
        and thing.shape[-2:] == (tokens, tokens)
    )  # fmt: skip


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_rollout_holds_as_many_matrices_however_deep_the_model_is(implementation, tiny, pixels):
    most = {}
    for layers in (2, 5):
        model = vithub.HubViTForImageClassification(tiny(num_hidden_layers=layers)).eval()
        model.set_attn_implementation(implementation)
        counts = []
        for layer in model.vit.layers:
            layer.register_forward_hook(lambda *_: counts.append(square_matrices(17)))  # noqa: B023
        explain(model, pixels(), "rollout")
        most[layers] = max(counts)
        assert len(counts) == layers
    assert most[5] == most[2]


@pytest.mark.parametrize("token", ["cls", "distillation", "mean", 5])
@pytest.mark.parametrize("head", [None, 2])
def test_raw_attention_is_a_row_of_a_map(token, head, build, pixels):
    model, images = build("vithub deit"), pixels()
    for layer, weights in enumerate(attention_maps(model, images)):
        weights = weights.mean(dim=1) if head is None else weights[:, head]
        row = {"cls": weights[:, 0], "distillation": weights[:, 1], "mean": weights[:, 2:].mean(dim=1)}.get(
            token, weights[:, 7]
        )
        grid = explain(model, images, "attention", layer=layer, head=head, token=token).grid
        assert torch.allclose(grid.flatten(1), row[:, 2:], rtol=0, atol=1e-6)
    last = explain(model, images, "attention", layer=-1, head=head, token=token).grid
    assert torch.equal(last, grid)


def cams_of(model, images, label):
    """(gradient * attention)+ averaged over heads, by what transformers returns in eager mode."""
    model.set_attn_implementation("eager")
    outputs = model(images, output_attentions=True)
    groups = {name: outputs[name] for name in ("encoder_attentions", "decoder_attentions", "cross_attentions")}
    every = [weights for group in groups.values() for weights in group]
    gradients = iter(torch.autograd.grad(outputs.logits[label], every))
    return {
        name: [(weights * next(gradients)).clamp(min=0).mean(dim=1)[0].detach() for weights in group]
        for name, group in groups.items()
    }


def normalised(relevance):
    """Equations 8 and 9 of the paper, row by row."""
    rest = relevance - torch.eye(len(relevance))
    return torch.stack([row / row.sum() if row.sum() > 0 else row for row in rest]) + torch.eye(len(relevance))


def test_relevance_of_a_query_follows_the_rules_of_encoder_and_decoder(build, pixels):
    model, images = build("transformers detr"), pixels(1, 64, 96)
    explanation = explain(model, images, "relevance", target=2, query=3)
    assert explanation.queries == (3,)
    cams = cams_of(model, images, (0, 3, 2))
    image, queries, reached = torch.eye(6), torch.eye(7), torch.zeros(7, 6)
    for cam in cams["encoder_attentions"]:
        image = image + cam @ image
    for own, cross in zip(cams["decoder_attentions"], cams["cross_attentions"], strict=True):
        queries, reached = queries + own @ queries, reached + own @ reached
        reached = reached + normalised(queries).T @ cross @ normalised(image)
    assert torch.allclose(explanation.grid[0], reached[3].view(2, 3), rtol=1e-4, atol=1e-8)


def test_relevance_of_a_vit_follows_its_rule(build, pixels):
    model, images = build("transformers vit"), pixels(1)
    explanation = explain(model, images, "relevance", target=2)
    model.set_attn_implementation("eager")
    outputs = model(images, output_attentions=True)
    product = torch.eye(17)
    for weights, gradient in zip(
        outputs.attentions, torch.autograd.grad(outputs.logits[0, 2], outputs.attentions), strict=True
    ):
        product = product + (weights * gradient).clamp(min=0).mean(dim=1)[0] @ product
    assert torch.allclose(explanation.grid[0].flatten(), product[0, 1:], rtol=1e-4, atol=1e-8)


def test_each_query_and_image_has_its_own_map(build, pixels):
    model, images = build("transformers detr"), pixels(2, 64, 96)
    both = explain(model, images, "relevance", query=[1, 4], target=0)
    for number, query in enumerate((1, 4)):
        alone = explain(model, images[number : number + 1], "relevance", query=query, target=0)
        assert torch.allclose(alone.grid[0], both.grid[number], rtol=1e-4, atol=1e-8)
    probabilities = model(images).logits.softmax(dim=-1)[..., :-1]
    surest = explain(model, images, "attention")
    assert surest.queries == tuple(probabilities.amax(dim=-1).argmax(dim=-1).tolist())
    rows = attention_rows(model, images, surest.queries[0], part="cross")
    assert torch.allclose(surest.grid[0].flatten(), rows[-1][0].mean(dim=0), rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="`query` must lie in 0 to 6, got 7"):
        explain(model, images, "relevance", query=7)
    with pytest.raises(ValueError, match="class from 0 to 4, got 5"):  # 5 is "no object"
        explain(model, images, "relevance", target=5)
    with pytest.raises(ValueError, match="rollout is not defined across encoder and decoder"):
        explain(model, images, "rollout")


def test_the_classifier_that_pools_patches_is_not_explained_by_cls(tiny, pixels):
    model = vithub.HubViTForImageClassification(tiny(pool="mean")).eval()
    for method in ("attention", "rollout", "relevance"):
        grids = {token: explain(model, pixels(), method, token=token).grid for token in (None, "mean", "cls")}
        assert torch.equal(grids[None], grids["mean"])
        assert not torch.allclose(grids[None], grids["cls"])


@pytest.mark.parametrize("name", ["vithub detr", "vithub detr anchors", "vithub detr on vit"])
def test_relevance_of_our_detector_equals_the_one_by_its_own_maps(name, build, pixels):
    """Also with a ViT as the backbone, whose attention comes first, and with classes independent of each other."""
    model, images = build(name), pixels(1, 64, 96)
    explanation = explain(model, images, "relevance", target=2, query=3)
    outputs = model(images, output_attentions=True)
    groups = [outputs.encoder_attentions, outputs.decoder_attentions, outputs.cross_attentions]
    gradients = iter(torch.autograd.grad(outputs.logits[0, 3, 2], [weights for group in groups for weights in group]))
    encoder, decoder, cross = (
        [(weights * next(gradients)).clamp(min=0).mean(dim=1).detach() for weights in group] for group in groups
    )
    cams = [("encoder", cam) for cam in encoder]
    for own, across in zip(decoder, cross, strict=True):
        cams += [("decoder", own), ("cross", across)]
    expected = query_relevance(cams)[0, 3]
    assert torch.allclose(explanation.grid[0].flatten(), expected, rtol=1e-4, atol=1e-9)
    assert explanation.grid.shape == (1, *outputs.feature_size) if "vit" in name else (1, 2, 3)
    for part, group in zip(("encoder", "decoder", "cross"), groups, strict=True):
        for seen, returned in zip(attention_maps(model, images, part=part), group, strict=True):
            assert torch.allclose(seen, returned, rtol=0, atol=1e-6)


def test_a_detector_of_independent_classes_has_a_last_class_like_any_other(build, pixels):
    model, images = build("vithub detr anchors"), pixels(2, 64, 96)
    explanation = explain(model, images, "attention", target=4)
    scores = model(images).logits.sigmoid()[..., 4].amax(dim=-1)
    assert torch.allclose(torch.tensor(explanation.probabilities), scores, rtol=0, atol=1e-6)


def test_nothing_reaches_a_query_without_cross_attention():
    image, queries = torch.rand(1, 6, 6), torch.rand(1, 3, 3)
    cams = [("encoder", image), ("decoder", queries), ("cross", torch.zeros(1, 3, 6))]
    assert (query_relevance(cams) == 0).all()
