"""Faithfulness of explanations whose worth is known."""

import json

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from vithub.interpretability.faithfulness.result import MEASURES, Faithfulness
from vithub.interpretability.faithfulness.sanity_check import randomised_model, rank_correlation

import vithub
from vithub import EXPLANATION_METHODS, FaithfulnessProtocol, explain, faithfulness

ROW, COLUMN = 2, 1
QUICK = FaithfulnessProtocol(baseline="mean", bootstrap=100, integration_steps=8, sanity_images=8)


class OnePatchCNN(nn.Module):
    """Says class 0 where the patch in one place is bright, and is blind to all others."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 8, stride=8, bias=False)
        self.conv.weight.data = 0.5 / 192 + torch.rand(8, 3, 8, 8) / 192  # means, each weighed a little differently
        self.head = nn.Linear(8, 2)
        self.head.weight.data = torch.stack([torch.ones(8), -torch.ones(8)])
        self.head.bias.data = torch.tensor([-8.0, 8.0])
        mask = torch.zeros(4, 4)
        mask[ROW, COLUMN] = 1
        self.register_buffer("mask", mask)

    def forward(self, pixel_values):
        return self.head((self.conv(pixel_values).relu() * self.mask).sum(dim=(2, 3)))


def bright(count=12, seed=0):
    """Noise, of a brightness about 0, and 2 in the patch that the model reads."""
    images = 0.3 * torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed)) + 2 * place()
    assert (OnePatchCNN()(images).softmax(dim=1)[:, 0] > 0.99).all()
    return images


def place():
    mask = torch.zeros(32, 32, dtype=torch.bool)
    mask[8 * ROW : 8 * ROW + 8, 8 * COLUMN : 8 * COLUMN + 8] = True
    return mask


def annotated(images, size=5):
    box = torch.tensor([[8.0 * COLUMN, 8.0 * ROW, 8.0 * COLUMN + 8, 8.0 * ROW + 8]])
    for part in images.split(size):
        yield {"pixel_values": part, "masks": place().repeat(len(part), 1, 1), "boxes": [box] * len(part)}


def edges(model, pixel_values, classes):
    """An edge detector: it looks at the image and never at the model."""
    grey = pixel_values.mean(dim=1)
    down = nn.functional.pad((grey[:, 1:] - grey[:, :-1]).abs(), (0, 0, 0, 1))
    across = nn.functional.pad((grey[:, :, 1:] - grey[:, :, :-1]).abs(), (0, 1))
    return nn.functional.avg_pool2d((down + across)[:, None], 8)[:, 0]


@pytest.fixture(scope="module")
def of_one_patch():
    """All methods for CNNs, with the truth, its opposite, an edge detector, and another model's explanation."""
    other = randomised_model(OnePatchCNN(), seed=3)
    methods = {name: name for name, method in EXPLANATION_METHODS.items() if not method.needs_attention}
    methods["truth"] = lambda model, pixels, classes: place().float().repeat(len(pixels), 1, 1)
    methods["opposite"] = lambda model, pixels, classes: -place().float().repeat(len(pixels), 1, 1)
    methods["edges"] = edges
    methods["of another model"] = lambda model, pixels, classes: (
        explain(other, pixels, "occlusion", target=classes).maps
    )
    return faithfulness(OnePatchCNN().eval(), annotated(bright()), methods, protocol=QUICK)


WORTHY = ["grad_cam", "hires_cam", "layer_cam", "integrated_gradients", "occlusion", "truth"]


@pytest.mark.parametrize("name", WORTHY)
def test_a_model_that_reads_one_patch_is_explained_by_it(of_one_patch, name):
    found = of_one_patch.methods[name]
    # one patch of sixteen decides: it is gone in the first or second step of ten, and there in it
    assert found.deletion[2] < 0.2 < 0.8 < found.deletion[0]
    assert found.insertion[2] > 0.8 > 0.2 > found.insertion[0]
    assert found.measures["deletion"].mean < 0.3
    assert found.measures["insertion"].mean > 0.7
    assert found.measures["pointing_game"].mean == found.measures["pointing_game"].high == 1
    wilson = stats.binomtest(of_one_patch.images, of_one_patch.images).proportion_ci(0.95, method="wilson")
    assert found.measures["pointing_game"].low == pytest.approx(wilson.low)
    assert 0 < found.gains["pointing_game"].low < found.gains["pointing_game"].mean
    assert found.beats_random
    assert all(gain.low > 0 for key, gain in found.gains.items() if key != "box_iou"), found.gains


