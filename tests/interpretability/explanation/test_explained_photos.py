"""Real photos and real weights."""

import io

import numpy as np
import pytest
import torch
from datasets import load_dataset
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification, Dinov2Model

import vithub
from vithub import attention_maps, attention_rows, explain


@pytest.fixture(scope="module")
def daisies(real_files):
    """Six photos of daisies."""
    rows = load_dataset(str(real_files / "data" / "flowers5"), split="test")
    column = next(name for name, feature in rows.features.items() if hasattr(feature, "names"))
    label = rows.features[column].names.index("daisy")
    chosen = [number for number, value in enumerate(rows[column]) if value == label][:6]
    return [rows[number]["image"].convert("RGB") for number in chosen]


def test_what_a_cnn_saw_of_a_daisy_is_where_it_must_not_be_greyed(daisies, real_files):
    """Without the quarter of the picture that mattered most, the score falls further than without a random one."""
    folder = real_files / "weights" / "tf_efficientnet_lite0"
    model = AutoModelForImageClassification.from_pretrained(folder).eval()
    processor = AutoImageProcessor.from_pretrained(folder)
    pixels = torch.cat([processor(photo, return_tensors="pt")["pixel_values"] for photo in daisies])
    daisy = next(index for index, name in model.config.id2label.items() if name == "daisy")
    falls = {}
    for method in ("grad_cam", "random"):
        maps = explain(model, pixels, method, target=daisy).maps
        threshold = maps.flatten(1).quantile(0.75, dim=1)[:, None, None]
        hidden = pixels * (maps < threshold)[:, None]
        with torch.no_grad():
            falls[method] = (model(pixels).logits - model(hidden).logits)[:, daisy].mean()
    assert falls["grad_cam"] > falls["random"] + 1


def test_attention_of_a_real_vit_equals_that_of_transformers(daisies, real_files):
    folder = real_files / "weights" / "vit_small_patch14"
    model = Dinov2Model.from_pretrained(folder, dtype=torch.float64).eval()
    photo = np.asarray(daisies[0].resize((154, 112)), dtype=np.float64) / 255  # 8 x 11 patches
    pixels = torch.from_numpy((photo - 0.45) / 0.225).permute(2, 0, 1)[None]
    seen = list(attention_maps(model, pixels))
    rows = attention_rows(model, pixels, "cls")
    model.set_attn_implementation("eager")
    with torch.no_grad():
        expected = model(pixels, output_attentions=True).attentions
    assert len(seen) == len(rows) == len(expected) == 12
    for ours, row, theirs in zip(seen, rows, expected, strict=True):
        assert torch.allclose(ours, theirs.float(), rtol=0, atol=1e-6)
        assert torch.allclose(row, theirs[:, :, 0].float(), rtol=0, atol=1e-6)
    assert explain(model, pixels, "rollout").grid.shape == (1, 8, 11)
    converted = vithub.load(folder).double()
    for ours, theirs in zip(attention_maps(converted, pixels), expected, strict=True):
        assert torch.allclose(ours, theirs.float(), rtol=0, atol=1e-6)


def test_an_explanation_of_a_photo_is_a_picture(daisies, real_files, tmp_path):
    folder = real_files / "weights" / "tf_efficientnet_lite0"
    model = AutoModelForImageClassification.from_pretrained(folder).eval()
    processor = AutoImageProcessor.from_pretrained(folder)
    pixels = processor(daisies[0], return_tensors="pt")["pixel_values"]
    explanation = explain(model, pixels, "layer_cam")
    assert explanation.labels == ("daisy",)
    content = io.BytesIO(explanation.save(tmp_path / "why.png").read_bytes())
    with Image.open(content) as picture:
        assert np.asarray(picture.convert("L")).std() > 10
