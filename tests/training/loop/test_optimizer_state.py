"""An optimizer's restored state: each tensor where the optimizer itself would have put it."""

import json

import pytest
import torch
from vithub.training.loop.checkpoints import CheckpointReadError, last_checkpoint, restore, save_checkpoint
from vithub.training.optim.optimizers import build_optimizer
from vithub.training.recipe.sections import TrainingSettings

from vithub import HubViTForImageClassification


def stepped(model, optimizer):
    model(torch.zeros(2, 3, 32, 32, device=model.device)).logits.sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    return optimizer


@pytest.fixture
def saved(tiny, tmp_path):
    def make(**settings):
        model = HubViTForImageClassification(tiny())
        optimizer = stepped(model, build_optimizer(model, TrainingSettings(layer_decay=0.5, **settings), 1e-3))
        return model, save_checkpoint(tmp_path, 1, model, optimizer, {}, keep=1)

    return make


def places(model, optimizer):
    return {
        (name, slot): (value.device.type, value.dtype)
        for name, parameter in model.named_parameters()
        for slot, value in optimizer.state[parameter].items()
    }


@pytest.mark.parametrize("options", [{"fused": True}, {"fused": False}], ids=str)
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_every_state_lies_where_a_fresh_optimizer_puts_it(saved, options, device):
    model, checkpoint = saved()
    model.to(device)
    expected = places(model, stepped(model, torch.optim.AdamW(model.parameters(), **options)))
    restored = torch.optim.AdamW(model.parameters(), **options)
    restore(checkpoint, model, restored)
    assert places(model, restored) == expected
    stepped(model, restored)


@pytest.mark.parametrize(("capturable", "place"), [(True, "meta"), (False, "cpu")])
def test_the_step_lies_beside_its_parameter_where_the_optimizer_asks_for_it(saved, capturable, place):
    model, checkpoint = saved()
    model.to("meta")  # a device other than the CPU that every machine has
    restored = torch.optim.AdamW(model.parameters(), capturable=capturable)
    restore(checkpoint, model, restored)
    for slots in restored.state.values():
        found = {slot: value.device.type for slot, value in slots.items()}
        assert found == {"step": place, "exp_avg": "meta", "exp_avg_sq": "meta"}


def test_a_checkpoint_with_more_groups_than_are_made_now_goes_on(saved, tiny):
    model, checkpoint = saved(optimizer="lamb")
    state = json.loads((checkpoint / "state.json").read_text())
    state["groups"] = [{"step": 7.0}] * 29
    (checkpoint / "state.json").write_text(json.dumps(state))
    optimizer = build_optimizer(model, TrainingSettings(layer_decay=0.5, optimizer="lamb"), 1e-3)
    restore(checkpoint, model, optimizer)
    assert [float(group["step"]) for group in optimizer.param_groups] == [7.0] * len(optimizer.param_groups)
    state["groups"][3] = {"step": 8.0}
    (checkpoint / "state.json").write_text(json.dumps(state))
    assert last_checkpoint(checkpoint.parent) == checkpoint
    with pytest.raises(CheckpointReadError, match="`groups` must all count the same steps"):
        restore(checkpoint, model, optimizer)
