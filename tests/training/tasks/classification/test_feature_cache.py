import pytest
import torch
from safetensors.torch import load_file
from vithub.training.recipe.recipe import RecipeError
from vithub.training.tasks.classification.feature_cache import LinearHeads

import vithub

PROBE = {"training.freeze": "backbone", "augmentation.crop": "none", "training.lr": 1e-2}


def test_features_once_give_the_losses_of_a_frozen_backbone_every_time(train, finished_run, tmp_path, monkeypatch):
    source = {"model.source": str(finished_run.folder), "model.image_size": None, "model.fields": {}}
    cached = train(tmp_path / "cached", PROBE | source)
    monkeypatch.setattr("vithub.training.tasks.classification.task.caches_features", lambda recipe: False)
    slow = train(tmp_path / "slow", PROBE | source)
    assert cached.losses == pytest.approx(slow.losses, abs=1e-5)
    for name, tensor in cached.model.state_dict().items():
        torch.testing.assert_close(tensor, slow.model.state_dict()[name], atol=1e-5, rtol=1e-4)
    assert cached.metrics["test"]["accuracy"] == slow.metrics["test"]["accuracy"]
    stored = load_file(tmp_path / "cached" / "checkpoints" / "features_train.safetensors")
    assert stored["features"].shape == (280, 2, 32)
    before = vithub.HubDeiTForImageClassification.from_pretrained(finished_run.folder).state_dict()
    changed = {name for name, tensor in cached.model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {
        f"{head}.{part}" for head in ("classifier", "distillation_classifier") for part in ("weight", "bias")
    }


def test_a_probe_goes_on_where_it_was_broken_off(train, finished_run, listener, tmp_path):
    source = {"model.source": str(finished_run.folder), "model.image_size": None, "model.fields": {}}
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", PROBE | source, reporter=listener(9))
    resumed = train(tmp_path / "run", PROBE | source, resume=True)
    whole = train(tmp_path / "whole", PROBE | source)
    assert resumed.losses == whole.losses[7:]
    assert all(torch.equal(t, whole.model.state_dict()[name]) for name, t in resumed.model.state_dict().items())


def test_a_head_that_is_no_linear_layer_is_refused(tiny):
    with pytest.raises(RecipeError, match=r"features of HubViTModel cannot be cached.*found none"):
        LinearHeads(vithub.HubViTModel(tiny()))
