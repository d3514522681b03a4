"""Intervals of a comparison, at the edge of what can be measured too."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from vithub.comparison.curves import PROTOCOLS, data_section
from vithub.comparison.measurement import mean_share_interval, weighted_interval
from vithub.data.intervals import share_interval

CELL = {"interval": [0.8, 1.0], "train_images": 9, "test_images": 20, "steps": 1, "parameters": 1, "seconds": 8}
SETTINGS = {"data": "x", "epochs": 1, "batch_size": 1, "image_size": 16, "hidden_size": 32, "layers": 1, "lr": 1}


@given(st.lists(st.booleans(), min_size=1, max_size=60))
def test_with_one_trial_per_image_it_is_the_interval_of_a_rate(right):
    assert mean_share_interval(np.array(right, dtype=float)) == pytest.approx(share_interval(sum(right), len(right)))


@given(st.integers(2, 200), st.integers(1, 20), st.booleans())
def test_where_all_agree_images_alone_count(images, trials, all_right):
    low, high = mean_share_interval([float(all_right)] * images, trials)
    assert (low, high) == share_interval(images * all_right, images)
    assert high - low > 0


@given(st.lists(st.integers(0, 5), min_size=2, max_size=60))
def test_several_trials_of_an_image_are_worth_one_to_all_of_them(agreed):
    shares, count = np.array(agreed) / 5, len(agreed)
    low, high = mean_share_interval(shares, 5)
    widest, narrowest = (share_interval(shares.mean() * n, n) for n in (count, 5 * count))
    assert low <= shares.mean() <= high
    assert widest[0] - 1e-9 <= low <= narrowest[0] + 1e-9
    assert narrowest[1] - 1e-9 <= high <= widest[1] + 1e-9


@pytest.mark.parametrize("agreement", [0.5, 0.9, 0.98])
def test_the_mean_share_lies_in_its_interval_about_as_often_as_it_says(agreement):
    """Images differ: each has a consistency of its own, and five pairs of crops."""
    draws = np.random.default_rng(0)
    held = []
    for _ in range(600):
        own = draws.beta(4 * agreement, 4 * (1 - agreement), size=80)
        low, high = mean_share_interval(draws.binomial(5, own) / 5, 5)
        held.append(low <= agreement <= high)
    assert 0.92 <= np.mean(held) <= 0.99  # 0.95 has a standard deviation of 0.009


def test_a_weighted_sum_lies_in_its_interval_about_as_often_as_it_says():
    draws = np.random.default_rng(1)
    weights, shares, counts = (0.7, 0.3), (0.97, 0.6), (60, 20)
    truth = sum(weight * share for weight, share in zip(weights, shares, strict=True))
    held = []
    for _ in range(1000):
        parts = [draws.binomial(count, share) for count, share in zip(counts, shares, strict=True)]
        found = weighted_interval(
            [(w, part / n, share_interval(part, n)) for w, part, n in zip(weights, parts, counts, strict=True)]
        )
        held.append(found[0] <= truth <= found[1])
    assert 0.92 <= np.mean(held) <= 0.985


def test_seeds_that_all_agree_have_the_interval_of_the_test_images():
    def section(*accuracies):
        cells = [
            {**CELL, "architecture": name, "fraction": 1.0, "seed": seed, "accuracy": accuracy}
            for name in ("CNN", "ViT")
            for seed, accuracy in enumerate(accuracies)
        ]
        return data_section(cells, SETTINGS)

    same = section(1.0, 1.0, 1.0)
    assert [one.interval for one in same.find("accuracy")] == [pytest.approx((83.887, 100), abs=1e-3)] * 2
    # no difference at any seed is no proof of none
    assert [one.interval for one in same.find("accuracy difference")] == [None]
    assert same.find("data crossing")[0].note.startswith("not established")
    spread = section(0.9, 1.0, 0.95).find("accuracy")[0]
    assert spread.interval == pytest.approx((82.579, 100), abs=1e-3)
    assert spread.protocol in PROTOCOLS
