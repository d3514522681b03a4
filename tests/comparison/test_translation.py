"""The controls come out right through the whole section, and matched accuracy is what its formula says."""

import numpy as np
import pytest
import timm
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from vithub.comparison.feature_maps import feature_map, token_grid
from vithub.comparison.image_sample import Runner, canvases, draw_images
from vithub.comparison.translation import (
    TranslationSettings,
    at_accuracy,
    canvas_size,
    drawn_shifts,
    measure_translation,
)
from vithub.data.sources import DataError

from vithub import HubViTConfig, HubViTForImageClassification

SETTINGS = TranslationSettings(
    pairs=2,
    steps=3,
    shifts=4,
    equivariance_shifts=(1, 4, 8),
    equivariance_images=4,
    map_reach=8,
    map_step=2,
    map_images=3,
)


@pytest.fixture(scope="module")
def measured(contestant, sample, circular_cnn):
    torch.manual_seed(2)
    config = HubViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, image_size=32, patch_size=8, num_labels=5,
        initializer_range=0.4,
    )  # fmt: skip
    entries = [contestant("cnn", circular_cnn()), contestant("vit", HubViTForImageClassification(config))]
    return measure_translation(entries, sample(), SETTINGS, Runner(batch_size=10))


def test_the_cnn_that_wraps_round_is_fully_consistent_and_the_vit_is_not(measured):
    (cnn,) = measured.find("circular consistency", "cnn", subset="all images")
    images = cnn.at["images"]
    assert cnn.value == cnn.interval[1] == 100
    assert cnn.interval[0] == pytest.approx(100 * images / (images + 1.959964**2), rel=1e-6)
    assert np.min(measured.maps["cnn: agreement"]) == 100
    assert np.max(measured.maps["cnn: distance"]) < 0.01
    assert max(one.value for one in measured.find("equivariance error", "cnn")) < 1e-4
    assert measured.find("circular distance", "vit", subset="all images")[0].value > 0.01
    assert min(one.value for one in measured.find("equivariance error", "vit")) > 0.1


def test_the_unmoved_image_agrees_with_itself_in_every_map(measured):
    for name in ("cnn", "vit"):
        assert measured.maps[f"{name}: agreement"][0][0] == 100
        assert measured.maps[f"{name}: distance"][0][0] == 0
    assert measured.maps["shifts in pixels"] == [[0, 2, 4, 6]]


def test_each_measure_is_given_for_each_subset_with_an_interval(measured):
    for quantity in ("crop consistency", "circular consistency", "jaggedness"):
        for name in ("cnn", "vit"):
            found = {one.at["subset"]: one for one in measured.find(quantity, name)}
            assert list(found) == ["all images", "right", "right by all", "matched accuracy"]
            assert found["right by all"].at["images"] <= found["right"].at["images"] < found["all images"].at["images"]
            low, high = found["all images"].interval
            assert low <= found["all images"].value <= high
    lowest = min(one.value for one in measured.find("accuracy"))
    assert measured.find("crop consistency", "vit", subset="matched accuracy")[0].at["accuracy"] == lowest


@given(st.data())
def test_matching_its_own_accuracy_changes_nothing(data):
    count = data.draw(st.integers(2, 30))
    values = np.array(data.draw(st.lists(st.floats(0, 1), min_size=count, max_size=count)))
    right = np.array(data.draw(st.lists(st.sampled_from([0.0, 1.0]), min_size=count, max_size=count)))
    right[:2] = 0, 1
    assert at_accuracy(values, right, right.mean()) == pytest.approx(values.mean())
    assert at_accuracy(values, right, 1.0) == pytest.approx(values[right > 0].mean())


def test_an_accuracy_that_cannot_be_matched_is_no_number():
    assert np.isnan(at_accuracy(np.ones(4), np.ones(4), 0.5))
    assert at_accuracy(np.array([1.0, 0.0]), np.ones(2), 1.0) == 0.5


def test_shifts_and_canvases_are_the_same_for_each_contestant(contestant, sample, circular_cnn):
    assert drawn_shifts((32, 32), 6, 3) == drawn_shifts((32, 32), 6, 3)
    assert (0, 0) not in drawn_shifts((32, 32), 10_000, 0)
    assert canvas_size((224, 224)) == (256, 256)
    one, other = (contestant(name, circular_cnn()) for name in "xy")
    pictures = sample(3).images
    assert torch.equal(canvases(one, pictures, (36, 36)), canvases(other, pictures, (36, 36)))
    wide = [picture.resize((80, 40)) for picture in pictures]
    assert canvases(one, wide, (36, 36)).shape == (3, 3, 36, 36)


@pytest.mark.parametrize(
    ("model", "cell"),
    [
        (lambda: timm.create_model("test_vit", img_size=64), 16),
        (lambda: timm.create_model("test_efficientnet"), 32),
        (lambda: timm.create_model("swin_tiny_patch4_window7_224", img_size=64), 32),
        (lambda: torchvision.models.get_model("resnet18"), 32),
        (lambda: torchvision.models.get_model("vit_b_16", image_size=64), 16),
        (lambda: torchvision.models.get_model("mobilenet_v3_small"), 32),
    ],
)
def test_each_library_shows_its_last_feature_map(model, cell):
    with torch.device("meta"):
        assert feature_map(model().eval(), torch.empty(2, 3, 64, 64)).shape[2:] == (64 // cell, 64 // cell)


def test_tokens_keep_their_places_and_prefix_tokens_are_left_out():
    tokens = torch.arange(2 + 3 * 4, dtype=torch.float32).view(1, -1, 1)
    assert token_grid(tokens, (24, 32))[0, 0].tolist() == [[2, 3, 4, 5], [6, 7, 8, 9], [10, 11, 12, 13]]
    with pytest.raises(ValueError, match="40 tokens are no grid"):
        token_grid(torch.zeros(1, 40, 1), (31, 2))


def test_images_are_drawn_the_same_each_time(digit_folders):
    one, other = (draw_images(digit_folders, 12, seed=4) for _ in range(2))
    assert one.labels.tolist() == other.labels.tolist()
    assert [image.tobytes() for image in one.images] == [image.tobytes() for image in other.images]
    assert one.labels.tolist() != draw_images(digit_folders, 12, seed=5).labels.tolist()
    with pytest.raises(DataError, match="there is no split 'night'"):
        draw_images(digit_folders, 3, 0, split="night")
