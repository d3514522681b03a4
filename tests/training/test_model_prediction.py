"""`vithub.load(...).predict(...)` and `.explain(...)`: the same answers as those of the folder."""

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from transformers import AutoModelForImageClassification
from vithub.data.image_processing import build_image_processor
from vithub.data.images import BadImageError
from vithub.data.sources import DataError
from vithub.modeling.modeling_base import HubPreTrainedModel

import vithub


@pytest.fixture(scope="module")
def model(finished_run):
    return vithub.load(finished_run.folder)


@pytest.fixture(scope="module")
def files(digit_folders, tmp_path_factory):
    """A folder with two images."""
    folder = tmp_path_factory.mktemp("two")
    for source in ("three", "seven"):
        with Image.open(min((digit_folders / source).iterdir())) as image:
            image.convert("RGB").save(folder / f"{source}.png")
    return folder


def test_a_loaded_classifier_answers_as_its_folder_does_for_images_of_every_kind(model, finished_run, files):
    first, second = sorted(files.iterdir())

    def of_folder(*images):
        return [entry["predictions"] for entry in vithub.predict(finished_run.folder, images, top=3)]

    assert model.predict(first, top=3) == of_folder(first)[0]
    assert model.predict(str(second), top=3) == of_folder(second)[0]
    assert model.predict([first], top=3) == of_folder(first)
    assert model.predict(files, top=3) == of_folder(first, second)
    with Image.open(first) as one, Image.open(second) as other:
        assert model.predict(one, top=3) == of_folder(first)[0]
        assert model.predict([one, np.asarray(other)], top=3) == of_folder(first, second)


def test_a_model_of_the_auto_classes_finds_its_processor_and_keeps_its_modes(finished_run, model, files):
    theirs = AutoModelForImageClassification.from_pretrained(finished_run.folder).train()
    theirs.base_model.eval()
    before = [module.training for module in theirs.modules()]
    assert theirs.predict(files) == model.predict(files)
    assert [module.training for module in theirs.modules()] == before
    assert any(before)
    assert not all(before)


def test_a_converted_model_and_one_never_saved_answer_too(tiny, files, tmp_path):
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, image_size=30, patch_size=6
    )
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path)
    transformers.ViTImageProcessor(size={"height": 30, "width": 30}).save_pretrained(tmp_path)
    model = vithub.load(tmp_path)
    expected = vithub.predict(tmp_path, files)
    for found, entry in zip(model.predict(files), expected, strict=True):
        for one, other in zip(found, entry["predictions"], strict=True):
            assert one["score"] == pytest.approx(other["score"], abs=1e-5)
    made = vithub.HubViTForImageClassification(tiny())
    made.image_processor = build_image_processor((32, 32))
    assert len(made.predict(min(files.iterdir()))) == 5


def test_a_loaded_detector_answers_as_its_folder_does(detector_run, tmp_path):
    model = vithub.load(detector_run.folder)
    pictures = []
    for number, size in enumerate([(64, 48), (40, 60)]):
        pixels = np.random.default_rng(number).integers(0, 255, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        pictures.append(pixels)
    expected = [entry["predictions"] for entry in vithub.predict(detector_run.folder, tmp_path, threshold=0.0)]
    assert all(expected)
    assert model.predict(pictures, threshold=0.0) == expected
    maps = model.explain(pictures)  # of two sizes, so that one is padded
    assert len(maps) == 2
    alone = model.explain(pictures[0], query=maps.queries[0])
    assert alone.labels == maps.labels[:1]


def test_explanations_of_files_are_those_of_their_pixels(model, files):
    first = min(files.iterdir())
    pixels = model.image_processor(Image.open(first), return_tensors="pt")["pixel_values"]
    for method in ("auto", "rollout"):
        expected = vithub.explain(model, pixels, method)
        found = model.explain(first, method)
        assert torch.equal(found.maps, expected.maps)
        assert found.labels == expected.labels


def test_a_model_stays_in_its_dtype_and_answers_in_probabilities(finished_run, files):
    model = vithub.load(finished_run.folder, dtype=torch.bfloat16)
    found = model.predict(min(files.iterdir()), top=10)
    assert model.dtype == torch.bfloat16
    assert sum(entry["score"] for entry in found) == pytest.approx(1, abs=1e-5)


def test_what_cannot_be_answered_is_said(model, tiny, files, tmp_path, monkeypatch):
    (tmp_path / "notes.png").write_text("no image")
    with pytest.raises(BadImageError, match=r"notes\.png"):
        model.predict(tmp_path / "notes.png")
    with pytest.raises(BadImageError, match="image 1: "):
        model.predict([np.zeros((4, 4, 3), np.uint8), 3.5])
    with pytest.raises(DataError, match="no image at nowhere"):
        model.predict("nowhere.png")
    with pytest.raises(DataError, match="there are no images"):
        model.predict([])
    with pytest.raises(ValueError, match="`threshold`"):
        model.predict(files, threshold=0.5)
    with pytest.raises(ValueError, match="`top` must be at least 1, got 0"):
        model.predict(files, top=0)
    with pytest.raises(ValueError, match="set its `image_processor`"):
        vithub.HubViTForImageClassification(tiny()).predict(files)
    monkeypatch.setattr(HubPreTrainedModel, "predict_hook", None)  # as in a published copy of the code
    with pytest.raises(RuntimeError, match=r"needs the package vithub.*pipeline"):
        model.predict(files)
