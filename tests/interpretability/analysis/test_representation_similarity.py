"""CKA against the sum over all quadruples of images, and its invariances."""

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import ResNetConfig, ResNetForImageClassification
from vithub.interpretability.analysis.representation_similarity import CKASums, centred_gram

import vithub


def draw(images, width, seed):
    return torch.randn(images, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow_hsic(first, second):
    """The U-statistic itself (Song et al. 2012, eq. 4): the mean over ordered quadruples of different images."""
    k, m = first @ first.T, second @ second.T
    terms = [k[i, j] * (m[i, j] + m[q, r] - 2 * m[i, q]) for i, j, q, r in permutations(range(len(k)), 4)]
    return float(torch.stack(terms).mean())


def similarity(first, second):
    sums = CKASums()
    sums.update([first], [second])
    return sums.compute()[0, 0]


@given(images=st.integers(4, 6), seed=st.integers(0, 999))
def test_it_agrees_with_the_slow_formula(images, seed):
    first, second = draw(images, 3, seed), draw(images, 5, seed + 1000)
    expected = slow_hsic(first, second) / np.sqrt(slow_hsic(first, first) * slow_hsic(second, second))
    assert similarity(first, second) == pytest.approx(expected, rel=1e-8, abs=1e-8)
    inner = (centred_gram(first) * centred_gram(second)).sum().item() / (images * (images - 3))
    assert inner == pytest.approx(slow_hsic(first, second), rel=1e-8, abs=1e-10)


@given(seed=st.integers(0, 999), scale=st.floats(1e-3, 1e3), width=st.integers(1, 9))
def test_rotation_scale_and_shift_change_nothing(seed, scale, width):
    first, second = draw(12, width, seed), draw(12, 4, seed + 1)
    rotation = torch.linalg.qr(draw(width, width, seed + 2))[0]
    moved = scale * first @ rotation + 5 * draw(1, width, seed + 3)
    assert similarity(moved, second) == pytest.approx(similarity(first, second), abs=1e-8)
    assert similarity(moved, first) == pytest.approx(1.0, abs=1e-8)


@given(seed=st.integers(0, 99))
def test_an_invertible_map_that_is_no_rotation_does_change_it(seed):
    # Else it would be canonical correlation, which cannot tell layers apart that are wider than there are images.
    first = draw(40, 5, seed)
    stretched = first * torch.tensor([1.0, 1.0, 1.0, 1.0, 30.0])
    assert similarity(first, stretched) < 0.9


def test_it_is_symmetric_and_one_with_itself():
    layers = [draw(20, width, width) for width in (2, 7, 30)]
    sums = CKASums()
    sums.update(layers)
    values = sums.compute()
    np.testing.assert_allclose(values, values.T, rtol=1e-12)
    np.testing.assert_allclose(np.diag(values), 1, rtol=1e-12)
    assert (np.abs(values) <= 1 + 1e-12).all()


def test_small_batches_are_right_on_average_where_the_biased_estimate_is_not():
    # Independent features: the truth is 0, and the usual estimate from 8 images says about 1.
    def biased(first, second):
        first, second = first - first.mean(0), second - second.mean(0)
        return ((first.T @ second).norm() ** 2 / ((first.T @ first).norm() * (second.T @ second).norm())).item()

    sums, plain = CKASums(), []
    for seed in range(200):
        first, second = draw(8, 60, 2 * seed), draw(8, 60, 2 * seed + 1)
        sums.update([first], [second])
        plain.append(biased(first, second))
    assert abs(sums.compute()[0, 0]) < 0.05
    assert np.mean(plain) > 0.8


def test_batches_estimate_what_all_images_at_once_would():
    shared = draw(1200, 6, 0)
    first, second = shared, torch.cat([shared[:, :3], draw(1200, 3, 1)], dim=1)
    parts = CKASums()
    for left, right in zip(first.split(24), second.split(24), strict=True):
        parts.update([left], [right])
    assert parts.compute()[0, 0] == pytest.approx(similarity(first, second), abs=0.02)


def test_a_layer_that_is_the_same_for_all_images_has_no_similarity():
    sums = CKASums()
    sums.update([draw(6, 3, 0), torch.ones(6, 3)])
    values = sums.compute()
    assert values[0, 0] == pytest.approx(1)
    assert np.isnan(values[1]).all()
    assert np.isnan(values[:, 1]).all()


def test_too_few_or_other_images_are_refused():
    with pytest.raises(ValueError, match="at least 4 images, got 3"):
        CKASums().update([draw(3, 2, 0)])
    with pytest.raises(ValueError, match="the same images, got 5 and 6"):
        CKASums().update([draw(5, 2, 0)], [draw(6, 2, 0)])
    with pytest.raises(ValueError, match="at least one"):
        CKASums().compute()


def test_of_models(tiny, randomised, tmp_path):
    model = randomised(vithub.HubViTForImageClassification(tiny()))
    pixels = torch.randn(10, 3, 32, 32)
    found = vithub.cka(model, pixels, batch_size=5)
    assert found.names == ["vit.layers.0", "vit.layers.1", "penultimate"]
    assert found.images == 10
    np.testing.assert_allclose(np.diag(found.values), 1, rtol=1e-9)
    states = [model(pixels[part], output_hidden_states=True).hidden_states for part in (slice(5), slice(5, 10))]
    slow = CKASums()
    for part in states:
        slow.update([part[1].flatten(1), part[2].flatten(1)])
    np.testing.assert_allclose(found.values[:2, :2], slow.compute(), rtol=1e-5)

    cnn = ResNetForImageClassification(
        ResNetConfig(embedding_size=8, hidden_sizes=[8, 16, 32], depths=[1, 1, 1], num_labels=3)
    )
    with_cnn = vithub.cka(model, pixels, cnn, titles=("ViT", "ResNet"))
    assert with_cnn.values.shape == (3, 4)
    assert cnn.training, "the mode is as it was"
    assert len(with_cnn.to_dataframe()) == 12
    with_cnn.save(tmp_path / "cka.svg", theme="dark")
    assert "layer of ResNet" in (tmp_path / "cka.svg").read_text(encoding="utf-8")


def test_the_same_network_rotated_is_the_same_network(tiny, randomised):
    class Rotated(nn.Module):
        def __init__(self, model, rotation):
            super().__init__()
            self.model, self.rotation = model, rotation

        def forward(self, hidden):
            return self.model(hidden) @ self.rotation

    torch.manual_seed(0)
    layers = nn.ModuleDict(
        {"blocks": nn.Sequential(*(nn.Sequential(nn.Flatten(), nn.Linear(48, 48)) for _ in range(3)))}
    )
    layers.forward = layers["blocks"].forward
    rotation = torch.linalg.qr(torch.randn(48, 48))[0]
    turned = Rotated(layers, rotation)
    pixels = torch.randn(9, 3, 4, 4)
    found = vithub.cka(layers, pixels, turned, other_layers=[""], layers=["blocks.2"])
    assert found.values[0, 0] == pytest.approx(1, abs=1e-5)


def test_other_pixels_must_be_of_as_many_images(tiny):
    model = vithub.HubViTModel(tiny())
    pixels = torch.randn(8, 3, 32, 32)
    with pytest.raises(ValueError, match="need `other`"):
        vithub.cka(model, pixels, other_pixel_values=pixels)
    with pytest.raises(ValueError, match="the same images, got 8 and 6"):
        vithub.cka(model, pixels, model, other_pixel_values=pixels[:6])
