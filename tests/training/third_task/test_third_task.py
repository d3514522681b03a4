"""A third task trains, resumes, evaluates and predicts from a folder of its own, without a change elsewhere."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset, Image
from PIL import Image as Pictures
from safetensors.torch import load_file
from vithub.training.finetuning import finetune
from vithub.training.recipe.recipe import Recipe, RecipeError

import vithub

VALUES = {"task": "brightness", "training.batch_size": 16, "training.lr": 1e-2, "training.label_smoothing": 0.0,
          "training.warmup": 0.0, "data.source": "greys", "data.workers": 0}  # fmt: skip


@pytest.fixture(scope="module")
def brightness(tmp_path_factory):
    """The task's module, registered, with photos of one grey each."""
    spec = importlib.util.spec_from_file_location("brightness", Path(__file__).with_name("brightness.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder, draws = tmp_path_factory.mktemp("greys"), np.random.default_rng(0)

    def table(name, count):
        values = draws.uniform(0, 1, count)
        files = [str(folder / f"{name}{number}.png") for number in range(count)]
        for file, value in zip(files, values, strict=True):
            Pictures.new("RGB", (16, 16), (round(255 * value),) * 3).save(file)
        return Dataset.from_dict({"image": files, "brightness": values}).cast_column("image", Image(decode=False))

    module.TABLES["greys"] = {"train": table("a", 64), "validation": table("b", 16), "test": table("c", 16)}
    module.PHOTO = folder / "c0.png"
    return module


@pytest.fixture(scope="module")
def trained(brightness, tmp_path_factory):
    recipe = Recipe().with_values(VALUES | {"training.epochs": 6})
    return finetune(recipe=recipe, output=tmp_path_factory.mktemp("run") / "run")


def test_it_learns_and_loads_as_any_model(trained, brightness):
    truth = np.array(brightness.TABLES["greys"]["test"]["brightness"])
    assert trained.metrics["test"]["closeness"] > 1 - np.abs(truth - truth.mean()).mean() + 0.04  # than any one answer
    assert trained.metrics["problem"] == "image_regression"
    assert "Mean distance from the true brightness" in (trained.folder / "README.md").read_text()


@pytest.mark.parametrize("front_end", ["accelerate", "trainer"])
def test_it_resumes_to_the_same_bits(front_end, trained, brightness, tmp_path, listener):
    recipe = Recipe().with_values(VALUES | {"training.epochs": 6})
    with pytest.raises(KeyboardInterrupt):
        finetune(recipe=recipe, output=tmp_path / "run", front_end=front_end, reporter=listener(break_after=9))
    again = finetune(output=tmp_path / "run", resume=True, front_end=front_end)
    whole, resumed = (load_file(run.folder / "model.safetensors") for run in (trained, again))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_it_evaluates_and_predicts_what_it_was_trained_for(trained, brightness):
    result = vithub.evaluate(trained.folder, "greys")
    assert result["metrics"] == pytest.approx(trained.metrics["test"], rel=1e-6)
    (answer,) = vithub.predict(trained.folder, brightness.PHOTO)
    truth = brightness.TABLES["greys"]["test"][0]["brightness"]
    assert answer["predictions"][0]["brightness"] == pytest.approx(truth, abs=0.25)


def test_an_option_of_another_task_is_refused_by_name(brightness, tmp_path):
    recipe = Recipe().with_values(VALUES | {"boxes.crop": 0.2})
    with pytest.raises(RecipeError, match=r"boxes\.crop 0\.2 has no effect on task brightness"):
        finetune(recipe=recipe, output=tmp_path / "run")
