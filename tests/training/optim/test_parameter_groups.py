import json
import re

import pytest
import timm
import torch
import transformers
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from vithub.hub.conversion.convert import convert
from vithub.training.optim.parameter_groups import parameter_groups

import vithub

LR, DECAY = 1e-3, 0.05


def by_name(model, groups):
    """(learning rate, weight decay) of each parameter."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {}
    for group in groups:
        for parameter in group["params"]:
            assert id(parameter) in names
            assert names[id(parameter)] not in found, "in two groups"
            rate = group["lr"] if "lr" in group else LR * group["lr_scale"]
            found[names[id(parameter)]] = (rate, group["weight_decay"])
    return found


def mark(model):
    """Gives each parameter one value of its own; returns the names by value."""
    names = {}
    with torch.no_grad():
        for number, (name, parameter) in enumerate(model.named_parameters(), start=1):
            parameter.fill_(number)
            names[number] = name
    return names


VARIANTS = {
    "vit": {},
    "deit": {"distillation": "hard", "num_hidden_layers": 3},
    "layer scale": {"layer_scale_init_value": 0.1},
}


@pytest.fixture(params=VARIANTS.values(), ids=VARIANTS)
def ours_and_timms(request, tiny, tmp_path):
    """A classifier and timm's of the same architecture, and the names of ours by those of timm."""
    deit = "distillation" in request.param
    config_class = vithub.HubDeiTConfig if deit else vithub.HubViTConfig
    kind = vithub.HubDeiTForImageClassification if deit else vithub.HubViTForImageClassification
    ours = kind(tiny(config_class, **request.param))
    names = mark(ours)
    ours.save_pretrained(tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "timm", "timm")
    theirs = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True)
    matches = {
        name: {names[value] for value in set(parameter.flatten().tolist())}
        for name, parameter in theirs.named_parameters()
    }
    assert set().union(*matches.values()) == set(names.values())
    return ours, theirs, matches


def test_the_same_parameters_decay_as_in_timm(ours_and_timms):
    ours, theirs, matches = ours_and_timms
    mine = by_name(ours, parameter_groups(ours, LR, DECAY))
    groups = param_groups_weight_decay(theirs, DECAY, no_weight_decay_list=theirs.no_weight_decay())
    expected = by_name(theirs, [{"lr": LR, **group} for group in groups])
    assert {decay for _, decay in mine.values()} == {0.0, DECAY}
    for name, same in matches.items():
        assert {mine[other] for other in same} == {expected[name]}, name


def test_layers_learn_as_fast_as_in_timm_and_the_last_norm_as_in_beit(ours_and_timms):
    ours, theirs, matches = ours_and_timms
    mine = by_name(ours, parameter_groups(ours, LR, DECAY, 0.75))
    expected = by_name(
        theirs, param_groups_layer_decay(theirs, DECAY, no_weight_decay_list=theirs.no_weight_decay(), layer_decay=0.75)
    )
    for name, same in matches.items():
        rate, decay = expected[name]
        if name.startswith("norm."):  # timm counts it to the last layer, BEiT's authors to the head
            rate /= 0.75
        for other in same:
            assert mine[other] == (pytest.approx(rate), decay), name


def test_timms_own_names_are_understood_too():
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, embed_dim=24, num_heads=2, depth=3, num_classes=2, reg_tokens=2
    )
    mine = by_name(model, parameter_groups(model, LR, DECAY, 0.6))
    expected = by_name(
        model, param_groups_layer_decay(model, DECAY, no_weight_decay_list=model.no_weight_decay(), layer_decay=0.6)
    )
    last_norm = {"norm.weight", "norm.bias"}
    assert {n: pytest.approx(v) for n, v in expected.items() if n not in last_norm} == {
        n: v for n, v in mine.items() if n not in last_norm
    }


@pytest.mark.parametrize("kind", ["vit", "dinov2_with_registers"])
def test_the_names_of_transformers_are_understood_too(kind):
    config = transformers.AutoConfig.for_model(
        kind, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, image_size=16, patch_size=8, num_labels=3
    )
    model = transformers.AutoModelForImageClassification.from_config(config)
    found = by_name(model, parameter_groups(model, LR, DECAY, 0.5))
    assert found.keys() == dict(model.named_parameters()).keys()
    decaying = {name for name, (_, decay) in found.items() if decay}
    assert all(name.endswith(".weight") and "norm" not in name for name in decaying)
    assert not any("token" in name or "position_embeddings" in name for name in decaying)
    rates = {name: rate / LR for name, (rate, _) in found.items()}
    assert rates["classifier.weight"] == 1
    assert {rate for name, rate in rates.items() if re.search(r"layers?\.2\.", name)} == {0.5}
    assert {rate for name, rate in rates.items() if re.search(r"layers?\.0\.", name)} == {0.125}
    assert {rate for name, rate in rates.items() if "embeddings" in name} == {0.0625}


def test_registers_and_mask_tokens_do_not_decay(tiny):
    model = vithub.HubViTModel(tiny(num_register_tokens=2, use_mask_token=True))
    for name, (_, decay) in by_name(model, parameter_groups(model, LR, DECAY)).items():
        assert decay == 0 or ("token" not in name and "position" not in name), name


def test_frozen_parameters_are_left_out(tiny):
    model = vithub.HubViTForImageClassification(tiny())
    model.base_model.requires_grad_(False)
    found = by_name(model, parameter_groups(model, LR, DECAY, 0.5))
    assert found == {"classifier.weight": (LR, DECAY), "classifier.bias": (LR, 0.0)}


def test_groups_can_be_told_apart_by_name_and_written_as_json(tiny):
    groups = parameter_groups(vithub.HubDeiTForImageClassification(tiny(vithub.HubDeiTConfig)), LR, DECAY, 0.75)
    assert len({group["name"] for group in groups}) == len(groups)
    json.dumps([{key: value for key, value in group.items() if key != "params"} for group in groups])


@pytest.mark.parametrize("layer_decay", [1.0, 0.75])
@pytest.mark.parametrize("backbone", [None, 0.1])
@pytest.mark.parametrize("decay_all", [False, True])
def test_there_is_one_group_for_each_pair_of_rate_and_decay(tiny, layer_decay, backbone, decay_all):
    model = vithub.HubDeiTForImageClassification(tiny(vithub.HubDeiTConfig, num_hidden_layers=4))
    groups = parameter_groups(model, LR, DECAY, layer_decay, backbone, decay_all)
    pairs = [(group["lr"], group["weight_decay"]) for group in groups]
    assert len(set(pairs)) == len(pairs)
    if layer_decay == 1.0:
        assert len(pairs) == (1 if decay_all else 2) * (1 if backbone is None else 2)


def test_muons_matrices_are_the_only_further_groups(tiny):
    model = vithub.HubViTForImageClassification(tiny())
    groups = parameter_groups(model, LR, DECAY, matrices_apart=True)
    assert [group["matrices"] for group in groups].count(True) == 1
    inside = {id(p) for name, p in model.named_parameters() if ".layers." in name and p.ndim == 2}
    assert {id(p) for group in groups if group["matrices"] for p in group["params"]} == inside
