"""Operations are counted as arithmetic says they must be, whichever way torch computes them."""

import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torchvision.models import VisionTransformer
from transformers import ResNetConfig, ResNetForImageClassification, ViTConfig, ViTForImageClassification
from vithub.comparison.closed_form import attention_share, closed_form_macs, crossover_pixels
from vithub.comparison.operation_count import UncountedOperationError, count_model, count_operations

from vithub import HubDeiTConfig, HubDeiTForImageClassification, HubViTConfig, HubViTForImageClassification

VARIANTS = [
    {},
    {"use_swiglu_ffn": True, "intermediate_size": 40},
    {"pool": "cls+mean", "num_register_tokens": 3},
    {"pool": "mean", "use_cls_token": False, "image_size": (32, 48), "patch_size": (8, 16)},
]


@pytest.mark.parametrize("fields", VARIANTS, ids=str)
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_the_counter_agrees_with_the_closed_form_in_every_mode(tiny, fields, implementation):
    model = HubViTForImageClassification(tiny(**fields)).eval()
    model.set_attn_implementation(implementation)
    pixels = torch.randn(2, 3, *model.config.image_hw)
    expected = 2 * closed_form_macs(model.config)
    assert count_model(model, pixels).checked().macs == pytest.approx(expected, rel=1e-3)
    assert count_operations(lambda: model(pixels)).checked().macs == pytest.approx(expected, rel=1e-3)
    with torch.inference_mode():
        assert count_operations(lambda: model(pixels)).checked().macs == pytest.approx(expected, rel=1e-3)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert count_operations(lambda: model(pixels)).checked().macs == pytest.approx(expected, rel=1e-3)


@given(
    layers=st.integers(1, 3),
    heads=st.sampled_from([1, 2, 4]),
    width=st.sampled_from([16, 24, 64]),
    side=st.integers(1, 6),
    labels=st.integers(1, 50),
    distilled=st.booleans(),
)
def test_the_counter_agrees_with_the_closed_form_at_any_size(layers, heads, width, side, labels, distilled):
    config = HubDeiTConfig(
        hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, image_size=4 * side, patch_size=4,
        num_labels=labels, use_distillation_head=distilled, use_distillation_token=distilled,
    )  # fmt: skip
    model = HubDeiTForImageClassification(config).eval()
    counted = count_model(model, torch.randn(1, 3, 4 * side, 4 * side)).checked()
    assert counted.macs == closed_form_macs(config)
    assert counted.flops == 2 * counted.macs


@pytest.mark.parametrize(
    "fields",
    [
        {"pool": "map", "use_cls_token": False},
        {"position_embedding_type": "rotary", "num_register_tokens": 4, "use_swiglu_ffn": True, "qk_norm": True},
    ],
    ids=["siglip", "dinov3"],
)
def test_the_counter_agrees_with_the_closed_form_of_other_backbones(fields, tiny):
    config = tiny(**fields)
    model = HubViTForImageClassification(config).eval()
    counted = count_model(model, torch.randn(1, 3, *config.image_hw)).checked()
    assert counted.macs == pytest.approx(closed_form_macs(config), rel=1e-3)


def test_a_training_step_costs_three_forward_passes():
    """Each product has two gradients, but for those of the images; fused attention computes Q K^T anew."""
    model = HubViTForImageClassification(HubViTConfig.preset("Ti", image_size=64, num_hidden_layers=2))
    pixels = torch.randn(1, 3, 64, 64)
    forward = count_model(model, pixels)
    step = count_operations(lambda: model(pixels).logits.sum().backward()).checked()
    embedding = 16 * 192 * 3 * 16 * 16
    recomputed = forward.by_kind["attention"] / 2
    assert step.macs == pytest.approx(3 * forward.macs - embedding + recomputed, rel=1e-6)


