import pytest
import torch
from torch import nn
from torch.nn.functional import dropout, scaled_dot_product_attention
from vithub.training.optim.sample_dropout import SampleDropout, drops_activations

import vithub

SEEDS = [11, 12, 13, 14, 15, 16]


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_a_sample_s_masks_do_not_depend_on_the_others():
    states = random(6, 50, 8)
    with SampleDropout(SEEDS):
        whole = [dropout(states, 0.3, training=True) for _ in range(2)]
    assert not torch.equal(*whole)
    for first, last in ((0, 1), (1, 4), (4, 6)):
        with SampleDropout(SEEDS[first:last]):
            piece = [dropout(states[first:last], 0.3, training=True) for _ in range(2)]
        for one, other in zip(piece, whole, strict=True):
            assert torch.equal(one, other[first:last])


def test_the_share_that_is_dropped_and_the_scale_are_those_of_torch():
    states = torch.ones(6, 4000, requires_grad=True)
    with SampleDropout(SEEDS):
        dropped = dropout(states, 0.3, training=True)
        kept_whole = dropout(states, 0.3, training=False)
    assert torch.equal(kept_whole, states)
    assert sorted(dropped.unique().tolist()) == pytest.approx([0, 1 / 0.7])
    assert (dropped == 0).float().mean().item() == pytest.approx(0.3, abs=0.01)
    (gradient,) = torch.autograd.grad(dropped.sum(), states)
    assert torch.equal(gradient, dropped.detach())


def test_rows_of_several_heads_belong_to_their_sample():
    states = random(6 * 4, 20)
    with SampleDropout(SEEDS):
        whole = dropout(states, 0.5, training=True)
    with SampleDropout(SEEDS[2:4]):
        assert torch.equal(dropout(states[8:16], 0.5, training=True), whole[8:16])


@pytest.mark.parametrize("masked", ["no", "bool", "float"])
def test_fused_attention_drops_from_the_weights_of_the_formula(masked):
    query, key, value = (random(6, 2, 9, 4, seed=seed) for seed in range(3))
    keep = random(6, 1, 9, 9, seed=3) > -1
    keep[..., 0] = True
    mask = {"no": None, "bool": keep, "float": torch.zeros(6, 1, 9, 9).masked_fill(~keep, -torch.inf)}[masked]
    expected = scaled_dot_product_attention(query, key, value, mask, scale=0.3)
    with SampleDropout(SEEDS):
        nothing = scaled_dot_product_attention(query, key, value, mask, 1e-9, scale=0.3)
        dropped = scaled_dot_product_attention(query, key, torch.eye(9)[:, :9].expand(6, 2, 9, 9), mask, 0.4, scale=0.3)
    torch.testing.assert_close(nothing, expected)
    weights = scaled_dot_product_attention(query, key, torch.eye(9).expand(6, 2, 9, 9), mask, scale=0.3)
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], weights[kept] / 0.6)
    assert 0.3 < 1 - (kept.sum() / (weights > 0).sum()).item() < 0.5


def test_a_model_with_dropout_anywhere_is_known(tiny):
    for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"):
        assert drops_activations(vithub.HubViTForImageClassification(tiny(**{name: 0.1})))
    assert not drops_activations(vithub.HubViTForImageClassification(tiny(drop_path_rate=0.1)))
    assert drops_activations(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.2)))
