import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import dropout, scaled_dot_product_attention
from vithub.training.optim.sample_dropout import SampleDropout, drops_activations, kept_values

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


@pytest.mark.parametrize("masked", ["no", "own", "shared"])
def test_attention_of_a_part_drops_as_in_the_whole_and_leaves_no_other_draws(masked):
    query, key, value = (random(6, 2, 9, 4, seed=seed) for seed in range(3))
    mask = {"no": None, "own": random(6, 1, 9, 9, seed=3), "shared": random(1, 1, 9, 9, seed=3)}[masked]
    states = []
    for first, last in ((0, 6), (0, 2), (2, 6)):
        own = mask[first:last] if masked == "own" else mask
        torch.manual_seed(first)  # the state of torch's generator must not count
        with SampleDropout(SEEDS[first:last]):
            parts = [tensor[first:last] for tensor in (query, key, value)]
            states.append([scaled_dot_product_attention(*parts, own, 0.4) for _ in range(2)])
    assert not torch.equal(*states[0])
    for whole, *cut in zip(*states, strict=True):
        assert torch.equal(torch.cat(cut), whole)


def reference(keys, size):
    """The hash in NumPy's unsigned integers: the 16-bit halves of every word, as signed numbers."""
    first, second = (row[:, None] for row in keys)
    with np.errstate(over="ignore"):
        x = np.arange(-(-size // 2), dtype=np.uint32)[None] ^ first
        x = (x ^ (x >> 16)) * np.uint32(0x7FEB352D)
        x = (x ^ (x >> 15)) * np.uint32(0x846CA68B)
        x = ((x ^ (x >> 16)) + second) * np.uint32(0x85EBCA6B)
        x = (x ^ (x >> 13)) * np.uint32(0xC2B2AE35)
        x = x ^ (x >> 16)
    return x.view(np.int16)[:, :size]


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("size", [1, 7, 4096, 100_001])
def test_the_masks_are_the_same_bits_as_in_another_implementation(device, size):
    keys = np.random.default_rng(0).integers(0, 2**32, (2, 5), dtype=np.uint32)
    got = kept_values(keys, size, 0.3, torch.device(device)).cpu().numpy()
    assert np.array_equal(got, reference(keys, size) >= round(0.3 * 65536) - 32768)


@given(seed=st.integers(0, 2**63 - 1), rate=st.sampled_from([0.01, 0.1, 0.5, 0.9]))
@settings(max_examples=15)
def test_masks_of_near_seeds_and_calls_are_independent_and_of_the_rate(seed, rate):
    size, context = 20_000, SampleDropout([seed, seed + 1, seed + 2])
    masks = torch.cat([kept_values(context._keys(), size, rate, torch.device("cpu")) for _ in range(2)]).double()
    spread = (rate * (1 - rate) / size) ** 0.5
    assert ((masks.mean(1) - (1 - rate)).abs() < 6 * spread).all()
    centred = (masks - (1 - rate)) / (rate * (1 - rate)) ** 0.5
    others = centred @ centred.T / size  # correlations of samples and calls
    assert (others - torch.diag(others.diag())).abs().max() < 6 / size**0.5
    for lag in (1, 2, 64, 4096):  # neighbours, both halves of a word, rows
        assert ((centred[:, lag:] * centred[:, :-lag]).mean(1).abs() < 6 / (size - lag) ** 0.5).all()


def test_no_mask_is_another_one_shifted():
    masks = kept_values(SampleDropout([5, 6])._keys(), 3000, 0.5, torch.device("cpu")).double() - 0.5
    spectra = torch.fft.rfft(masks, n=8192)
    agreement = torch.fft.irfft(spectra[0] * spectra[1].conj(), n=8192) * 4 / 3000  # for every shift
    assert agreement.abs().max() < 0.12  # 1 where one is the other


def test_a_model_with_dropout_anywhere_is_known(tiny):
    for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"):
        assert drops_activations(vithub.HubViTForImageClassification(tiny(**{name: 0.1})))
    assert not drops_activations(vithub.HubViTForImageClassification(tiny(drop_path_rate=0.1)))
    assert drops_activations(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.2)))
