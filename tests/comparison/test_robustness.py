"""Corruptions get worse with severity, cutting images up does what it says, and the controls come out right."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as pixels_v2
from vithub.comparison.contestant_sources import load_contestant
from vithub.comparison.corruptions import CORRUPTIONS, SEVERITIES, corrupt, drop_cells, permute_cells
from vithub.comparison.image_sample import Runner, draw_images, served
from vithub.comparison.robustness import RobustnessSettings, measure_robustness

from vithub import HubViTConfig, HubViTForImageClassification


def picture(sample, side=64):
    return pixels_v2.pil_to_tensor(sample(1, side).images[0])


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_each_severity_is_further_from_the_image_than_the_last(name, sample):
    image = picture(sample, 224)
    levels = [(1, 2), (3, 4, 5)] if name == "saturate" else [SEVERITIES]  # paler first, then more colourful
    for level in levels:
        errors = [float((corrupt(image, name, s, 0).float() - image.float()).square().mean()) for s in level]
        assert errors == sorted(errors), errors
        assert errors[0] > 1


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("shape", [(3, 32, 32), (3, 20, 57)])
def test_a_corruption_keeps_the_form_and_repeats_itself(name, shape):
    image = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    before = image.clone()
    for severity in SEVERITIES:
        one = corrupt(image, name, severity, seed=5)
        assert (one.shape, one.dtype) == (image.shape, torch.uint8)
        assert torch.equal(one, corrupt(image, name, severity, seed=5))
    assert torch.equal(image, before)
    if "noise" in name or name in ("motion blur", "elastic"):
        assert not torch.equal(corrupt(image, name, 3, 5), corrupt(image, name, 3, 6))


def test_the_noise_is_as_strong_as_the_paper_says():
    grey = torch.full((3, 200, 200), 128, dtype=torch.uint8)
    assert corrupt(grey, "gaussian noise", 1, 0).float().div(255).std() == pytest.approx(0.08, rel=0.02)
    assert corrupt(grey, "shot noise", 1, 0).float().div(255).std() == pytest.approx((0.5 / 60) ** 0.5, rel=0.03)
    changed = (corrupt(grey, "impulse noise", 3, 0) != grey).float().mean()
    assert changed == pytest.approx(0.09, rel=0.05)
    assert corrupt(grey, "brightness", 2, 0).float().div(255).mean() == pytest.approx(128 / 255 + 0.2, abs=0.01)


def test_what_is_no_corruption_is_refused(sample):
    with pytest.raises(ValueError, match="there is no corruption 'fog'; there are gaussian noise"):
        corrupt(picture(sample), "fog", 1, 0)
    with pytest.raises(ValueError, match="a severity lies in 1 to 5, got 6"):
        corrupt(picture(sample), "jpeg", 6, 0)
    with pytest.raises(ValueError, match=r"must be \(3, H, W\) of uint8, got \(3, 4, 4\) of torch.float32"):
        corrupt(torch.zeros(3, 4, 4), "jpeg", 1, 0)


@given(grid=st.integers(1, 7), seed=st.integers(0, 99), height=st.integers(7, 30), width=st.integers(7, 30))
def test_permuted_cells_are_the_same_pixels_elsewhere(grid, seed, height, width):
    pixels = torch.arange(2 * height * width, dtype=torch.float32).view(2, 1, height, width)
    moved = permute_cells(pixels, grid, torch.Generator().manual_seed(seed))
    assert torch.equal(moved.flatten(1).sort().values, pixels.flatten(1).sort().values)
    rows, columns = height // grid, width // grid
    inside = moved[:, 0, : rows * grid, : columns * grid].unfold(1, rows, rows).unfold(2, columns, columns)
    assert ((inside - inside[..., :1, :1]) == (inside - inside[..., :1, :1])[:, :1, :1]).all()  # whole cells
    if grid == 1:
        assert torch.equal(moved, pixels)


@given(grid=st.integers(2, 8), part=st.floats(0.05, 0.95))
def test_the_part_that_is_dropped_is_the_part_that_was_asked(grid, part):
    pixels = torch.ones(2, 3, 4 * grid, 4 * grid)
    dropped = drop_cells(pixels, grid, part, torch.Generator().manual_seed(0))
    assert (dropped == 0).float().mean() == pytest.approx(round(part * grid * grid) / grid**2)


def test_a_vit_without_positions_does_not_mind_the_order_of_patches_and_a_cnn_does(contestant, sample, circular_cnn):
    torch.manual_seed(3)
    config = HubViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, image_size=32, patch_size=8, num_labels=5,
        initializer_range=0.3, pool="mean",
    )  # fmt: skip
    model = HubViTForImageClassification(config)
    torch.nn.init.zeros_(model.vit.embeddings.position_embeddings)
    vit, cnn = contestant("vit", model), contestant("cnn", circular_cnn())
    pixels = served(vit, sample(6).images)
    runner = Runner()
    for one, exact in ((vit, True), (cnn, False)):
        logits = runner.logits(one)
        moved = logits(permute_cells(pixels, 4, torch.Generator().manual_seed(0)))
        assert torch.allclose(moved, logits(pixels), atol=1e-4) == exact


@pytest.fixture(scope="module")
def measured(finished_run, digit_folders):
    """A trained classifier of digits, on the digits of its data."""
    settings = RobustnessSettings(("gaussian noise", "jpeg"), (1, 5), (1, 2, 4), (0.25, 0.9))
    images = draw_images(digit_folders, 150, 0)
    one = load_contestant(finished_run.folder).for_labels(images.names)
    return measure_robustness([one], images, settings, Runner()), one, images


def test_a_trained_classifier_loses_by_noise_and_by_cutting_and_its_calibration_is_given(measured):
    section, _, images = measured
    value = {tuple(one.at.values()): one.value for one in section.find("accuracy")}
    assert value[("clean",)] > 35
    assert value[("gaussian noise", 5)] < value[("gaussian noise", 1)]
    assert value[("patch permutation", 1)] == value[("clean",)]
    assert value[("patch permutation", 4)] < value[("clean",)]
    assert value[("patch dropping", 0.9, 3)] < value[("patch dropping", 0.25, 3)]
    assert len(section.find("calibration error")) == len(section.find("accuracy")) == 10
    (mean,) = section.find("mean corrupted accuracy")
    kinds = [value[kind, severity] for kind in ("gaussian noise", "jpeg") for severity in (1, 5)]
    assert mean.value == pytest.approx(np.mean(kinds))
    assert mean.interval[0] < mean.value < mean.interval[1]
    assert len(images.images) == 150


def test_clean_accuracy_is_that_of_the_saved_classifier(measured, finished_run, digit_folders):
    section, one, images = measured
    with torch.no_grad():
        logits = finished_run.model(served(one, images.images)).logits
    names = [finished_run.model.config.id2label[int(number)] for number in logits.argmax(-1)]
    right = np.mean([name == images.names[label] for name, label in zip(names, images.labels, strict=True)])
    assert section.find("accuracy", kind="clean")[0].value == pytest.approx(100 * right)
