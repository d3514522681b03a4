"""Perturbation curves of models whose answer is known, and of orders that are."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from vithub.interpretability.faithfulness.insertion_deletion import (
    baseline_images,
    cell_ranks,
    mean_height,
    over_pixels,
    perturbation_curves,
)
from vithub.interpretability.faithfulness.protocol import FaithfulnessProtocol


def images(batch=2, height=20, width=30, seed=0):
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


def brightness(weights):
    """A model whose score is the weighted mean brightness of cells (rows, columns), 1 of white and 0 of black."""

    def score(pixels):
        cells = torch.nn.functional.adaptive_avg_pool2d(pixels.mean(dim=1, keepdim=True), weights.shape)[:, 0]
        found = (cells * weights).sum(dim=(1, 2)) / weights.sum()
        return found, (found >= 0.5).float()

    return score


def curves_of(weights, maps, steps=10):
    whole, black = torch.ones(len(maps), 3, 8, 12), torch.zeros(len(maps), 3, 8, 12)
    score = brightness(weights)
    ranks = cell_ranks(maps, weights.shape, 0, 0)
    return perturbation_curves(score, whole, black, ranks, steps, score(whole), score(black))


def test_a_linear_score_has_the_curves_of_its_sorted_weights():
    weights = torch.arange(1.0, 9.0).view(2, 4)[:, [2, 0, 3, 1]]
    curves = curves_of(weights, weights[None].repeat(2, 1, 1), steps=20)
    sorted_weights = np.sort(weights.flatten().numpy())[::-1]
    shares = np.concatenate([[0], sorted_weights.cumsum() / sorted_weights.sum()])
    counts = [round(8 * step / 20) for step in range(21)]
    np.testing.assert_allclose(curves.insertion[0], shares[counts], atol=1e-6)
    np.testing.assert_allclose(curves.deletion[1], 1 - shares[counts], atol=1e-6)
    np.testing.assert_array_equal(curves.insertion_kept[0], shares[counts] >= 0.5)


@given(order=st.permutations(range(8)))
def test_no_order_deletes_faster_or_inserts_faster_than_the_right_one(order):
    weights = torch.arange(1.0, 9.0).view(2, 4)
    best = curves_of(weights, weights[None]).measures()[0]
    other = curves_of(weights, torch.tensor(order).float().view(1, 2, 4)).measures()[0]
    worst = curves_of(weights, -weights[None]).measures()[0]
    for found, sign in zip((best - other).tolist(), (-1, 1, -1, 1), strict=True):
        assert sign * found >= -1e-9
    for found, sign in zip((other - worst).tolist(), (-1, 1, -1, 1), strict=True):
        assert sign * found >= -1e-9


def test_one_decisive_patch_drops_deletion_at_once_and_lifts_insertion_at_once():
    weights = torch.zeros(4, 6)
    weights[1, 3] = 1
    measures = curves_of(weights, weights[None]).measures()[0]
    # the probability is 1 at 0 and 0 from 10 % on: half a step of ten remains, and 95 % the other way round
    np.testing.assert_allclose(measures, [0.05, 0.95, 0.0, 1.0], atol=1e-9)
    opposite = curves_of(weights, -weights[None]).measures()[0]
    np.testing.assert_allclose(opposite, [0.95, 0.05, 1.0, 0.0], atol=1e-9)


def test_the_ends_are_the_image_and_the_baseline():
    seen = []

    def score(pixels):
        seen.append(pixels)
        return torch.zeros(len(pixels)), torch.zeros(len(pixels))

    pixels, baseline = images(), torch.full((2, 3, 20, 30), 9.0)
    one, zero = (torch.ones(2), torch.ones(2)), (torch.zeros(2), torch.zeros(2))
    ranks = cell_ranks(torch.rand(2, 4, 5), (4, 5), 0, 0)
    curves = perturbation_curves(score, pixels, baseline, ranks, 10, one, zero)
    assert curves.deletion[:, 0].tolist() == curves.insertion[:, -1].tolist() == [1, 1]
    assert curves.deletion[:, -1].tolist() == curves.insertion[:, 0].tolist() == [0, 0]
    assert len(seen) == 18
    for step in range(1, 10):
        deleted, inserted = seen[2 * step - 2], seen[2 * step - 1]
        replaced = (deleted == 9).all(dim=1)  # (B, height, width)
        assert replaced.float().mean().item() == pytest.approx(step / 10)
        assert torch.equal(torch.where(replaced[:, None], baseline, pixels), deleted)
        assert torch.equal(torch.where(replaced[:, None], pixels, baseline), inserted)


@given(rows=st.integers(1, 5), columns=st.integers(1, 5), seed=st.integers(0, 99))
def test_ranks_are_an_order_of_all_cells_largest_first(rows, columns, seed):
    maps = torch.rand(3, rows, columns, generator=torch.Generator().manual_seed(seed))
    ranks = cell_ranks(maps, (rows, columns), 0, 0)
    for values, rank in zip(maps.flatten(1), ranks.flatten(1), strict=True):
        assert sorted(rank.tolist()) == list(range(rows * columns))
        assert torch.equal(values[rank.argsort()], values.sort(descending=True).values)


def test_ties_are_random_but_do_not_depend_on_the_batch():
    maps = torch.zeros(6, 4, 4)
    ranks = cell_ranks(maps, (4, 4), 7, 0)
    assert len({tuple(rank.flatten().tolist()) for rank in ranks}) == 6
    assert torch.equal(cell_ranks(maps[:2], (4, 4), 7, 4), ranks[4:])
    assert not torch.equal(cell_ranks(maps, (4, 4), 8, 0), ranks)
    with pytest.raises(ValueError, match="not finite"):
        cell_ranks(maps / 0, (4, 4), 7, 0)


@given(rows=st.integers(1, 4), columns=st.integers(1, 4), side=st.integers(1, 6))
def test_each_pixel_belongs_to_its_cell(rows, columns, side):
    cells = torch.arange(rows * columns).view(1, rows, columns)
    pixels = over_pixels(cells, (rows * side, columns * side))
    assert torch.equal(pixels, cells.repeat_interleave(side, 1).repeat_interleave(side, 2))


def test_baselines_hide_detail_and_keep_the_colour():
    pixels = images(batch=1, height=64, width=64)
    for baseline, left in (("mean", 0.0), ("blur", 0.2)):
        hidden = baseline_images(pixels, FaithfulnessProtocol(baseline=baseline))
        assert hidden.shape == pixels.shape
        assert hidden.std(dim=(2, 3)).max() <= left * pixels.std(dim=(2, 3)).min() + 1e-6
        assert torch.allclose(hidden.mean(dim=(2, 3)), pixels.mean(dim=(2, 3)), atol=0.02)
    assert baseline_images(images(height=2, width=3), FaithfulnessProtocol()).shape == (2, 3, 2, 3)


@given(points=st.lists(st.floats(0, 1), min_size=2, max_size=9))
def test_mean_height_lies_between_the_extremes_and_is_that_of_the_trapezoids(points):
    found = mean_height(torch.tensor([points])).item()
    assert min(points) - 1e-6 <= found <= max(points) + 1e-6
    expected = np.mean([(first + second) / 2 for first, second in pairwise(points)])
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"baseline": "grey"}, r"`baseline` must be one of \['blur', 'mean'\], got 'grey'"),
        ({"steps": 15}, "`steps` must be a multiple of 10"),
        ({"blur": 0.0}, "`blur` must lie between 0 and 1, got 0.0"),
        ({"randomised": (0.5, 0.2)}, r"rising parts in \(0, 1\]"),
        ({"bootstrap": 0}, "`bootstrap` must be at least 1, got 0"),
        ({"version": 3}, "`version` must be one of"),
    ],
)
def test_a_protocol_that_cannot_be_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        FaithfulnessProtocol(**fields)


def test_every_field_is_in_the_id():
    import dataclasses

    plain = FaithfulnessProtocol()
    others = {
        "version": 1, "baseline": "mean", "blur": 0.1, "steps": 20, "target": "label", "precision": "bf16",
        "integration_steps": 8, "tolerance": 3, "box_threshold": 0.3, "randomised": (0.5, 1.0), "sanity_images": 8,
        "sanity_limit": 0.4, "bootstrap": 10, "level": 0.9, "seed": 1,
    }  # fmt: skip
    assert set(others) == {field.name for field in dataclasses.fields(plain)}
    ids = {FaithfulnessProtocol(**{name: value}).id for name, value in others.items()}
    assert len({plain.id, *ids}) == len(others) + 1
    assert FaithfulnessProtocol.from_dict(plain.to_dict()) == plain
    assert plain.id == FaithfulnessProtocol().id
    assert len(plain.id) == 10
