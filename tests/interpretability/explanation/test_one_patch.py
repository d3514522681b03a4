"""A model that reads one patch only is explained by that patch."""

import pytest
import torch
from torch import nn

import vithub
from vithub import EXPLANATION_METHODS, explain

ROW, COLUMN = 2, 1


def one_patch_vit():
    """One layer, whose CLS token attends to the patch of one position, and passes on its brightness."""
    config = vithub.HubViTConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=8, num_labels=2
    )
    model = vithub.HubViTForImageClassification(config).eval()
    chosen = 1 + 4 * ROW + COLUMN
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        embeddings, (layer,) = model.vit.embeddings, model.vit.layers
        embeddings.patch_embeddings.weight[1] = 1 / 192  # feature 1: the patch's brightness
        embeddings.position_embeddings[0, chosen, 0] = 4.0  # feature 0: the chosen position
        embeddings.position_embeddings[0, 1:, 2] = torch.linspace(-1, 1, 16)  # feature 2: others differ too
        for norm in (layer.layernorm_before, layer.layernorm_after, model.vit.layernorm):
            norm.weight.fill_(1.0)
        attention = layer.attention
        attention.q_proj.bias.fill_(4.0)
        attention.k_proj.weight[:, 0] = 1.0
        attention.v_proj.weight[:, 1] = 1.0
        attention.o_proj.weight[1] = 1 / 32
        model.classifier.weight[0, 1] = 1.0
    return model


class OnePatchCNN(nn.Module):
    """A convolution per patch; all but one position are hidden from the classifier, which rises with what is left."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 8, stride=8)
        self.head = nn.Linear(8, 2)
        self.head.weight.data.abs_()
        mask = torch.zeros(4, 4)
        mask[ROW, COLUMN] = 1
        self.register_buffer("mask", mask)

    def forward(self, pixel_values):
        return self.head((self.conv(pixel_values).relu() * self.mask).sum(dim=(2, 3)))


# Grad-CAM weighs channels by gradients averaged over all patches, and so is not bound to find one among tokens.
CASES = [
    *(("vit", name) for name in EXPLANATION_METHODS if name not in ("random", "grad_cam")),
    *(("cnn", name) for name, method in EXPLANATION_METHODS.items() if name != "random" and not method.needs_attention),
]


@pytest.mark.parametrize(("kind", "method"), CASES)
def test_that_patch_is_found(kind, method):
    model = one_patch_vit() if kind == "vit" else OnePatchCNN().eval()
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)) + 0.5
    explanation = explain(model, images, method, target=None if kind == "cnn" else 0)
    patches = nn.functional.avg_pool2d(explanation.maps[:, None].abs(), 8)[:, 0]
    assert (patches.flatten(1).argmax(dim=1) == 4 * ROW + COLUMN).all(), patches
