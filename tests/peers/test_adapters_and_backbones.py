"""peft on our models by the layer names that the documents state, and what `AutoBackbone` answers."""

import pytest
import torch
from transformers import AutoBackbone

import vithub

pytest.importorskip("peft", reason="adapters need the extra `lora`")
from peft import LoraConfig, get_peft_model

# peft asks transformers for a name that is on its way out
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
HEADS = {
    "vit": ["classifier"],
    "deit": ["classifier", "distillation_classifier"],
    "detr": ["class_labels_classifier"],
}
# As docs/training.md names them.
ATTENTION, MLP = ["q_proj", "k_proj", "v_proj", "o_proj"], ["fc1", "fc2"]


def model_of(kind, tiny, tiny_detr, randomised):
    if kind == "detr":
        return randomised(vithub.HubDetrForObjectDetection(tiny_detr()))
    config_class = vithub.HubDeiTConfig if kind == "deit" else vithub.HubViTConfig
    classes = {"vit": vithub.HubViTForImageClassification, "deit": vithub.HubDeiTForImageClassification}
    return randomised(classes[kind](tiny(config_class)))


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("targets", [["q_proj", "v_proj"], ATTENTION + MLP, "all-linear"], ids=str)
def test_adapters_start_as_the_model_learn_alone_and_merge(kind, targets, tiny, tiny_detr, randomised):
    torch.manual_seed(0)
    model = model_of(kind, tiny, tiny_detr, randomised)
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = model(pixels).logits
    heads = HEADS[kind]
    excluded = heads if targets == "all-linear" else None
    config = LoraConfig(r=2, target_modules=targets, modules_to_save=heads, exclude_modules=excluded)
    adapted = get_peft_model(model, config)
    with torch.no_grad():
        torch.testing.assert_close(adapted(pixels).logits, before, atol=1e-6, rtol=1e-6)
    names = {name for name, _ in model.named_modules() if name.endswith(".lora_A")}
    layers = {name.split(".")[-2] for name in names}
    assert layers >= {"q_proj", "v_proj"}
    if targets != "all-linear":
        assert layers == set(targets)
    adapted.base_model.model.activation_checkpointing_enable()
    adapted.enable_input_require_grads()
    adapted.train()
    adapted(pixels).logits.pow(2).sum().backward()
    learning = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert all("lora_" in name or "modules_to_save" in name for name in learning)
    assert any("lora_B" in name and p.grad is not None and p.grad.any() for name, p in adapted.named_parameters())
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.05)
        adapted.eval()
        moved = adapted(pixels).logits
        merged = adapted.merge_and_unload()
        torch.testing.assert_close(merged(pixels).logits, moved, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(moved, before, atol=1e-3)


def test_peft_has_no_default_for_our_models_and_says_what_to_name(tiny):
    with pytest.raises(ValueError, match="target_modules"):
        get_peft_model(vithub.HubViTForImageClassification(tiny()), LoraConfig(r=2))


def test_a_detector_of_ours_is_no_backbone_of_transformers_and_the_error_names_it(tiny_detr):
    with pytest.raises(ValueError, match=r"HubDetrConfig.*AutoBackbone"):
        AutoBackbone.from_config(tiny_detr())


def test_features_come_from_the_task_backbone_and_a_detector_takes_it_by_its_configuration(tiny, tiny_detr, tmp_path):
    torch.manual_seed(0)
    vithub.HubViTForImageClassification(tiny()).save_pretrained(tmp_path)
    backbone = vithub.load(tmp_path, task="backbone")
    states = backbone(torch.randn(1, 3, 32, 32), output_hidden_states=True).hidden_states
    assert [tuple(state.shape) for state in states] == [(1, 17, 32)] * 3
    detector = vithub.HubDetrForObjectDetection(tiny_detr(backbone_config=backbone.config, frozen_stages=0))
    assert isinstance(detector.detr.backbone.model, vithub.HubViTModel)
    assert detector(torch.randn(1, 3, 64, 64)).logits.shape == (1, 10, 4)
