"""Mean attention distance against closed forms and against sums written out."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from vithub.interpretability.analysis.attention_distance import (
    DistanceSums,
    mean_attention_distance,
    patch_distances,
    uniform_attention_distance,
)

import vithub

grids = st.tuples(st.integers(1, 5), st.integers(1, 5))
patches = st.tuples(st.sampled_from([4, 14, 16]), st.sampled_from([4, 14, 16]))


def random_attention(grid, num_prefix, seed, batch=2, heads=3):
    tokens = num_prefix + grid[0] * grid[1]
    scores = torch.randn(batch, heads, tokens, tokens, generator=torch.Generator().manual_seed(seed))
    return scores.mul(2).softmax(dim=-1)


@given(grid=grids, patch=patches, num_prefix=st.integers(0, 3))
def test_uniform_attention_is_the_mean_of_all_pairs(grid, patch, num_prefix):
    tokens = num_prefix + grid[0] * grid[1]
    found = mean_attention_distance(torch.full((1, 1, tokens, tokens), 1 / tokens), grid, patch, num_prefix)
    closed = uniform_attention_distance(grid, patch)
    assert found.item() == pytest.approx(closed, rel=1e-6)
    assert closed == pytest.approx(patch_distances(grid, patch).mean().item(), rel=1e-12)


def test_a_row_of_patches_has_its_known_mean_distance():
    # of two numbers below n, the mean difference is (n^2 - 1) / (3 n)
    for count in (1, 2, 7, 37):
        assert uniform_attention_distance((1, count), (8, 16)) == pytest.approx(16 * (count**2 - 1) / (3 * count))
        assert uniform_attention_distance((count, 1), (8, 16)) == pytest.approx(8 * (count**2 - 1) / (3 * count))


@given(grid=grids, num_prefix=st.integers(0, 3))
def test_attention_to_oneself_goes_nowhere(grid, num_prefix):
    tokens = num_prefix + grid[0] * grid[1]
    assert mean_attention_distance(torch.eye(tokens)[None, None], grid, (16, 16), num_prefix).item() == 0


def test_all_attention_on_one_corner_is_the_mean_distance_to_it():
    attention = torch.zeros(1, 1, 7, 7)
    attention[..., 1] = 1.0  # the first patch, after CLS
    found = mean_attention_distance(attention, (2, 3), (10, 20)).item()
    assert found == pytest.approx(np.mean([np.hypot(10 * row, 20 * column) for row in (0, 1) for column in (0, 1, 2)]))


@given(grid=grids, num_prefix=st.integers(0, 2), seed=st.integers(0, 99))
def test_it_equals_sums_written_out(grid, num_prefix, seed):
    attention = random_attention(grid, num_prefix, seed, batch=1, heads=1)
    places = [(row, column) for row in range(grid[0]) for column in range(grid[1])]
    rows = []
    for i, (row, column) in enumerate(places):
        weights = [attention[0, 0, num_prefix + i, num_prefix + j].item() for j in range(len(places))]
        far = [np.hypot((row - y) * 14, (column - x) * 16) for y, x in places]
        rows.append(np.dot(weights, far) / sum(weights))
    found = mean_attention_distance(attention, grid, (14, 16), num_prefix)
    assert found.item() == pytest.approx(np.mean(rows), rel=1e-6, abs=1e-12)


@given(share=st.floats(0.0, 0.99), seed=st.integers(0, 99))
def test_what_goes_to_prefix_tokens_changes_nothing(share, seed):
    attention = random_attention((3, 4), 2, seed)
    paying = attention.clone()
    paying[..., 2:] *= 1 - share
    paying[..., 0] += share * attention[..., 2:].sum(dim=-1)
    expected = mean_attention_distance(attention, (3, 4), (8, 8), 2)
    assert torch.allclose(mean_attention_distance(paying, (3, 4), (8, 8), 2), expected, rtol=1e-5)


@given(seed=st.integers(0, 99))
def test_distances_scale_with_the_patch_and_stay_inside_the_image(seed):
    attention = random_attention((4, 5), 1, seed)
    small, large = (mean_attention_distance(attention, (4, 5), (size, size)) for size in (7, 14))
    assert torch.allclose(large, 2 * small)
    assert (small > 0).all()
    assert (small < np.hypot(3 * 7, 4 * 7)).all()


def test_a_patch_that_sees_prefix_tokens_alone_is_left_out():
    attention = torch.zeros(1, 2, 5, 5)
    attention[..., 0] = 1.0
    attention[0, 0, 1, :] = torch.tensor([0.5, 0.0, 0.5, 0.0, 0.0])  # the first patch looks at its neighbour
    found = mean_attention_distance(attention, (2, 2), (16, 16))
    assert found[0, 0] == 16
    assert found[0, 1].isnan()


@pytest.mark.parametrize("shape", [(2, 3, 16, 16), (2, 3, 17, 16), (3, 17, 17)])
def test_a_shape_that_does_not_fit_is_refused(shape):
    with pytest.raises(ValueError, match=r"must be \(images, heads, 17, 17\) for 4 x 4 patches after 1 prefix"):
        mean_attention_distance(torch.zeros(shape), (4, 4), (8, 8))


@given(cut=st.integers(1, 6), seed=st.integers(0, 99))
def test_batches_add_up_to_the_whole(cut, seed):
    layers = [random_attention((3, 2), 1, seed + layer, batch=7) for layer in range(2)]
    whole, parts = (DistanceSums((3, 2), (16, 8), 1) for _ in range(2))
    whole.update(layers)
    parts.update(layer[:cut] for layer in layers)
    parts.update(layer[cut:] for layer in layers)
    one, other = whole.compute(), parts.compute()
    each = torch.stack([mean_attention_distance(layer, (3, 2), (16, 8)) for layer in layers])  # (layers, B, H)
    np.testing.assert_allclose(other.distances, each.mean(dim=1), rtol=1e-10)
    np.testing.assert_allclose(other.deviations, each.std(dim=1), rtol=1e-8)
    np.testing.assert_allclose(one.distances, other.distances, rtol=1e-12)
    assert one.images == other.images == 7


def test_the_table_and_the_picture_hold_all_heads(tmp_path):
    sums = DistanceSums((3, 2), (16, 16), 1)
    with pytest.raises(ValueError, match="at least one"):
        sums.compute()
    sums.update(random_attention((3, 2), 1, seed, heads=4) for seed in range(5))
    found = sums.compute()
    table = found.to_dataframe()
    assert len(table) == 20
    row = table[(table.layer == 3) & (table["head"] == 2)].iloc[0]
    assert row.distance == found.distances[3, 2]
    assert row.of_uniform == pytest.approx(found.distances[3, 2] / uniform_attention_distance((3, 2), (16, 16)))
    for theme in ("light", "dark"):
        found.save(tmp_path / f"{theme}.png", theme=theme)
    assert (tmp_path / "light.png").read_bytes() != (tmp_path / "dark.png").read_bytes()


def test_of_every_family_of_models(attending_name, build, pixels):
    model = build(attending_name)
    size = 64 if attending_name == "transformers detr" else 32
    found = vithub.attention_distance(model, pixels(3, size, size), batch_size=2)
    layers = list(vithub.attention_maps(model, pixels(3, size, size)))
    assert found.distances.shape == (len(layers), layers[0].shape[1])
    rows, columns = found.grid
    prefix = layers[0].shape[-1] - rows * columns
    expected = [mean_attention_distance(layer, found.grid, found.patch_hw, prefix).mean(dim=0) for layer in layers]
    np.testing.assert_allclose(found.distances, torch.stack(expected), rtol=1e-4)
    assert found.images == 3


def test_a_model_without_position_and_content_looks_everywhere_alike(tiny):
    model = vithub.HubViTForImageClassification(tiny(image_size=(32, 48)))
    with torch.no_grad():
        for layer in model.vit.layers:
            layer.attention.q_proj.weight.zero_()
    found = vithub.attention_distance(model, torch.randn(2, 3, 32, 48))
    np.testing.assert_allclose(found.distances, uniform_attention_distance((4, 6), (8, 8)), rtol=1e-5)
    np.testing.assert_allclose(found.to_dataframe().of_uniform, 1, rtol=1e-5)


def test_a_cnn_has_no_attention_to_measure(build, pixels):
    with pytest.raises(ValueError, match="has no attention"):
        vithub.attention_distance(build("timm resnet"), pixels(1, 64, 64))
