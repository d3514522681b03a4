"""Layers found and read in networks of every library."""

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import nn
from transformers import Dinov2Config, Dinov2Model, ViTConfig, ViTForImageClassification
from vithub.interpretability.analysis.layer_features import layer_names, visit_layers

import vithub

SMALL = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64, "image_size": 32}


NETWORKS = {
    "ours": (3, lambda: vithub.HubViTForImageClassification(vithub.HubViTConfig(**SMALL, patch_size=8))),
    "deit": (3, lambda: vithub.HubDeiTForImageClassification(vithub.HubDeiTConfig(**SMALL, patch_size=8))),
    "transformers": (3, lambda: ViTForImageClassification(ViTConfig(**SMALL, patch_size=8))),
    "dinov2": (3, lambda: Dinov2Model(Dinov2Config(**SMALL, patch_size=8))),
    "timm": (3, lambda: timm.create_model("vit_tiny_patch16_224", img_size=32, depth=3, embed_dim=32, num_heads=4)),
    "torchvision": (3, lambda: torchvision.models.VisionTransformer(32, 8, 3, 4, 32, 64)),
    "resnet": (8, lambda: timm.create_model("resnet18")),
    "efficientnet": (7, lambda: timm.create_model("tf_efficientnet_lite0")),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_layers_of_any_network_are_found(name, training):
    count, make = NETWORKS[name]
    model = make().train(training)
    assert len(layer_names(model)) == count
    found = vithub.layer_features(model, torch.randn(3, 3, 32, 32), batch_size=2)
    assert len(found.names) == count + (name != "dinov2")  # it has no classifier
    assert all(values.shape[0] == 3 and values.ndim == 2 for values in found.features.values())
    assert found.tokens == ("mean" if name in ("resnet", "efficientnet") else "cls")
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(module.training == training for module in model.modules())


def test_they_are_the_hidden_states(tiny, randomised):
    model = randomised(vithub.HubViTForImageClassification(tiny(num_register_tokens=2)))
    pixels = torch.randn(5, 3, 32, 32)
    outputs = model(pixels, output_hidden_states=True)
    layer = "vit.layers.0"
    by_tokens = {
        "cls": outputs.hidden_states[1][:, 0],
        "mean": outputs.hidden_states[1][:, 3:].mean(dim=1),
        "all": outputs.hidden_states[1].flatten(1),
    }
    for tokens, expected in by_tokens.items():
        found = vithub.layer_features(model, pixels, tokens=tokens, batch_size=2)
        np.testing.assert_allclose(found.features[layer], expected.detach(), atol=1e-5)
    np.testing.assert_allclose(model.classifier(torch.tensor(found.last)).detach(), outputs.logits.detach(), atol=1e-4)


def test_no_mode_changes_and_no_hook_stays_when_something_raises(tiny):
    model = vithub.HubViTForImageClassification(tiny()).train()
    model.vit.layernorm.eval()

    def fails(name, output):
        raise KeyError(name)

    with pytest.raises(KeyError, match=r"vit\.layers\.0"):
        visit_layers(model, torch.randn(1, 3, 32, 32), fails)
    assert model.training
    assert model.vit.layers[1].training
    assert not model.vit.layernorm.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert torch.is_grad_enabled()


def test_batches_of_a_loader_are_read_as_they_come(tiny, randomised):
    model = randomised(vithub.HubViTModel(tiny()))
    pixels = torch.randn(5, 3, 32, 32)
    loader = torch.utils.data.DataLoader([{"pixel_values": image} for image in pixels], batch_size=2)
    by_loader, whole = vithub.layer_features(model, loader), vithub.layer_features(model, pixels)
    np.testing.assert_allclose(by_loader.last, whole.last, atol=1e-5)
    table = whole.to_dataframe("layers.0")
    assert table.shape == (5, 32)
    np.testing.assert_array_equal(table.feature_3, whole.features["layers.0"][:, 3])
    assert whole.norms().norm.iloc[1] == pytest.approx(np.linalg.norm(whole.last, axis=1).mean())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tokens": "first"}, "`tokens` must be one of .*, got 'first'"),
        ({"tokens": "cls"}, "has no CLS token; use tokens='mean'"),
        ({"layers": ["layers.7"]}, r"no layer 'layers.7'; its layers are \['layers.0', 'layers.1'\]"),
        ({"pixel_values": torch.zeros(3, 32, 32)}, r"got \(3, 32, 32\)"),
        ({"pixel_values": torch.zeros(0, 3, 32, 32)}, "at least one image"),
        ({"pixel_values": []}, "yielded no batch"),
    ],
)
def test_what_cannot_be_is_said(arguments, message, tiny):
    model = vithub.HubViTModel(tiny(use_cls_token=False, pool="mean"))
    with pytest.raises(ValueError, match=message):
        vithub.layer_features(model, **{"pixel_values": torch.zeros(1, 3, 32, 32), **arguments})
    with pytest.raises(ValueError, match="holds no list of layers"):
        layer_names(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten()))


def test_the_picture_shows_every_layer(tiny, tmp_path):
    vithub.layer_features(vithub.HubViTForImageClassification(tiny()), torch.randn(4, 3, 32, 32)).save(
        tmp_path / "n.svg"
    )
    text = (tmp_path / "n.svg").read_text(encoding="utf-8")
    assert "length of the vectors (cls)" in text
    assert ">head<" in text


SWINS = {
    "timm": lambda: timm.create_model(
        "swin_tiny_patch4_window7_224", num_classes=3, embed_dim=24, depths=(1, 1), num_heads=(2, 2), img_size=56
    ),
    "torchvision": lambda: torchvision.models.SwinTransformer([4, 4], 24, [1, 1], [2, 2], [7, 7], num_classes=3),
}


@pytest.mark.parametrize("name", SWINS)
def test_channels_that_come_last_are_not_averaged(name):
    """With the norm and the pooling that follow, the last map is what the classifier is given."""
    model = SWINS[name]().eval()
    layer, pixels = layer_names(model)[-1], torch.randn(2, 3, 56, 56)
    maps = []
    visit_layers(model, pixels, lambda _, output: maps.append(output), [layer])
    found = vithub.layer_features(model, pixels)
    assert torch.allclose(torch.from_numpy(found.features[layer]), maps[0].mean(dim=(1, 2)), atol=1e-6)
    pooled = model.norm(maps[0]).mean(dim=(1, 2))
    assert torch.allclose(torch.from_numpy(found.features["penultimate"]), pooled, atol=1e-5)
