import pytest
import torch
from safetensors.torch import load_file
from vithub.training.loop.checkpoints import checkpoints


def test_the_published_weights_are_the_average_of_all_steps(train, listener, tmp_path, quick):
    values = {
        "training.ema_decay": 0.8, "training.ema_warmup": False, "training.publish": "last",
        "training.checkpoint_steps": 1, "training.keep_checkpoints": 100,
    }  # fmt: skip
    run = train(tmp_path / "run", values)
    folders = checkpoints(tmp_path / "run" / "checkpoints")
    assert len(folders) == 14
    # it begins as the weights after the second step; then 0.8 of it and 0.2 of the new ones
    average, *rest = [load_file(folder / "model.safetensors") for folder in folders[1:]]
    for state in rest:
        average = {name: 0.8 * average[name] + 0.2 * state[name] for name in average}
    published = load_file(run.folder / "model.safetensors")
    for name, tensor in published.items():
        torch.testing.assert_close(tensor, average[name], atol=1e-6, rtol=1e-5)
    assert any(not torch.equal(published[name], rest[-1][name]) for name in published)
    assert run.metrics["weights"] == "ema"
    assert "average" in (run.folder / "README.md").read_text()


def test_the_warm_up_keeps_a_short_run_s_average_from_its_first_weights(train, tmp_path):
    values = {"training.ema_decay": 0.9999, "training.epochs": 6}
    warm = train(tmp_path / "warm", values)
    cold = train(tmp_path / "cold", values | {"training.ema_warmup": False})
    assert warm.metrics["test"]["loss"] < cold.metrics["test"]["loss"] - 0.1


def test_averages_are_off_unless_asked_for(finished_run):
    assert finished_run.metrics["weights"] == "trained"
    assert not list((finished_run.folder / "checkpoints").glob("*/ema.safetensors"))
    with pytest.raises(KeyError):
        finished_run.metrics["ema"]
