"""Class activation maps against what is computed from named layers, by hooks."""

import pytest
import torch
import torchvision
from vithub.interpretability.explanation.class_activation import grad_cam_map, hires_cam_map, layer_cam_map

from vithub import explain

FORMULAS = {"grad_cam": grad_cam_map, "hires_cam": hires_cam_map, "layer_cam": layer_cam_map}


def of_layer(model, layer, images, label):
    """Output of a named layer, and the gradient of a class's score by it."""
    kept = []
    handle = layer.register_forward_hook(lambda module, args, output: kept.append(output))
    output = model(images)
    handle.remove()
    logits = output if isinstance(output, torch.Tensor) else output.logits
    (gradient,) = torch.autograd.grad(logits[:, label].sum(), kept[0])
    return kept[0].detach(), gradient


@pytest.mark.parametrize("method", FORMULAS)
def test_the_layer_of_a_cnn_is_found(method, pixels):
    torch.manual_seed(0)
    model, images = torchvision.models.resnet18(num_classes=5).eval(), pixels(2, 64, 96)
    for layer, stage in ((None, model.layer4), (-1, model.layer4), (-2, model.layer3), (-3, model.layer2)):
        features, gradient = of_layer(model, stage, images, 3)
        expected = FORMULAS[method](features, gradient)
        grid = explain(model, images, method, target=3, layer=layer).grid
        assert torch.allclose(grid, expected, rtol=1e-4, atol=1e-6 * float(expected.max()))


@pytest.mark.parametrize(("name", "path"), [
    ("transformers resnet", "resnet.encoder.stages.3"), ("timm resnet", "layer4"),
    ("timm efficientnet", "bn2"), ("timm convnext wrapped", "timm_model.stages.3"),
])  # fmt: skip
def test_the_last_features_of_other_families_are_found(name, path, build, pixels):
    model, images = build(name), pixels(2, 64, 96)
    features, gradient = of_layer(model, model.get_submodule(path), images, 1)
    expected = grad_cam_map(features, gradient)
    assert torch.allclose(explain(model, images, "grad_cam", target=1).grid, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", FORMULAS)
@pytest.mark.parametrize(("name", "path", "prefix"), [
    ("transformers vit", "vit.layers.1.layernorm_before", 1), ("timm deit", "blocks.1.norm1", 2),
    ("torchvision vit", "encoder.layers.encoder_layer_1.ln_1", 1), ("vithub vit mean", "vit.layernorm", 0),
])  # fmt: skip
def test_the_tokens_of_a_vit_are_found(method, name, path, prefix, build, pixels):
    """After the norm before the last attention; with pooled patches the last tokens of all."""
    model, images = build(name), pixels()
    tokens, gradient = of_layer(model, model.get_submodule(path), images, 2)
    features, slope = (t[:, prefix:].transpose(1, 2).reshape(2, 32, 4, 4) for t in (tokens, gradient))
    expected = FORMULAS[method](features, slope)
    assert torch.allclose(explain(model, images, method, target=2).grid, expected, rtol=1e-4, atol=1e-7)


def test_a_layer_of_a_vit_may_be_named(build, pixels):
    model, images = build("vithub vit"), pixels()
    first, last = (explain(model, images, "grad_cam", layer=layer).grid for layer in (0, 1))
    assert torch.equal(explain(model, images, "grad_cam", layer=-2).grid, first)
    assert torch.equal(explain(model, images, "grad_cam").grid, last)
    assert not torch.allclose(first, last)


def test_grad_cam_equals_hires_cam_before_global_pooling_and_a_linear_layer(build, pixels):
    """There all gradients of a channel are the same (Draelos & Carin 2020, section 3)."""
    model, images = build("timm resnet"), pixels(2, 64, 64)
    one, other = (explain(model, images, method).grid for method in ("grad_cam", "hires_cam"))
    assert torch.allclose(one, other, rtol=1e-4, atol=1e-6)


def test_an_empty_map_is_told(build, pixels, caplog):
    """A head that falls with every feature: nothing speaks for the class."""
    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=2).eval()
    with torch.no_grad():
        model.fc.weight.fill_(-1.0)
    from transformers.utils import logging

    logger = logging.get_logger("vithub.interpretability.explanation.explaining")
    logger.addHandler(caplog.handler)
    explain(model, pixels(1, 64, 64), "layer_cam")
    logger.removeHandler(caplog.handler)
    assert "nothing in it speaks for this class" in caplog.text
