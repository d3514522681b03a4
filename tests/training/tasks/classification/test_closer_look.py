from io import BytesIO

import pytest
import torch
from datasets import Dataset
from PIL import Image
from torch import nn
from torch.nn import functional
from vithub.data.labelled.dataset import LabelledImages
from vithub.training.runtime.energy import energy_estimate
from vithub.training.tasks.classification.closer_look import DIRECTIONS, closer_look, shifted


class Outputs:
    def __init__(self, logits):
        self.logits = logits


class Corner(nn.Module):
    """Class 1 where the pixel at row 3, column 3 is bright, else class 0; very sure."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(8.0))

    def forward(self, pixel_values):
        bright = pixel_values[:, 0, 3, 3] - 0.5
        return Outputs(torch.stack([-bright, bright], dim=-1) * self.scale)


def images(pixels, labels, num_labels=None):
    """`LabelledImages` of given tensors: the transform looks them up, since a shift must be exact."""
    encoded = BytesIO()
    Image.new("RGB", (4, 4)).save(encoded, "PNG")
    rows = [{"bytes": encoded.getvalue(), "path": None}] * len(pixels)
    table = Dataset.from_dict({"image": rows, "label": labels})
    upcoming = iter(pixels)
    return LabelledImages(table, lambda image: next(upcoming), num_labels, name="test")


def test_each_image_moves_as_its_direction_says():
    pixels = torch.rand(8, 2, 9, 11)
    moved = shifted(pixels, DIRECTIONS, 2)
    assert moved.shape == pixels.shape
    for before, after, (down, right) in zip(pixels, moved, DIRECTIONS, strict=True):
        rolled = before.roll((2 * down, 2 * right), dims=(1, 2))
        assert torch.equal(after[:, 2:-2, 2:-2], rolled[:, 2:-2, 2:-2])
        padded = functional.pad(before, (2, 2, 2, 2), mode="replicate")
        assert torch.equal(after, padded[:, 2 - 2 * down : 11 - 2 * down, 2 - 2 * right : 13 - 2 * right])


def test_a_decision_that_hangs_on_one_pixel_changes_and_one_on_all_does_not():
    point = torch.zeros(8, 3, 16, 16)
    point[:, :, 3, 3] = 1
    shifts = closer_look(Corner(), images(point, [1] * 8), ["dark", "bright"])["shifts"]
    assert shifts["accuracy"] == 1
    assert shifts["by_pixels"].keys() == {"1"}  # 4 pixels are more than an eighth of 16
    assert shifts["by_pixels"]["1"] == {
        "accuracy": 0.0,
        "changed": 1.0,
        "probability_change": pytest.approx(
            (torch.tensor(8.0).sigmoid() - torch.tensor(-8.0).sigmoid()).item(), abs=1e-6
        ),
    }
    flat = closer_look(Corner(), images(torch.ones(8, 3, 64, 64), [1] * 7 + [0]), ["dark", "bright"])["shifts"]
    assert flat["accuracy"] == 7 / 8
    assert flat["by_pixels"] == {
        d: {"accuracy": 7 / 8, "changed": 0.0, "probability_change": 0.0} for d in ("1", "4", "8")
    }


def test_the_examples_are_the_surest_right_and_wrong_decisions():
    levels = torch.tensor([0.9, 0.1, 0.8, 0.2, 0.6, 0.95])
    pixels = levels[:, None, None, None].expand(-1, 3, 16, 16)
    examples = closer_look(Corner(), images(pixels, [1, 1, 0, 0, 1, 1]), ["dark", "bright"])["examples"]
    assert [(e["true"], e["predicted"]) for e in examples] == [
        (["bright"], ["bright"]), (["bright"], ["bright"]), (["dark"], ["dark"]),
        (["bright"], ["dark"]), (["dark"], ["bright"]),
    ]  # fmt: skip
    expected = [torch.sigmoid(torch.tensor(2 * 8 * abs(level - 0.5))).item() for level in (0.95, 0.9, 0.2, 0.1, 0.8)]
    assert [e["probability"] for e in examples] == pytest.approx(expected, abs=1e-4)


def test_with_many_labels_a_decision_is_all_of_them():
    pixels = torch.ones(2, 3, 16, 16)
    looked = closer_look(Corner(), images(pixels, [[1], []], 2), ["dark", "bright"], multi_label=True)
    assert looked["shifts"]["accuracy"] == 0.5
    assert [e["predicted"] for e in looked["examples"]] == [["bright"], ["bright"]]
    assert [e["true"] for e in looked["examples"]] == [["bright"], []]


def test_the_model_keeps_its_mode():
    model = Corner().train()
    closer_look(model, images(torch.ones(2, 3, 16, 16), [1, 1]), ["dark", "bright"])
    assert model.training


def test_energy_is_time_by_the_stated_watts():
    assert energy_estimate(3600, "cpu", 2) == {"kwh": 0.1, "watts": 100.0, "assumption": "100 W for the machine"}
    several = energy_estimate(1800, "cuda", 4)
    assert several["kwh"] == pytest.approx(0.85)
    assert several["assumption"] == "100 W for the machine and 400 W for each of 4 GPUs"
