"""A small grid of trainings, killed and gone on with."""

import json
import sys

import pytest
from hypothesis import given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st
from vithub.hub.folders import TargetError
from vithub.scripts.command_line import app, run
from vithub.training.recipe.recipe import Recipe, RecipeError
from vithub.training.run_list.listing import FINISHED, UNFINISHED
from vithub.training.sweeping import best_on_validation, grid_cells, sweep

GRID = {"training.lr": [4e-3, 1e-6], "seed": [0, 1]}


@pytest.fixture(scope="module")
def settings(digit_folders, quick):
    values = {name: value for name, value in quick({"training.epochs": 1}).items() if name != "training.lr"}
    return {"data": str(digit_folders), "recipe": Recipe(), "values": values}


@pytest.fixture(scope="module")
def swept(settings, listener, tmp_path_factory):
    """A sweep that was broken off in its third run and called again, with what it told the second time."""
    folder = tmp_path_factory.mktemp("sweeps") / "sweep"
    with pytest.raises(KeyboardInterrupt):
        sweep(output=folder, grid=GRID, reporter=listener(break_after=17), **settings)
    before = {file.parent.name: file.read_text() for file in folder.glob("*/metrics.json")}
    heard = listener()
    return folder, before, sweep(output=folder, grid=GRID, reporter=heard, **settings), heard


def test_a_sweep_that_was_broken_off_trains_only_what_is_missing(swept, train):
    folder, before, entries, heard = swept
    assert len(before) == 2
    assert all((folder / name / "metrics.json").read_text() == text for name, text in before.items())
    assert len(heard.losses) == 14
    assert [one.state for one in entries] == [FINISHED] * 4
    assert sorted(tuple(one.differences.items()) for one in entries) == [
        (("seed", seed), ("training.lr", lr)) for seed in (0, 1) for lr in (1e-6, 4e-3)
    ]


def test_a_cell_is_the_run_that_finetune_makes(swept, train, tmp_path):
    (cell,) = (one for one in swept[2] if one.differences == {"seed": 1, "training.lr": 4e-3})
    alone = train(tmp_path / "run", {"training.epochs": 1, "training.lr": 4e-3}, seed=1)
    assert (cell.folder / "model.safetensors").read_bytes() == (alone.folder / "model.safetensors").read_bytes()


def test_the_validation_split_chooses(swept):
    entries = swept[2]
    figures = {one.folder: json.loads((one.folder / "metrics.json").read_text())["validation"]["accuracy"]
               for one in entries}  # fmt: skip
    best, value = best_on_validation(entries)
    assert value == figures[best.folder] == max(figures.values())
    assert best_on_validation([]) is None


def test_nothing_is_trained_if_a_combination_is_wrong_or_the_folder_is_another_sweeps(swept, settings, tmp_path):
    with pytest.raises(RecipeError, match=r"training\.lr: .*greater than 0, got -1"):
        sweep(output=tmp_path / "sweep", grid={"training.lr": [1e-3, -1]}, **settings)
    with pytest.raises(RecipeError, match=r"training\.momentum 0\.8 has no effect"):
        sweep(output=tmp_path / "sweep", grid={"training.momentum": [0.8, 0.7]}, **settings)
    with pytest.raises(ValueError, match=r"`grid` varies training\.epochs, which is stated for all runs too"):
        sweep(output=tmp_path / "sweep", grid={"training.epochs": [1, 2]}, **settings)
    assert not (tmp_path / "sweep").exists()
    with pytest.raises(TargetError, match=r"holds another sweep, which sweep\.json describes"):
        sweep(output=swept[0], grid={"training.lr": [1e-3]}, **settings)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "kept.txt").write_text("kept")
    with pytest.raises(TargetError, match="holds files already"):
        sweep(output=tmp_path / "full", grid=GRID, **settings)


def test_a_run_without_a_finite_loss_does_not_stop_the_others(settings, listener, tmp_path):
    heard = listener()
    grid = {"training.lr": [1e30, 4e-3]}
    values = {**settings["values"], "training.optimizer": "sgd", "training.clip_norm": None, "training.warmup": 0}
    entries = sweep(output=tmp_path / "sweep", grid=grid, reporter=heard, **{**settings, "values": values})
    assert [one.state for one in entries] == [FINISHED, UNFINISHED]
    assert any("has no result: the loss of step" in told for told in heard.messages)


VALUES = st.lists(st.integers() | st.floats(allow_nan=False) | st.text(max_size=9), min_size=1, max_size=4, unique=True)


@settings_of_hypothesis(max_examples=25)
@given(st.dictionaries(st.sampled_from(["training.lr", "seed", "augmentation.crop"]), VALUES, min_size=1))
def test_every_combination_has_a_folder_of_its_own(grid):
    cells = grid_cells(grid)
    count = 1
    for values in grid.values():
        count *= len(values)
    assert len(cells) == count
    assert all(name and name == name.strip(". ") and not set(name) & set("/\\\0 ") for name in cells)
    assert len({tuple(map(repr, cell.values())) for cell in cells.values()}) == count


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({}, "is missing: name a field and its values"),
        ({"seed": 3}, "seed must have a list of values, got 3"),
        ({"seed": []}, r"seed must have a list of values, got \[\]"),
        ({"seed": [1, 1]}, r"seed has a value twice, got \[1, 1\]"),
        ({"seed": list(range(300))}, "has 300 combinations, more than 200"),
    ],
)
def test_a_grid_that_says_nothing_is_refused(grid, message):
    with pytest.raises(ValueError, match=message):
        grid_cells(grid)


def test_the_command_lists_the_runs_and_names_the_best(swept, settings, monkeypatch, capsys, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(Recipe().to_yaml())
    options = [part for name, value in settings["values"].items()
               for part in ("--set", f"{name}={json.dumps(value)}")]  # fmt: skip
    monkeypatch.setattr(sys, "argv", [
        "vithub", "sweep", "--data", settings["data"], "--output", str(swept[0]), "--recipe", str(recipe), *options,
        "--grid", "training.lr=[4e-3, 1e-6]", "--grid", "seed=[0, 1]",
    ])  # fmt: skip
    assert run(app) == 0
    printed = capsys.readouterr()
    assert printed.err.count("finished before") == 4
    assert printed.out.count(FINISHED) == 4
    assert f"best on the validation split: {best_on_validation(swept[2])[0].folder}" in printed.out
