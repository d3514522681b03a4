"""A folder is loaded as what its configuration says, by the library that it belongs to."""

import json

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import save_for_hf
from transformers import (
    DetrConfig,
    DetrForObjectDetection,
    DetrImageProcessor,
    Dinov2Config,
    Dinov2Model,
    ResNetConfig,
    ResNetForImageClassification,
    TimmWrapperForImageClassification,
)
from vithub.data.image_processing import build_image_processor
from vithub.hub.any_model import load_any_model
from vithub.hub.checkpoints import CheckpointError

import vithub

RESNET = {"depths": [1, 1], "hidden_sizes": [8, 16], "embedding_size": 8, "layer_type": "basic"}


def timm_folder(folder):
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=4)
    model.eval()
    folder.mkdir()
    save_file(model.state_dict(), folder / "model.safetensors")
    arguments = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 4}
    config = {"architecture": "vit_tiny_patch16_224", "num_classes": 1000, "model_args": arguments}
    config["pretrained_cfg"] = {"input_size": [3, 32, 32], "mean": [0.5] * 3, "std": [0.5] * 3, "num_classes": 1000}
    (folder / "config.json").write_text(json.dumps(config))
    return model


def test_classifiers_detectors_and_backbones_compute_as_they_were_saved(tiny, randomised, tmp_path):
    backbone = ResNetConfig(**RESNET, out_features=["stage2"])
    detector = DetrConfig(
        backbone_config=backbone, d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=32, decoder_ffn_dim=32, num_queries=5, num_labels=3,
    )  # fmt: skip
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "image_size": 32, "patch_size": 8}
    models = [
        vithub.HubDeiTForImageClassification(tiny(vithub.HubDeiTConfig)),
        ResNetForImageClassification(ResNetConfig(**RESNET, num_labels=4)),
        DetrForObjectDetection(detector),
        Dinov2Model(Dinov2Config(**sizes)),
    ]
    pixels = torch.randn(1, 3, 32, 32)
    for model in models:
        folder = tmp_path / type(model).__name__
        randomised(model).save_pretrained(folder)
        if isinstance(model, DetrForObjectDetection):
            DetrImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
        else:
            build_image_processor((32, 32)).save_pretrained(folder)
        loaded, processor = load_any_model(folder)
        assert type(loaded) is type(model)
        assert not loaded.training
        with torch.no_grad():
            torch.testing.assert_close(loaded(pixels)[0], model(pixels)[0], rtol=1e-5, atol=1e-6)
        assert processor(torch.zeros(3, 40, 40), return_tensors="pt")["pixel_values"].shape == (1, 3, 32, 32)


def test_a_folder_that_does_not_say_how_an_image_becomes_pixels_is_refused(tiny, tmp_path):
    vithub.HubDeiTForImageClassification(tiny(vithub.HubDeiTConfig)).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"holds no preprocessor_config\.json, which says how"):
        load_any_model(tmp_path)


def test_a_folder_of_timm_is_loaded_in_the_wrapper(tmp_path):
    model = timm_folder(tmp_path / "timm")
    loaded, processor = load_any_model(tmp_path / "timm")
    assert isinstance(loaded, TimmWrapperForImageClassification)
    pixels = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(loaded(pixels).logits, model(pixels), rtol=1e-5, atol=1e-6)
    assert list(processor.data_config["mean"]) == [0.5] * 3


def test_a_folder_that_timm_saved_is_loaded(tmp_path):
    model = timm.create_model("test_resnet", num_classes=3).eval()
    save_for_hf(model, tmp_path, safe_serialization=True)
    config = json.loads((tmp_path / "config.json").read_text())
    config["model_args"] = config.get("model_args", {}) | {"num_classes": 3}  # said twice, as by timm 1.0.31
    (tmp_path / "config.json").write_text(json.dumps(config))
    loaded, _ = load_any_model(tmp_path)
    pixels = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(loaded(pixels).logits, model(pixels), rtol=1e-5, atol=1e-6)


def test_what_is_no_vision_model_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "architectures": ["BertModel"]}))
    save_file({"weight": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="could not be loaded as a vision model"):
        load_any_model(tmp_path)
    with pytest.raises(CheckpointError, match="nowhere"):
        load_any_model(tmp_path / "nowhere")
