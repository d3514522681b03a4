"""The streamed bootstrap against drawing images with replacement."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from vithub.interpretability.faithfulness.streaming_bootstrap import StreamingBootstrap


def streamed(values, cuts=(), samples=400, seed=0):
    sums = StreamingBootstrap(values.shape[1], samples, seed)
    for part in np.split(np.arange(len(values)), cuts):
        if len(part):
            sums.update(int(part[0]), values[part])
    return sums


@given(cuts=st.lists(st.integers(1, 29), max_size=4), seed=st.integers(0, 20))
def test_batches_change_nothing(cuts, seed):
    values = np.random.default_rng(seed).normal(size=(30, 2))
    whole, parts = streamed(values, samples=30), streamed(values, sorted(cuts), samples=30)
    np.testing.assert_allclose(whole.replicates, parts.replicates, rtol=1e-9, atol=1e-12)


def test_intervals_are_those_of_drawing_with_replacement():
    draws = np.random.default_rng(0)
    values = draws.gamma(2.0, size=(200, 1))
    found = streamed(values, samples=4000).estimates(0.95)[0]
    means = [values[draws.integers(200, size=200)].mean() for _ in range(4000)]
    low, high = np.quantile(means, [0.025, 0.975])
    slack = 0.12 * (high - low)
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(low, abs=slack)
    assert found.high == pytest.approx(high, abs=slack)


def test_intervals_hold_the_truth_as_often_as_they_say():
    held = 0
    for seed in range(200):
        found = streamed(np.random.default_rng(seed).normal(size=(60, 1)), samples=200, seed=seed).estimates(0.8)[0]
        held += found.low <= 0 <= found.high
    assert 140 <= held <= 178  # of 200 with a chance of 0.8: the standard deviation is 5.7


def test_differences_are_of_the_same_images():
    values = np.random.default_rng(0).normal(size=(100, 1))
    first, second = streamed(values), streamed(values + 0.01)
    gain = second.differences(first)[0]
    assert gain.mean == pytest.approx(0.01)
    assert (gain.low, gain.high) == pytest.approx((0.01, 0.01)), "paired: what both share cancels"
    assert first.estimates()[0].high - first.estimates()[0].low > 0.2
    with pytest.raises(ValueError, match="the same resamples"):
        first.differences(streamed(values, seed=1))


@pytest.mark.parametrize(("own", "its"), [(1.0, 0.0), (1.0, 1.0), (0.0, 0.0)])
def test_shares_and_their_differences_have_a_width_at_the_edge(own, its):
    values = [np.array([[share]] * 40 + [[np.nan]] * 9) for share in (own, its)]
    first, second = map(streamed, values)
    wilson = stats.binomtest(round(40 * own), 40).proportion_ci(0.95, method="wilson")
    share = first.share(0)
    assert (share.mean, share.low, share.high) == pytest.approx((own, wilson.low, wilson.high))
    gain = first.share_difference(second, 0)
    assert gain.mean == own - its
    assert gain.high - gain.low > 0.05, "no difference that was seen in 40 images is certain"
    assert -1 <= gain.low <= gain.mean <= gain.high <= 1


def test_a_difference_of_shares_lies_in_its_interval_as_often_as_it_says_near_the_edge_too():
    held, widths = 0, []
    for seed in range(200):
        draws = np.random.default_rng(seed).random((30, 1))
        right, lucky = (draws < 0.97) * 1.0, (draws < 0.9) * 1.0  # an image that is easy for one is for the other
        first, second = (streamed(values, samples=60, seed=seed) for values in (right, lucky))
        gain = first.share_difference(second, 0)
        widths.append(gain.high - gain.low)
        held += gain.low <= 0.97 - 0.9 <= gain.high
    assert held >= 184  # of 200 with a chance of 0.95: the standard deviation is 3
    assert np.mean(widths) < 0.3


def test_a_measure_that_no_image_has_has_no_share():
    assert np.isnan(streamed(np.full((3, 1), np.nan)).share(0).to_list()).all()


def test_images_without_a_measure_are_left_out_of_it():
    values = np.random.default_rng(0).normal(size=(50, 2))
    holes = values.copy()
    holes[::2, 1] = np.nan
    found = streamed(holes).estimates()
    assert found[0].mean == pytest.approx(values[:, 0].mean())
    assert found[1].mean == pytest.approx(values[1::2, 1].mean())
    assert np.isnan(streamed(np.full((5, 1), np.nan)).estimates()[0].mean)


def test_memory_does_not_grow_with_the_images():
    sums = StreamingBootstrap(3, 50)
    before = sum(array.nbytes for array in vars(sums).values() if isinstance(array, np.ndarray))
    for first in range(0, 2000, 100):
        sums.update(first, np.ones((100, 3)))
    assert sum(array.nbytes for array in vars(sums).values() if isinstance(array, np.ndarray)) == before
