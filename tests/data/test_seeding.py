import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from vithub.data.seeding import Stream, sample_generator, seed_torch

KEYS = st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 7), st.integers(0, 2**40), st.integers(0, 2**40))


@given(one=KEYS, other=KEYS)
def test_a_key_decides_all_draws_and_no_other_key_gives_the_same(one, other):
    first, second = (sample_generator(*key).integers(2**63, size=40).tolist() for key in (one, other))
    assert first == sample_generator(*one).integers(2**63, size=40).tolist()
    assert one == other or not set(first) & set(second)


@given(key=KEYS)
def test_neighbouring_keys_share_nothing(key):
    drawn = [sample_generator(*key).integers(2**63, size=20).tolist()]
    for place in range(4):
        near = list(key)
        near[place] = near[place] + 1 if near[place] < 7 else near[place] - 1
        drawn.append(sample_generator(*near).integers(2**63, size=20).tolist())
    assert len({number for numbers in drawn for number in numbers}) == 100


def test_first_draws_of_neighbouring_keys_are_even_and_independent():
    """(seed, epoch, position, draw): the first draws of a small neighbourhood of keys."""
    drawn = np.array([
        [[sample_generator(seed, Stream.SAMPLE, epoch, position).random(4) for position in range(200)]
         for epoch in range(5)] for seed in range(5)
    ])  # fmt: skip
    counts = np.histogram(drawn, bins=64, range=(0, 1))[0]
    assert stats.chisquare(counts).pvalue > 1e-3
    assert stats.kstest(drawn.flatten(), "uniform").pvalue > 1e-3
    for axis in range(4):
        low, high = (np.take(drawn, part, axis).flatten() for part in (range(drawn.shape[axis] - 1),
                                                                       range(1, drawn.shape[axis])))  # fmt: skip
        assert stats.pearsonr(low, high).pvalue > 1e-3
        pairs = np.histogram2d(low, high, bins=8, range=[(0, 1), (0, 1)])[0]
        assert stats.chisquare(pairs.flatten()).pvalue > 1e-3


def test_torch_draws_the_same_as_after_its_own_seed(monkeypatch):
    torch.manual_seed(5)
    wanted = torch.randn(4)
    seed_torch(5)
    assert torch.equal(torch.randn(4), wanted)
    seeded_all = []
    monkeypatch.setattr(torch, "manual_seed", seeded_all.append)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    seed_torch(7)
    assert seeded_all == [7]
