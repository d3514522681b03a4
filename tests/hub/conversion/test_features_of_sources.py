"""Everything that a ViT of ours can do, with models of the newer sources: one cheap run of each pair."""

import pytest
import timm
import torch
from torch import nn
from transformers import (
    DINOv3ViTConfig,
    DINOv3ViTModel,
    IJepaConfig,
    IJepaModel,
    SiglipVisionConfig,
    SiglipVisionModel,
    ViTMAEConfig,
    ViTMAEModel,
)
from vithub.comparison.closed_form import closed_form_macs
from vithub.comparison.operation_count import count_model
from vithub.hub.conversion.detr_backbones import backbone_from, load_backbone_weights
from vithub.interpretability.explanation.method_names import METHOD_NAMES
from vithub.training.optim.lora import Adapters
from vithub.training.optim.parameter_groups import parameter_groups
from vithub.training.recipe.sections import LoraSettings

import vithub

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 30, "patch_size": 6,
         "intermediate_size": 48}  # fmt: skip
SOURCES = {
    "dinov3": lambda: DINOv3ViTModel(DINOv3ViTConfig(num_register_tokens=3, **SIZES)),
    "dinov3, gated, of timm": lambda: timm.create_model(
        "vit_small_plus_patch16_dinov3_qkvb", img_size=30, patch_size=6, embed_dim=32, depth=2, num_heads=4,
        num_classes=0, global_pool="token",
    ),
    "siglip": lambda: SiglipVisionModel(SiglipVisionConfig(**SIZES)),
    "ijepa": lambda: IJepaModel(IJepaConfig(**SIZES)),
    "mae": lambda: ViTMAEModel(ViTMAEConfig(**SIZES)),
}  # fmt: skip
PIXELS = torch.randn(2, 3, 30, 30, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module", params=SOURCES)
def folder(request, randomised, tmp_path_factory):
    """The folder of a classifier of three labels, made of a source's encoder."""
    torch.manual_seed(0)
    place = tmp_path_factory.mktemp("source") / "classifier"
    model = vithub.load(randomised(SOURCES[request.param]()), task="image-classification", labels=["ant", "bee", "cat"])
    randomised(model).save_pretrained(place)
    return place


@pytest.fixture
def model(folder):
    return vithub.load(folder)


def learns(model, **inputs):
    """One step of training: every parameter that learns has a gradient that is finite, and some are not 0."""
    model.train()(PIXELS, **inputs).loss.backward()
    learning = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert all(p.grad is not None and p.grad.isfinite().all() for p in learning.values())
    assert all(p.grad.any() for name, p in learning.items() if name.endswith("_proj.weight"))


def test_a_classifier_learns_and_is_saved(model, tmp_path):
    learns(model, labels=torch.tensor([0, 2]))
    model.eval().save_pretrained(tmp_path)
    torch.testing.assert_close(vithub.load(tmp_path)(PIXELS).logits, model(PIXELS).logits)


def test_a_distillation_token_learns_from_a_teacher(model):
    fields = {
        name: value for name, value in model.config.to_dict().items() if name not in ("model_type", "architectures")
    }
    student = vithub.HubDeiTForImageClassification(vithub.HubDeiTConfig(**fields | {"distillation": "hard"}))
    state = {name: tensor for name, tensor in model.vit.state_dict().items() if "position" not in name}  # one row fewer
    missing, unexpected = student.deit.load_state_dict(state, strict=False)
    assert not unexpected
    assert set(missing) <= {"embeddings.distillation_token", "embeddings.position_embeddings"}
    learns(student, labels=torch.tensor([0, 2]), teacher_decisions=torch.tensor([1, 2]))


def test_adapters_learn_and_are_merged(model):
    adapters = Adapters(model, LoraSettings(rank=2))
    learns(model, labels=torch.tensor([0, 2]))
    learning = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert all("lora_" in name or name.startswith("classifier.") for name in learning)
    assert sum("lora_" in name for name in learning) >= 8
    with torch.no_grad():
        expected = model.eval()(PIXELS).logits
        adapters.merge()
        torch.testing.assert_close(model(PIXELS).logits, expected, atol=1e-5, rtol=1e-5)


def test_rates_fall_from_the_head_to_the_embeddings(model):
    groups = parameter_groups(model, 1e-3, 0.1, layer_decay=0.5)
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    named = {name: rates[id(p)] for name, p in model.named_parameters() if p.requires_grad}
    embeddings = {rate for name, rate in named.items() if name.startswith("vit.embeddings.")}
    layers = [{rate for name, rate in named.items() if name.startswith(f"vit.layers.{n}.")} for n in range(2)]
    others = {rate for name, rate in named.items() if not name.startswith(("vit.embeddings.", "vit.layers."))}
    assert [len(rates) for rates in (embeddings, *layers, others)] == [1, 1, 1, 1]
    assert max(embeddings) < max(layers[0]) < max(layers[1]) < max(others) == 1e-3


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_explanations_are_of_the_patches_alone(model, method):
    explanation = vithub.explain(model, PIXELS[:1], method=method)
    assert explanation.grid.shape == (1, 5, 5)  # registers and CLS have no place on it
    assert explanation.grid.isfinite().all()
    assert explanation.grid.std() > 0


def test_a_detector_stands_on_it(folder, model, tiny_detr):
    start = backbone_from(folder)
    detector = vithub.HubDetrForObjectDetection(tiny_detr(backbone_config=start.config, frozen_stages=0))
    load_backbone_weights(detector, start)
    detector.eval()
    with torch.no_grad():
        features, _ = detector.detr.backbone(PIXELS, None)
        expected = vithub.load(folder, task="feature-maps")(PIXELS).feature_maps[-1]
    torch.testing.assert_close(features, expected)
    assert detector(torch.randn(1, 3, 32, 50)).logits.shape[0] == 1


def test_a_graph_computes_the_same(model):
    with torch.no_grad():
        exported = torch.export.export(model, (PIXELS,), strict=False).module()
        torch.testing.assert_close(exported(PIXELS + 0.1).logits, model(PIXELS + 0.1).logits, atol=1e-5, rtol=1e-5)


def test_its_cost_is_counted(model):
    assert count_model(model, PIXELS[:1]).checked().macs == pytest.approx(closed_form_macs(model.config), rel=1e-3)


def test_no_weight_is_left_out_of_its_layers(model):
    assert all(isinstance(layer.attention.q_proj, nn.Linear) for layer in model.vit.layers)
    maps = model(PIXELS, output_attentions=True).attentions
    tokens = 25 + model.config.num_prefix_tokens
    assert [weights.shape for weights in maps] == [(2, 4, tokens, tokens)] * 2
    torch.testing.assert_close(maps[0].sum(-1), torch.ones(2, 4, tokens))
