"""Torch's settings for CUDA as a recipe states them: applied for a run, restored after it."""

import os

import pytest
import torch
from vithub.training.recipe.recipe import Recipe, RecipeError
from vithub.training.recipe.sections import TrainingSettings
from vithub.training.runtime.cuda_settings import (
    NotDeterministicError,
    all_deterministic,
    cuda_arithmetic,
    deterministic_algorithms,
    fast_arithmetic,
    without_effect,
)

CPU = torch.device("cpu")


def state():
    cuda, cudnn = torch.backends.cuda, torch.backends.cudnn
    return {
        "algorithms": torch.are_deterministic_algorithms_enabled(), "cudnn": cudnn.deterministic,
        "benchmark": cudnn.benchmark, "workspace": os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
        "efficient": cuda.mem_efficient_sdp_enabled(), "cudnn attention": cuda.cudnn_sdp_enabled(),
        "flash": cuda.flash_sdp_enabled(), "products": torch.get_float32_matmul_precision(),
        "convolutions": cudnn.allow_tf32,
    }  # fmt: skip


@pytest.mark.parametrize("fails", [False, True])
def test_everything_that_determinism_needs_is_set_and_put_back(monkeypatch, fails):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    before, inside = state(), {}
    try:
        with cuda_arithmetic(TrainingSettings(cudnn_benchmark=True)), all_deterministic():
            inside = state()
            assert not fails
    except AssertionError:
        pass
    assert inside == before | {
        "algorithms": True, "cudnn": True, "benchmark": False, "workspace": ":4096:8", "efficient": False,
        "cudnn attention": False, "products": "high", "convolutions": True,
    }  # fmt: skip
    assert state() == before


def test_a_workspace_that_a_person_chose_is_left(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    with all_deterministic():
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"


def test_an_operation_without_a_deterministic_form_is_named():
    places, values = torch.tensor([0, 1]), torch.ones(2)
    expected = r"training\.deterministic: put_ has no deterministic form"
    with pytest.raises(NotDeterministicError, match=expected), all_deterministic():
        torch.zeros(4).put_(places, values)
    with pytest.raises(RuntimeError, match=r"^another fault$"), all_deterministic():
        raise RuntimeError("another fault")


def test_tf32_and_the_benchmark_are_those_of_the_recipe():
    for tf32 in (True, False):
        with cuda_arithmetic(TrainingSettings(tf32=tf32, cudnn_benchmark=True)):
            found = state()
        assert (found["products"], found["convolutions"]) == (("high", True) if tf32 else ("highest", False))
        assert found["benchmark"]
    assert not state()["benchmark"]


def test_a_cpu_is_left_as_it_is_and_the_run_says_so():
    settings, before = TrainingSettings(deterministic=True, tf32=False), state()
    with deterministic_algorithms(settings, CPU), fast_arithmetic(settings, CPU):
        assert state() == before
    assert without_effect(settings, CPU) == [
        "training.deterministic does nothing on cpu: equal runs give the same bits there anyway"
    ]
    assert without_effect(settings, torch.device("cuda")) == without_effect(TrainingSettings(), CPU) == []


def test_determinism_and_a_choice_by_time_exclude_each_other():
    with pytest.raises(RecipeError, match=r"cudnn_benchmark must be false with training\.deterministic"):
        Recipe().with_values({"training.deterministic": True, "training.cudnn_benchmark": True})


@pytest.mark.gpu
def test_two_runs_on_cuda_give_the_same_bits_if_the_recipe_asks_for_it(train, tmp_path):
    from safetensors.torch import load_file

    values = {"training.deterministic": True, "training.precision": "bf16", "augmentation.mixup": 0.8}
    one, other = (load_file(train(tmp_path / name, values).folder / "model.safetensors") for name in "ab")
    assert all(torch.equal(one[name], other[name]) for name in one)
