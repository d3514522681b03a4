"""Costs agree with arithmetic where there is one, and the tools that measure them find what was put there."""

import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from vithub.comparison import count_checks
from vithub.comparison.closed_form import closed_form_macs, crossover_pixels
from vithub.comparison.contestant_sources import load_contestant
from vithub.comparison.cost import CostSettings, measure_cost
from vithub.comparison.count_checks import CountMismatchError, check_counts, counted
from vithub.comparison.growth import crossing, growth_exponent, quadratic_crossover
from vithub.comparison.measurement import bootstrap_interval
from vithub.comparison.timing import interleaved_times, peak_memory
from vithub.data.image_processing import build_image_processor

from vithub import HubViTConfig, HubViTForImageClassification


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    """A ViT of ours, 48 wide, so that its attention takes over at 4 sqrt(288), 68 pixels."""
    torch.manual_seed(0)
    config = HubViTConfig(
        hidden_size=48, num_hidden_layers=3, num_attention_heads=4, image_size=32, patch_size=4, num_labels=5
    )
    folder = tmp_path_factory.mktemp("vit") / "vit"
    HubViTForImageClassification(config).save_pretrained(folder)
    build_image_processor((32, 32)).save_pretrained(folder)
    return load_contestant(folder)


@pytest.fixture(scope="module")
def section(vit):
    cnn = load_contestant("timm:test_efficientnet@random")
    settings = CostSettings(sides=(32, 64, 96, 128), training_sides=(32, 64), rounds=3, batch_size=2, training_batch=2)
    return measure_cost([vit, cnn], settings)


def test_counts_at_each_resolution_are_those_of_the_closed_form(vit, section):
    for side in (32, 64, 96, 128):
        (found,) = section.find("macs", "vit", side=side)
        assert found.value == pytest.approx(closed_form_macs(vit.model.config, (side, side)), rel=1e-3)
        assert section.find("flops", "vit", side=side)[0].value == 2 * found.value
    assert section.find("count deviation", "vit")[0].value <= 0.1


def test_attention_takes_over_where_tokens_are_six_times_the_width(section):
    (found,) = section.find("quadratic crossover", "vit")
    assert found.value == pytest.approx(crossover_pixels(48, 4), rel=0.03)
    shares = [one.value for one in section.find("attention share", "vit")]
    assert shares[1] < 50 < shares[2]  # 64 and 96 pixels
    (cnn,) = section.find("quadratic crossover", "test_efficientnet")
    assert (cnn.value, cnn.note) == (None, "no attention over the whole image")


def test_the_work_of_a_cnn_grows_with_the_pixels_and_of_a_vit_faster(section):
    vit, cnn = (section.find("growth exponent", name, of="macs")[0].value for name in ("vit", "test_efficientnet"))
    assert cnn == pytest.approx(1.0, abs=0.02)
    assert 1.4 < vit < 2


def test_every_time_has_an_interval_that_holds_it_and_memory_grows(section):
    for quantity in ("latency", "throughput", "training step"):
        for one in section.find(quantity):
            assert one.interval[0] <= one.value <= one.interval[1], one
    memory = [one.value for one in section.find("training peak memory", "vit")]
    assert memory[1] > memory[0] > 0
    training, forward = (section.find(name, "vit", side=64)[0].value for name in ("training macs", "macs"))
    assert 2.5 * forward < training < 3.5 * forward
    assert any("other processes used" in note for note in section.notes)


def test_a_contestant_is_measured_at_the_size_at_which_it_is_used(section):
    """The CNN's 160 pixels are none of the sides asked for."""
    for quantity in ("macs", "latency", "training step"):
        assert [one.at["pixels"] for one in section.find(quantity, "test_efficientnet", side=160)] == [160]
        assert section.find(quantity, "vit", side=160)


def test_a_windowed_transformer_has_no_crossover():
    swin = load_contestant("timm:swin_tiny_patch4_window7_224@random")
    sizes = [(224, 224), (448, 448)]
    kinds = [counted(swin, size).by_kind for size in sizes]
    attention, linear = ([kind[name] for kind in kinds] for name in ("attention", "linear"))
    assert quadratic_crossover((224**2, 448**2), tuple(attention), tuple(linear)) is None


def test_a_wrong_count_stops_the_report(vit, monkeypatch):
    monkeypatch.setattr(count_checks, "closed_form_macs", lambda config, size: 1.01 * closed_form_macs(config, size))
    with pytest.raises(CountMismatchError, match=r"vit: multiply-accumulates differ by 0\.99%.*closed form"):
        check_counts(vit)


def test_what_cannot_be_counted_is_named_in_the_report(vit):
    class Solver(nn.Module):
        def forward(self, pixel_values):
            return torch.linalg.svdvals(pixel_values.mean(1))[:, :5]

    odd = replace(vit, name="solver", model=Solver(), build=lambda size: Solver())
    settings = CostSettings(sides=(32,), training_sides=(), rounds=2, batch_size=1)
    (macs,) = measure_cost([odd], settings).find("macs")
    assert macs.value is None
    assert "aten._linalg_svd" in macs.note


@given(exponent=st.floats(0.3, 3), scale=st.floats(1e-6, 1e6))
def test_the_exponent_of_a_power_is_found(exponent, scale):
    pixels = np.array([96.0, 224, 448]) ** 2
    assert growth_exponent(pixels, scale * pixels**exponent) == pytest.approx(exponent, rel=1e-6)


@given(side=st.floats(100, 800))
def test_the_crossing_of_two_powers_is_found(side):
    sides = np.array([96.0, 224, 448, 896])
    assert crossing(sides, sides**4 / side**4, sides**2 / side**2) == pytest.approx(side, rel=1e-6)
    assert crossing(sides, sides**4, 2 * sides**4) is None


def test_memory_that_a_step_takes_is_seen():
    def step():
        return torch.ones(60_000_000).sum()  # 240 MB

    assert peak_memory(step) == pytest.approx(240e6, rel=0.1)


def test_turns_change_and_each_step_is_timed():
    seen = []
    steps = {name: lambda name=name: (seen.append(name), time.sleep(0.2 if name == "b" else 0)) for name in "abc"}
    times = interleaved_times(steps, rounds=3)
    assert seen == list("abc" + "abc" + "bca" + "cab")
    assert min(times["b"]) >= 0.2 > min(times["a"])


def test_an_interval_covers_the_mean_and_a_single_value_has_none():
    draws = np.random.default_rng(0)
    hits = 0
    for trial in range(100):
        low, high = bootstrap_interval(draws.normal(3, 1, 60), trial)
        hits += low <= 3 <= high
    assert hits > 85
    assert bootstrap_interval([1.0], 0) is None
