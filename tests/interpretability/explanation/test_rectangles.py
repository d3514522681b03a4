"""Explanations of ViTs and DeiTs of transformers that take images which are not square."""

import pytest
import torch
from transformers import DeiTConfig, DeiTForImageClassification, ViTConfig, ViTForImageClassification
from vithub.interpretability.capture.subject import ExplanationError

import vithub

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48, "patch_size": 8}
FAMILIES = {
    "vit": lambda size: ViTForImageClassification(ViTConfig(image_size=size, num_labels=3, **SIZES)),
    "deit": lambda size: DeiTForImageClassification(DeiTConfig(image_size=size, num_labels=3, **SIZES)),
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["rollout", "relevance", "integrated_gradients"])
def test_a_rectangle_is_explained_as_by_its_converted_twin(family, method, randomised):
    native = randomised(FAMILIES[family]((16, 40))).eval()
    pixels = torch.randn(2, 3, 16, 40, generator=torch.Generator().manual_seed(0))
    grids = [vithub.explain(model, pixels, method=method).grid for model in (native, vithub.load(native))]
    assert grids[0].shape == (2, 2, 5)
    torch.testing.assert_close(grids[0], grids[1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_another_size_works_for_squares_and_is_refused_for_rectangles(family, randomised):
    wide = torch.randn(1, 3, 24, 40)
    square = randomised(FAMILIES[family](32)).eval()
    assert vithub.explain(square, wide, method="rollout").grid.shape == (1, 3, 5)
    rectangle = randomised(FAMILIES[family]((16, 40))).eval()
    with pytest.raises(ExplanationError, match="takes images of 16 x 40 pixels only, got 24 x 40"):
        vithub.explain(rectangle, wide, method="rollout")
    assert vithub.explain(vithub.load(rectangle), wide, method="rollout").grid.shape == (1, 3, 5)