def test_the_truth_is_as_good_as_can_be(of_one_patch):
    truth, opposite = of_one_patch.methods["truth"].measures, of_one_patch.methods["opposite"].measures
    assert truth["mask_iou"].mean == truth["box_iou"].mean == 1
    assert truth["positive_perturbation"].mean < 0.1 < 0.9 < truth["negative_perturbation"].mean
    for measure, value in truth.items():
        others = [found.measures[measure].mean for found in of_one_patch.methods.values()]
        best = max(others) if MEASURES[measure] > 0 else min(others)
        assert value.mean == pytest.approx(best, abs=0.01), measure
    assert opposite["pointing_game"].mean == 0
    assert opposite["deletion"].mean > truth["insertion"].mean - 0.1
    assert not of_one_patch.methods["opposite"].beats_random


def test_what_ignores_the_model_fails_the_sanity_check(of_one_patch):
    for name in ("random", "edges", "truth", "opposite", "of another model"):
        assert of_one_patch.methods[name].correlations[1.0].mean == pytest.approx(1), name
        assert of_one_patch.is_sane(name) is False, name


@pytest.mark.parametrize("name", ["relevance", "rollout", "gradient_rollout", "attention", "hires_cam", "occlusion"])
def test_what_reads_the_model_passes_it(name, build, pixels):
    model = build("vithub vit")
    found = faithfulness(model, pixels(8), [name, "random"], protocol=QUICK)
    assert found.is_sane(name), found.methods[name].correlations
    assert not found.is_sane("random")


def test_explanations_of_randomised_weights_do_not_explain_the_model(of_one_patch):
    found = of_one_patch.methods["of another model"]
    # the other network reads the same place with other weights; shuffling cannot move a buffer
    assert found.measures["deletion"].mean >= of_one_patch.methods["occlusion"].measures["deletion"].mean
    dense = randomised_model(nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 2)), seed=1)
    images = torch.randn(10, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    methods = {
        "own": "occlusion",
        "of randomised weights": lambda model, pixels, classes: (
            explain(randomised_model(dense, seed=9), pixels, "occlusion", target=classes).maps
        ),
    }
    result = faithfulness(dense, images, methods, protocol=QUICK)
    assert result.methods["own"].beats_random
    assert not result.methods["of randomised weights"].beats_random


def test_batches_do_not_change_the_figures(build, pixels):
    model, images = build("vithub deit"), pixels(7)
    asked = {"protocol": QUICK, "methods": ["relevance", "occlusion"]}
    whole = faithfulness(model, images, batch_size=7, **asked)
    parts = faithfulness(model, [images[:2], {"pixel_values": images[2:3]}, images[3:]], forward_batch=2, **asked)
    for name, found in whole.methods.items():
        for measure, value in found.measures.items():
            np.testing.assert_allclose(value.to_list(), parts.methods[name].measures[measure].to_list(), atol=2e-3)
        np.testing.assert_allclose(found.deletion, parts.methods[name].deletion, atol=2e-3)
    assert whole.images == parts.images == 7


def test_all_methods_that_fit_are_measured_on_every_model(build, pixels):
    cnn = faithfulness(build("timm efficientnet"), pixels(2), protocol=QUICK)
    assert list(cnn.methods) == [name for name, method in EXPLANATION_METHODS.items() if not method.needs_attention]
    vit = faithfulness(build("torchvision vit"), pixels(2), protocol=QUICK)
    assert list(vit.methods) == list(EXPLANATION_METHODS)


def test_the_model_is_as_before_and_so_is_the_state_of_chance(build, pixels):
    model = build("vithub vit").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    faithfulness(model, pixels(3), ["relevance"], protocol=QUICK)
    assert torch.equal(torch.rand(3), expected)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_labels_are_explained_where_the_protocol_says_so(build, pixels):
    model, images = build("vithub vit"), pixels(4)
    with torch.no_grad():
        probabilities = model(images).logits.softmax(dim=1)
    labels = probabilities.argmin(dim=1)
    protocol = FaithfulnessProtocol(target="label", bootstrap=10, sanity_images=0)
    found = faithfulness(model, [{"pixel_values": images, "labels": labels}], ["relevance"], protocol=protocol)
    assert found.methods["relevance"].deletion[0] == pytest.approx(probabilities.amin(dim=1).mean().item(), abs=1e-5)
    assert found.is_sane("relevance") is None
    with pytest.raises(ValueError, match='each batch needs "labels"'):
        faithfulness(model, images, ["relevance"], protocol=protocol)


def test_half_precision_gives_about_the_same(build, pixels):
    model, images = build("vithub vit"), pixels(4)
    found = [
        faithfulness(model, images, ["occlusion"], protocol=FaithfulnessProtocol(precision=name, sanity_images=0))
        for name in ("fp32", "bf16")
    ]
    assert found[0].protocol_id != found[1].protocol_id
    first, second = (each.methods["occlusion"].measures["insertion"].mean for each in found)
    assert first == pytest.approx(second, abs=0.02)
    assert first != second


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"methods": ["gradcam"]}, "must be among attention, rollout, .*, got 'gradcam'"),
        (
            {"methods": {"mine": lambda *_: torch.zeros(1, 4, 4)}},
            r"must return maps .* of 2 images, got \(1, 4, 4\)",
        ),
        ({"methods": {"mine": lambda *_: torch.full((2, 4, 4), torch.nan)}}, "'mine' returned a map .* not finite"),
        ({"methods": {"mine": lambda *_: None}}, "got NoneType"),
        ({"data": []}, "yielded no batch"),
        ({"forward_batch": 0}, "`forward_batch` must be at least 1"),
    ],
)
def test_what_cannot_be_measured_is_said(arguments, message, build, pixels):
    with pytest.raises(ValueError, match=message):
        faithfulness(build("vithub vit"), **{"data": pixels(2), **arguments})


