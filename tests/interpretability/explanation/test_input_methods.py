"""Integrated gradients, occlusion and the random map against what defines them."""

import pytest
import torch
from torch import nn
from vithub.interpretability.capture.subject import make_subject
from vithub.interpretability.explanation.input_methods import pixel_attributions
from vithub.interpretability.explanation.request import Request

from vithub import explain


@pytest.mark.parametrize("name", ["vithub vit", "timm resnet"])
def test_integrated_gradients_sum_to_the_change_of_the_score(name, build, pixels):
    model, images = build(name), pixels(2, 32, 32)
    attributions, logits = pixel_attributions(make_subject(model, images), Request(target=1, steps=100))
    with torch.no_grad():
        grey = model(torch.zeros_like(images))
    grey = grey if isinstance(grey, torch.Tensor) else grey.logits
    change = (logits - grey)[:, 1]
    assert torch.allclose(attributions.sum(dim=(1, 2, 3)), change, rtol=0.02, atol=1e-3)
    maps = explain(model, images, "integrated_gradients", target=1, steps=100).maps
    assert torch.allclose(maps, attributions.sum(dim=1), rtol=1e-4, atol=1e-7)


def test_integrated_gradients_of_a_linear_model_are_its_terms(pixels):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4))
    images = pixels(2, 8, 8)
    maps = explain(model, images, "integrated_gradients", target=2, steps=3).maps
    expected = (model[1].weight[2].view(3, 8, 8) * images).sum(dim=1)
    assert torch.allclose(maps, expected.detach(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 5, 100])
def test_occlusion_is_the_fall_of_the_score(batch_size, build, pixels):
    model, images = build("vithub vit"), pixels(2, 32, 24)
    grid = explain(model, images, "occlusion", target=[1, 3], batch_size=batch_size).grid
    assert grid.shape == (2, 4, 3)
    with torch.no_grad():
        whole = model(images).logits
        for image, label in ((0, 1), (1, 3)):
            for row in range(4):
                for column in range(3):
                    hidden = images[image : image + 1].clone()
                    hidden[:, :, row * 8 : row * 8 + 8, column * 8 : column * 8 + 8] = 0
                    fall = whole[image, label] - model(hidden).logits[0, label]
                    assert abs(grid[image, row, column] - fall) < 1e-5


def test_occlusion_of_many_patches_takes_them_together(tiny, pixels):
    """18 x 18 patches would be 324 passes: they are greyed in squares of 2 x 2."""
    import vithub

    model = vithub.HubViTForImageClassification(tiny(patch_size=2, image_size=36)).eval()
    grid = explain(model, pixels(1, 36, 36), "occlusion", batch_size=64).grid
    assert grid.shape == (1, 18, 18)
    blocks = grid.view(9, 2, 9, 2)
    assert torch.equal(blocks[:, 0, :, 0], blocks[:, 1, :, 1])
    assert len(blocks[:, 0, :, 0].unique()) > 60


def test_the_random_map_depends_on_image_and_seed_alone(build, pixels):
    model, images = build("vithub vit"), pixels(3)
    first = explain(model, images, "random").grid
    assert torch.equal(first, explain(model, images, "random").grid)
    assert torch.equal(first[2:], explain(model, images[2:], "random").grid)
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first, explain(model, images, "random", seed=1).grid)
    assert ((first >= 0) & (first < 1)).all()


@pytest.mark.parametrize(
    ("method", "options", "total"),
    [("integrated_gradients", {"steps": 5}, 5), ("occlusion", {"batch_size": 5}, 2 * 4), ("rollout", {}, 0)],
)
def test_each_pass_is_reported_with_the_number_of_all(method, options, total, build, pixels):
    passes = []
    explain(build("vithub vit"), pixels(2), method, on_pass=lambda *counted: passes.append(counted), **options)
    assert passes == [(done, total) for done in range(1, total + 1)]
