"""What is said of the models with short names, against timm, whose weights they are."""

import json
from pathlib import Path

import pytest
import timm
import torch
from torch.utils.flop_counter import FlopCounterMode
from vithub.hub import checkpoints
from vithub.hub.conversion.timm_configs import config_from_timm
from vithub.hub.known_models import KNOWN_MODELS, known_source
from vithub.training.recipe.model_names import is_from_scratch, misspelt_from_scratch

import vithub

MEASURED = json.loads((Path(__file__).parents[2] / "benchmarks/results/known_models.json").read_text())["models"]


@pytest.mark.parametrize("name", KNOWN_MODELS)
def test_a_row_states_what_the_library_of_its_weights_states(name):
    known = KNOWN_MODELS[name]
    architecture = known.source.removeprefix("timm/")
    config = timm.get_pretrained_cfg(architecture)
    assert (config.hf_hub_id, config.license) == (known.source, known.licence)
    assert config.input_size[-1] == known.image_size
    with torch.device("meta"):
        model = timm.create_model(architecture, pretrained=False)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert known.parameters == pytest.approx(count / 1e6, abs=0.006)
    side = known.image_size
    with FlopCounterMode(display=False) as counter, torch.no_grad(), torch.device("meta"):
        model.forward_features(torch.zeros(1, 3, side, side))
    assert known.gmacs == pytest.approx(counter.get_total_flops() / 2e9, abs=0.006)
    assert (known.gmacs, known.images_per_second) == tuple(MEASURED[name].values())
    assert config_from_timm(model).num_hidden_layers == len(model.blocks)  # it can be converted


def test_no_short_name_is_that_of_a_model_from_scratch_or_taken_for_its_misspelling():
    assert not [name for name in KNOWN_MODELS if is_from_scratch(name) or misspelt_from_scratch(name)]
    assert "did you mean deit-s?" in misspelt_from_scratch("deit-small")


def test_a_short_name_is_downloaded_from_its_id_and_a_folder_of_that_name_comes_first(tmp_path, monkeypatch, tiny):
    monkeypatch.chdir(tmp_path)
    asked = []

    def download(name, **_):
        asked.append(name)
        return str(tmp_path)

    monkeypatch.setattr(checkpoints, "snapshot_download", download)
    checkpoints.locate("dinov2-s")
    checkpoints.locate("DINOv2-S")
    checkpoints.locate("user/dinov2-s")
    assert asked == ["timm/vit_small_patch14_dinov2.lvd142m"] * 2 + ["user/dinov2-s"]
    vithub.HubViTModel(tiny()).save_pretrained("dinov2-s")
    assert checkpoints.locate("dinov2-s").resolve() == tmp_path / "dinov2-s"
    assert known_source("dinov2-s") == "dinov2-s"
    assert len(asked) == 3
    with pytest.raises(checkpoints.CheckpointError, match=r"dinov2-m is no file or folder.*did you mean dinov2-s"):
        checkpoints.locate("dinov2-m")


def test_the_document_names_them_all():
    text = (Path(__file__).parents[2] / "docs/checkpoints.md").read_text(encoding="utf-8")
    assert not [name for name in KNOWN_MODELS if f"`{name}`" not in text]