def test_a_model_without_classes_is_refused(tiny, pixels):
    with pytest.raises(ValueError, match="HubViTModel is no classifier"):
        faithfulness(vithub.HubViTModel(tiny()), pixels(2))


def test_results_are_written_read_and_drawn(of_one_patch, tmp_path):
    of_one_patch.save(tmp_path / "result.json")
    stored = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert stored["protocol_id"] == QUICK.id
    assert Faithfulness.from_dict(stored).to_dict() == of_one_patch.to_dict()
    stored["protocol"]["steps"] = 20
    with pytest.raises(ValueError, match="its fields give"):
        Faithfulness.from_dict(stored)
    table = of_one_patch.to_dataframe()
    assert len(table) == 7 * len(of_one_patch.methods)
    assert set(table.protocol) == {QUICK.id}
    markdown = of_one_patch.to_markdown().splitlines()
    assert len({line.count("|") for line in markdown}) == 1
    assert "deletion ↓" in markdown[0]
    assert any(line.startswith("| edges") and "**no**" in line for line in markdown)
    of_one_patch.save(tmp_path / "result.svg", theme="dark")
    assert QUICK.id in (tmp_path / "result.svg").read_text(encoding="utf-8")


def test_shuffled_weights_keep_their_values_and_lose_their_places(build):
    model = build("timm resnet")
    copy = randomised_model(model, 0.5, seed=1)
    pairs = list(zip(model.parameters(), copy.parameters(), strict=True))
    moved = [not torch.equal(first, second) for first, second in pairs]
    assert not any(moved[: len(moved) // 2])
    assert moved[-1]
    for first, second in pairs:
        assert torch.equal(first.flatten().sort().values, second.flatten().sort().values)
    with pytest.raises(ValueError, match=r"`share` must lie in \(0, 1\]"):
        randomised_model(model, 0)


def test_rank_correlation_is_spearmans():
    from scipy.stats import spearmanr

    draws = torch.Generator().manual_seed(0)
    first, second = torch.rand(5, 4, 6, generator=draws), torch.rand(5, 4, 6, generator=draws).round(decimals=1)
    expected = [spearmanr(one.flatten(), two.flatten()).statistic for one, two in zip(first, second, strict=True)]
    np.testing.assert_allclose(rank_correlation(first, second), expected, atol=1e-12)
    np.testing.assert_allclose(rank_correlation(first, first.exp() - 3), 1)
    np.testing.assert_allclose(rank_correlation(first, -first), -1)
    even = torch.ones(5, 4, 6)
    np.testing.assert_array_equal(rank_correlation(first, even), 0)
    np.testing.assert_array_equal(rank_correlation(even, 2 * even), 1)
