from types import SimpleNamespace

import pytest
import torch
from vithub.data.samplers import TrainingOrder
from vithub.training.recipe.recipe import Recipe
from vithub.training.tasks.classification.feature_cache import FeatureRows, LinearHeads, computed_features
from vithub.training.tasks.classification.head_first import HEAD, fit_heads
from vithub.training.tasks.classification.losses import TrainingLoss
from vithub.training.tasks.registry import build_task

import vithub

FIRST = {"training.head_first_epochs": 40, "training.lr": 1e-2}


def test_the_head_alone_learns_before_the_first_step(digit_folders, quick, tmp_path):
    recipe = Recipe().with_values(quick(FIRST))
    begun, plain = (
        build_task(one, digit_folders) for one in (recipe, recipe.with_values({"training.head_first_epochs": 0}))
    )
    begun.prepare(torch.device("cpu"), tmp_path / "begun")
    plain.prepare(torch.device("cpu"), tmp_path / "plain")
    before = plain.model.state_dict()
    changed = {name for name, tensor in begun.model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {
        f"{head}.{part}" for head in ("classifier", "distillation_classifier") for part in ("weight", "bias")
    }
    assert [len(list(folder.glob("*"))) for folder in (tmp_path / "begun", tmp_path / "plain")] == [1, 0]
    right = []
    for task in (begun, plain):
        rows = computed_features(task.model, LinearHeads(task.model), task.evaluation_images("train"), 100, 0)
        logits = LinearHeads(task.model)(rows.features).logits
        right.append((logits.argmax(-1) == rows.labels).float().mean().item())
    assert right[0] > right[1] + 0.3


def test_a_run_with_the_head_first_goes_on_where_it_was_broken_off(train, listener, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", FIRST, reporter=listener(9))
    assert (tmp_path / "run" / "checkpoints" / HEAD).is_file()
    resumed = train(tmp_path / "run", FIRST, resume=True)
    whole = train(tmp_path / "whole", FIRST)
    assert resumed.losses == whole.losses[7:]
    assert all(torch.equal(t, whole.model.state_dict()[name]) for name, t in resumed.model.state_dict().items())


def test_rows_that_could_not_be_decoded_do_not_teach_the_head(tiny):
    recipe = Recipe().with_values({"training.head_first_epochs": 3})
    heads = LinearHeads(vithub.HubViTForImageClassification(tiny()))
    features = torch.randn(12, 1, 32)
    features[5] = float("nan")
    rows = FeatureRows(SimpleNamespace(name="train"), features, torch.arange(12) % 5, bad=[5])
    loss = TrainingLoss(recipe.training, recipe.distillation, has_token=False, multi_label=False)
    fit_heads(heads, rows, TrainingOrder(12, 1, seed=0), loss, recipe.training, 1e-2)
    assert all(parameter.isfinite().all() for parameter in heads.parameters())
