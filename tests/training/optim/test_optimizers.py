import copy

import pytest
import torch
from timm.optim import create_optimizer_v2
from torch import nn
from vithub.training.optim.optimizers import build_optimizer
from vithub.training.optim.parameter_groups import freeze_parameters, keep_frozen_statistics
from vithub.training.recipe.sections import TrainingSettings

from vithub import HubViTForImageClassification


def steps(model, optimizer, count=4):
    torch.manual_seed(0)
    for _ in range(count):
        loss = model(torch.randn(4, 3, 32, 32), labels=torch.tensor([0, 1, 2, 3])).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("adamw", {"opt": "adamw", "betas": (0.9, 0.999), "eps": 1e-8}),
        ("sgd", {"opt": "momentum", "momentum": 0.9}),
        ("lamb", {"opt": "lamb", "betas": (0.9, 0.999), "eps": 1e-8, "max_grad_norm": None}),
    ],
)
def test_the_optimizers_step_as_timm_s(tiny, name, theirs):
    ours = HubViTForImageClassification(tiny())
    other = copy.deepcopy(ours)
    no_decay = [n for n, p in ours.named_parameters() if p.ndim == 1 or "token" in n or "position" in n]
    other.no_weight_decay = lambda: set(no_decay)
    steps(ours, build_optimizer(ours, TrainingSettings(optimizer=name, lr=1e-2, weight_decay=0.1), 1e-2))
    steps(other, create_optimizer_v2(other, lr=1e-2, weight_decay=0.1, **theirs))
    for (key, mine), yours in zip(ours.named_parameters(), other.parameters(), strict=True):
        if "k_proj.bias" in key:  # softmax does not see it: its gradient is rounding, which Adam blows up
            continue
        torch.testing.assert_close(mine, yours, atol=1e-6, rtol=1e-5, msg=key)


def test_muon_orthogonalises_the_matrices_of_layers_and_nothing_else(tiny):
    model = HubViTForImageClassification(tiny())
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = build_optimizer(model, TrainingSettings(optimizer="muon", lr=1e-2, weight_decay=0.0), 1e-2)
    for parameter in before:  # a spectrum from 1 to 100
        parameter_grad = torch.randn_like(before[parameter])
        if parameter_grad.ndim == 2:
            u, _, v = torch.linalg.svd(parameter_grad, full_matrices=False)
            parameter_grad = u * torch.logspace(0, 2, u.shape[1]) @ v
        dict(model.named_parameters())[parameter].grad = parameter_grad
    optimizer.step()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and parameter.ndim == 2:
            values = torch.linalg.svdvals(before[name] - parameter.detach())
            assert (float(values.min() / values.max()) > 0.5) == (".layers." in name), name  # all alike, or not


def test_frozen_parts_stay_and_the_rest_learns(tiny):
    for lowest, frozen in [("backbone", lambda n: "classifier" not in n), (2, lambda n: "embed" in n or ".0." in n)]:
        model = HubViTForImageClassification(tiny())
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        freeze_parameters(model, lowest)
        steps(model, build_optimizer(model, TrainingSettings(lr=1e-2), 1e-2), 2)
        changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
        assert changed
        assert not [name for name in changed if frozen(name)], lowest


def test_the_backbone_can_have_a_rate_of_its_own(tiny):
    model = HubViTForImageClassification(tiny())
    optimizer = build_optimizer(model, TrainingSettings(lr=1e-2, backbone_lr=1e-4), 1e-2)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert rates[id(parameter)] == pytest.approx(1e-2 if name.startswith("classifier") else 1e-4)


def test_a_frozen_batch_norm_keeps_its_statistics():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)).train()
    model[1].requires_grad_(False)
    keep_frozen_statistics(model)
    model(torch.randn(2, 3, 8, 8) + 5)
    assert model[1].num_batches_tracked == 0
    assert model[2].num_batches_tracked == 1
