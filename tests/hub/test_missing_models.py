"""Errors for a path that holds no model: each command that takes one names what is there and what to name instead."""

import re

import pytest
import transformers
from PIL import Image
from vithub.hub.checkpoints import CheckpointError
from vithub.hub.missing_models import without_config
from vithub.training.tasks.classification.loading import load_classifier
from vithub.training.tasks.detection.loading import load_detector

import vithub


def unfinished(folder, task="classification"):
    (folder / "checkpoints").mkdir()
    (folder / "recipe.yaml").write_text(f"task: {task}\n")
    return folder


def with_runs(folder):
    for name in ("b", "a", "notes"):
        (folder / name).mkdir()
    for name in ("b", "a"):
        (folder / name / "config.json").write_text("{}")
    return folder


def with_photos(folder):
    (folder / "rose").mkdir()
    Image.new("RGB", (4, 4)).save(folder / "rose" / "1.png")
    return folder


def photo(folder):
    return with_photos(folder) / "rose" / "1.png"


CASES = {
    "unfinished": (
        unfinished,
        "has not finished; `vithub finetune --output .* --resume` goes on with it, and with",
    ),
    "unfinished pretraining": (lambda f: unfinished(f, "pretraining"), "`vithub pretrain --output .* --resume`"),
    "folder of runs": (with_runs, "name one of the folders of models in it: a, b$"),
    "photos": (
        with_photos,
        "but images; wanted here is a model: name the folder of a run or of a saved model",
    ),
    "photo": (photo, r"1\.png is a file, and a model is a folder with config\.json: name the folder of a run"),
    "empty": (lambda f: f, r"holds no config\.json; name the folder of a run or of a saved model$"),
}


@pytest.mark.parametrize(("make", "told"), CASES.values(), ids=CASES)
def test_what_lies_there_and_what_to_name_is_told(make, told, tmp_path):
    place = make(tmp_path)
    for load in (load_classifier, load_detector):
        with pytest.raises(CheckpointError, match=told):
            load(place)
    if place.is_dir():  # a file may hold weights
        with pytest.raises(CheckpointError, match=told):
            vithub.load(place)
    assert str(place) in without_config(place)


def test_a_classifier_is_no_detector(tiny, tmp_path):
    vithub.HubViTForImageClassification(tiny()).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"must be an object detector, and its config\.json is .* classification"):
        load_detector(tmp_path)


def test_a_file_of_weights_with_a_configuration_beside_it_is_told(tiny, tmp_path):
    vithub.HubViTForImageClassification(tiny()).save_pretrained(tmp_path)
    told = r"not the weights of a DeiT: .*; config\.json lies beside the file: name the folder, .*"
    with pytest.raises(CheckpointError, match=told + re.escape(str(tmp_path))):
        vithub.load(tmp_path / "model.safetensors")


def test_a_misspelt_field_of_a_converted_model_suggests_the_right_one(tmp_path):
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    transformers.ViTModel(transformers.ViTConfig(**sizes, image_size=16, patch_size=8)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="`drop_path` is no field of HubViTConfig; did you mean `drop_path_rate`"):
        vithub.load(tmp_path, drop_path=0.1)
    with pytest.raises(ValueError, match=r"`zzz` is no field of HubViTConfig; fields are .*hidden_size"):
        vithub.load(tmp_path, zzz=0.1)