def test_grouped_convolutions_cost_their_groups_once_in_both_directions():
    """A depthwise layer, of which torch's own formula takes the backward pass for 32 times its work."""
    layer = nn.Conv2d(32, 32, 3, padding=1, groups=32)
    pixels = torch.randn(1, 32, 10, 10, requires_grad=True)
    forward = 10 * 10 * 32 * 3 * 3
    assert count_operations(lambda: layer(pixels)).macs == forward
    assert count_operations(lambda: layer(pixels).sum().backward()).macs == 3 * forward


def test_models_of_others_are_counted_as_their_authors_count_them():
    """Published multiply-accumulates at 224 pixels."""
    pixels = torch.randn(1, 3, 224, 224)
    with torch.device("meta"):
        sizes = {"resnet50": 4.09e9, "convnext_atto": 0.55e9, "tf_efficientnet_lite0": 0.385e9}
        models = {name: timm.create_model(name).eval() for name in sizes}
    for name, published in sizes.items():
        assert count_model(models[name], pixels.to("meta")).checked().macs == pytest.approx(published, rel=0.02), name


def test_one_architecture_counts_the_same_in_three_libraries():
    fields = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 32, "patch_size": 8}
    ours = HubViTConfig(**fields, intermediate_size=128, num_labels=7)
    pixels = torch.randn(3, 3, 32, 32)
    theirs = ViTForImageClassification(ViTConfig(**fields, intermediate_size=128, num_labels=7)).eval()
    timms = timm.create_model(
        "vit_tiny_patch16_224",
        img_size=32,
        patch_size=8,
        embed_dim=64,
        depth=2,
        num_heads=4,
        mlp_ratio=2,
        num_classes=7,
    ).eval()
    assert count_model(theirs, pixels).checked().macs == 3 * closed_form_macs(ours)
    assert count_model(timms, pixels).checked().macs == 3 * closed_form_macs(ours)


def test_the_fused_layer_of_torch_is_counted():
    """torchvision's ViT runs `nn.MultiheadAttention` as one operation without gradients, as several with them."""
    sizes = {"image_size": 32, "patch_size": 8}
    model = VisionTransformer(
        **sizes, num_layers=2, num_heads=4, hidden_dim=32, mlp_dim=128, num_classes=7
    ).eval()  # fmt: skip
    pixels = torch.randn(2, 3, 32, 32)
    config = HubViTConfig(**sizes, num_hidden_layers=2, num_attention_heads=4, hidden_size=32, num_labels=7)
    fused = count_model(model, pixels).checked()
    assert fused.by_kind["attention"] > count_operations(lambda: model(pixels)).by_kind["attention"]  # its projections
    assert fused.macs == 2 * closed_form_macs(config)
    assert count_operations(lambda: model(pixels)).checked().macs == 2 * closed_form_macs(config)


def test_what_cannot_be_counted_is_named_and_never_taken_for_nothing():
    class Solver(nn.Module):
        def forward(self, pixel_values):
            return torch.linalg.svdvals(pixel_values.mean(1))

    counted = count_model(Solver(), torch.randn(1, 3, 8, 8))
    assert list(counted.uncounted) == ["aten._linalg_svd"]
    with pytest.raises(UncountedOperationError, match=r"aten\._linalg_svd \(1 x\)"):
        counted.checked()


def test_the_quadratic_term_overtakes_where_tokens_are_six_times_the_width():
    assert crossover_pixels(192, 16) == pytest.approx(543, abs=1)
    assert crossover_pixels(768, 16) == pytest.approx(1086, abs=1)
    assert attention_share(6 * 384, 384) == 0.5
    assert attention_share(196, 192) == pytest.approx(0.145, abs=1e-3)


def test_a_resnet_of_transformers_is_all_convolution():
    model = ResNetForImageClassification(ResNetConfig(depths=[1, 1], hidden_sizes=[8, 16], embedding_size=8)).eval()
    counted = count_model(model, torch.randn(1, 3, 32, 32)).checked()
    assert counted.by_kind["convolution"] > 0.99 * counted.macs
    assert "attention" not in counted.by_kind
