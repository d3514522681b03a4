"""Distances of networks whose looking is known, and controls beside each."""

from dataclasses import replace

import pytest
import timm
import torch
from torch import nn
from vithub.comparison.contestant_sources import load_contestant
from vithub.comparison.image_sample import canvases
from vithub.comparison.locality import LocalitySettings, attention_distances, measure_locality
from vithub.interpretability.analysis.attention_distance import uniform_attention_distance

from vithub import HubViTConfig, HubViTForImageClassification, load

SETTINGS = LocalitySettings(images=4, field_images=2)


def vit(**fields):
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 32, "patch_size": 8}
    return HubViTForImageClassification(HubViTConfig(**sizes, num_labels=5, **fields)).eval()


def test_attention_without_queries_is_uniform():
    model = vit(num_register_tokens=2)
    for layer in model.vit.layers:
        nn.init.zeros_(layer.attention.q_proj.weight)
        nn.init.zeros_(layer.attention.q_proj.bias)
    distances, uniform = attention_distances(model, torch.randn(9, 3, 32, 32))
    assert distances.shape == (9, 2, 4)
    assert uniform == uniform_attention_distance((4, 4), (8, 8))
    torch.testing.assert_close(distances, torch.full_like(distances, uniform))


def test_the_same_network_looks_as_far_in_two_libraries():
    theirs = timm.create_model("test_vit", img_size=96).eval()
    pixels = torch.randn(2, 3, 96, 96)
    distances, uniform = attention_distances(theirs, pixels)
    assert distances.shape[0] == 2
    assert (distances > 0).all()
    ours, _ = attention_distances(load(theirs), pixels)
    torch.testing.assert_close(ours, distances, atol=1e-3, rtol=1e-3)
    assert uniform == uniform_attention_distance((6, 6), (16, 16))


@pytest.fixture(scope="module")
def measured(contestant, sample, circular_cnn):
    torch.manual_seed(0)
    entries = [
        replace(contestant("vit", vit(initializer_range=0.5)), build=lambda size: vit()),
        replace(contestant("cnn", circular_cnn()), build=lambda size: circular_cnn()),
    ]
    return measure_locality(entries, sample(6), SETTINGS)


def test_a_small_cnn_looks_no_further_than_its_windows_and_a_vit_everywhere(measured):
    (cnn,) = measured.find("receptive field rms", "cnn", weights="trained")
    (vit,) = measured.find("receptive field rms", "vit", weights="trained")
    assert cnn.value < 3  # two windows of 3: at most 2 pixels away in each direction
    assert vit.value > 5
    field = torch.tensor(measured.maps["cnn: field, trained"])
    assert (field > 0).sum() <= 25
    assert field.max() == 1


def test_each_layer_is_beside_its_random_control(measured):
    for weights in ("trained", "random"):
        found = measured.find("attention distance", "vit", weights=weights)
        assert [one.at["layer"] for one in found] == [0, 1]
        assert all(one.interval[0] <= one.value <= one.interval[1] for one in found)
    assert measured.find("attention distance", "cnn") == []
    uniform = measured.find("uniform attention distance", "vit")[0].value
    random = measured.find("attention distance", "vit", weights="random")
    assert all(one.value == pytest.approx(uniform, rel=0.05) for one in random)  # small weights: nearly uniform
    assert len(measured.maps["vit: heads"][0]) == 4


def test_attention_within_windows_is_named_as_not_measured(sample):
    swin = load_contestant("timm:swin_tiny_patch4_window7_224@random")
    section = measure_locality([swin], sample(1), LocalitySettings(1, 1))
    found = section.find("attention distance")
    assert found
    assert all(one.value is None and one.note.startswith("not measured: ") for one in found)
    assert canvases(swin, sample(1).images, swin.image_hw).shape == (1, 3, 224, 224)
    assert section.find("receptive field radius")[0].value > 0
