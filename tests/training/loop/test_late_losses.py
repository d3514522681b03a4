"""Losses read a step late, as on an accelerator: the same run, and one that is not finite is still caught."""

import pytest
import torch
from safetensors.torch import load_file
from vithub.training.loop.checkpoints import last_checkpoint, read_tensors
from vithub.training.loop.step import NonFiniteLossError, StepEnd
from vithub.training.optim.optimizers import set_skip_flag, skips_by_flag
from vithub.training.tasks.classification.losses import TrainingLoss

VALUES = {
    "model.fields": {
        "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2, "initializer_range": 0.1,
        "drop_path_rate": 0.2,
    },
    "training.epochs": 1,
    "training.ema_decay": 0.9,
    "training.checkpoint_steps": 3,
    "training.keep_checkpoints": 9,
}  # fmt: skip


@pytest.fixture
def late(monkeypatch):
    """The CPU taken for a device that computes while the host goes on."""
    monkeypatch.setattr(StepEnd, "runs_ahead", staticmethod(lambda device: True))


@pytest.fixture(scope="module")
def read_at_once(train, tmp_path_factory):
    return train(tmp_path_factory.mktemp("runs") / "at once", VALUES)


@pytest.fixture
def broken_third_loss(monkeypatch):
    whole, calls = TrainingLoss.base, []

    def broken(self, logits, targets):
        calls.append(1)
        return whole(self, logits, targets) * (float("nan") if len(calls) == 3 else 1.0)

    monkeypatch.setattr(TrainingLoss, "base", broken)


@pytest.mark.parametrize("front_end", ["accelerate", "trainer"])
def test_a_run_whose_losses_are_read_late_is_the_same_run(train, read_at_once, late, tmp_path, front_end):
    run = train(tmp_path / "run", VALUES, front_end=front_end)
    assert run.losses == read_at_once.losses
    for name in ("model.safetensors", "checkpoints/step-00000003/ema.safetensors"):
        one, other = (load_file(folder / name) for folder in (run.folder, read_at_once.folder))
        assert all(torch.equal(one[key], other[key]) for key in other), name
    assert run.metrics["history"][0]["train_loss"] == read_at_once.metrics["history"][0]["train_loss"]


@pytest.mark.parametrize("front_end", ["accelerate", "trainer"])
def test_a_late_loss_that_is_not_finite_stops_the_run_by_name(train, late, broken_third_loss, tmp_path, front_end):
    values = VALUES | {"training.checkpoint_steps": 2}
    with pytest.raises(NonFiniteLossError, match=r"step 2 is nan .*; its images: .*\.png .*step-00000002"):
        train(tmp_path / "run", values, front_end=front_end)
    kept = last_checkpoint(tmp_path / "run" / "checkpoints")
    assert kept.name == "step-00000002"
    assert all(torch.isfinite(tensor).all() for tensor in read_tensors(kept / "model.safetensors").values())


@pytest.mark.parametrize("ema", [None, 0.9], ids="ema {}".format)
def test_a_late_loss_that_is_not_finite_is_left_out_as_one_read_at_once(train, tmp_path, request, ema):
    values = VALUES | {"training.on_nonfinite": "skip", "training.ema_decay": ema, "training.max_steps": 6}
    request.getfixturevalue("broken_third_loss")
    at_once = train(tmp_path / "at once", values)
    TrainingLoss.base.__closure__[0].cell_contents.clear()  # the calls
    request.getfixturevalue("late")
    run = train(tmp_path / "late", values)
    assert run.metrics["skipped_steps"] == at_once.metrics["skipped_steps"] == [2]
    one, other = (load_file(folder / "model.safetensors") for folder in (run.folder, at_once.folder))
    assert all(torch.equal(one[key], other[key]) for key in other)


def test_the_flag_leaves_out_a_step_with_its_count_and_is_gone_afterwards():
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([parameter], fused=True)
    assert skips_by_flag(optimizer)
    assert not skips_by_flag(torch.optim.AdamW([parameter]))
    assert not skips_by_flag(torch.optim.SGD([parameter], fused=True))
    parameter.grad = torch.full((3,), float("nan"))
    set_skip_flag(optimizer, torch.tensor(1.0))
    optimizer.step()
    assert torch.equal(parameter, torch.ones(3))
    assert float(optimizer.state[parameter]["step"]) == 0
    parameter.grad = torch.ones(3)
    set_skip_flag(optimizer, None)
    optimizer.step()
    alone = torch.nn.Parameter(torch.ones(3))
    alone.grad = torch.ones(3)
    torch.optim.AdamW([alone], fused=True).step()
    assert torch.equal(parameter, alone)
