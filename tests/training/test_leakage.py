"""A run with an image in two splits is refused before it begins, unless the recipe allows it."""

import pytest
from vithub.data.checking.leakage import LeakageError
from vithub.training.recipe.recipe import Recipe
from vithub.training.recipe.resumable import MAY_CHANGE
from vithub.training.tasks.registry import build_task

import vithub


@pytest.fixture(scope="module")
def leaking(digit_folders, tmp_path_factory):
    """Digits in three splits, of which two share a file."""
    root = tmp_path_factory.mktemp("leaking")
    for label in ("one", "two"):
        files = sorted((digit_folders / label).iterdir())[:30]
        for number, file in enumerate(files):
            target = root / ("train", "train", "validation", "test")[number % 4] / label / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    source = sorted((root / "train" / "one").iterdir())[0]
    (root / "test" / "one" / "copy.png").write_bytes(source.read_bytes())
    return root


def test_finetune_refuses_and_leaves_no_folder(leaking, quick, tmp_path):
    with pytest.raises(LeakageError, match=r"test/one/copy\.png .*values=\{'data\.on_leakage': 'warn'\}"):
        vithub.finetune(data=leaking, output=tmp_path / "run", recipe=Recipe(), values=_own_splits(quick))
    assert not (tmp_path / "run").exists()


def test_the_recipe_allows_it_and_the_card_will_say_so(leaking, quick):
    values = _own_splits(quick) | {"data.source": str(leaking), "data.on_leakage": "warn"}
    task = build_task(Recipe().with_values(values))
    assert "1 image is the same file as one of another split" in task.data_facts()["notes"]
    assert "data.on_leakage" in MAY_CHANGE  # a run that was begun before this check can be resumed


def _own_splits(quick):
    return {name: value for name, value in quick().items() if name != "data.test_fraction"}
