"""The list of runs, whole and broken ones."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from vithub.hub.folders import TargetError
from vithub.scripts.command_line import app, run
from vithub.training.run_list.listing import BROKEN, FINISHED, UNFINISHED, list_runs
from vithub.training.run_list.text import runs_text, save_curves


@pytest.fixture(scope="module")
def shelf(finished_run, train, listener, tmp_path_factory):
    """Three runs of one data set: a good one, one of another rate and length, and one that was broken off."""
    folder = tmp_path_factory.mktemp("shelf")
    shutil.copytree(finished_run.folder, folder / "a" / "good")
    train(folder / "b-short", {"training.epochs": 1, "training.lr": 1e-5})
    with pytest.raises(KeyboardInterrupt):
        train(folder / "c-broken-off", {"training.epochs": 10}, reporter=listener(break_after=16))
    (folder / "not-a-run").mkdir()
    (folder / "not-a-run" / "metrics.json").write_text("{}")  # as `vithub evaluate` leaves one
    return folder


@pytest.fixture
def copied(shelf, tmp_path):
    return Path(shutil.copytree(shelf, tmp_path / "shelf"))


def test_the_best_comes_first_with_what_its_recipe_differs_in(shelf):
    good, short, broken_off = list_runs(shelf)
    assert [one.state for one in (good, short, broken_off)] == [FINISHED, FINISHED, UNFINISHED]
    assert (good.folder, short.folder) == (shelf / "a" / "good", shelf / "b-short")
    for one in (good, short):
        metrics = json.loads((one.folder / "metrics.json").read_text())
        assert one.value == metrics["test"]["accuracy"]
        assert list(one.interval) == metrics["intervals"]["accuracy"]
        assert (one.date, one.seconds) == (metrics["finished"], metrics["seconds"])
        assert one.steps == metrics["history"][-1]["step"]
    assert good.value > short.value
    assert (broken_off.steps, broken_off.reason) == (14, "stopped after step 14")
    assert broken_off.value == max(one["validation_accuracy"] for one in broken_off.history)
    assert [one.differences for one in (good, short, broken_off)] == [
        {"training.epochs": epochs, "training.lr": lr} for epochs, lr in ((10, 4e-3), (1, 1e-5), (10, 4e-3))
    ]


def test_the_text_has_a_line_per_run_and_names_only_what_differs(shelf):
    lines = runs_text(list_runs(shelf), shelf).splitlines()
    assert [line.split()[0] for line in lines if not line.startswith(" ")] == ["a/good", "b-short", "c-broken-off"]
    assert lines[1] == "    training.epochs 10, training.lr 0.004"
    assert " on test " in lines[0]
    assert "so far" in lines[4]
    assert lines[-1].strip() == "stopped after step 14"


def write_recipe(text):
    return lambda folder: (folder / "recipe.yaml").write_text(text)


def cut_recipe(folder):
    file = folder / "recipe.yaml"
    file.write_text(file.read_text()[:400])


def edit_recipe(folder):
    file = folder / "recipe.yaml"
    file.write_text(file.read_text().replace("epochs: 10", "epochs: 11"))


def set_metric(**values):
    def change(folder):
        file = folder / "metrics.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | values))

    return change


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), "the weights are missing"),
        (lambda folder: (folder / "recipe.yaml").unlink(), "recipe.yaml is missing"),
        (cut_recipe, "was cut short"),
        (write_recipe("- 1\n"), "must hold a recipe, got list"),
        (write_recipe("data: &a\n  data: *a\n"), "nested too deeply"),
        (lambda folder: (folder / "metrics.json").write_text('{"test": '), "no readable JSON"),
        (set_metric(reported_split="final"), "metrics.json: final must be of type dict, got 'None'"),
        (set_metric(test={"accuracy": "good"}), "metrics.json: test.accuracy must be a number, got 'good'"),
        (set_metric(history=[{"epoch": None}]), "metrics.json: history.epoch must be a number, got 'None'"),
        (set_metric(intervals={"accuracy": 3}), "metrics.json: intervals.accuracy must be of type list"),
        (set_metric(seconds=True), "metrics.json: seconds must be a number, got 'True'"),
    ],
)
def test_a_broken_run_is_listed_last_with_the_reason(damage, reason, copied):
    damage(copied / "a" / "good")
    *others, broken = list_runs(copied)
    assert [one.folder.name for one in others] == ["b-short", "c-broken-off"]
    assert (broken.folder, broken.state) == (copied / "a" / "good", BROKEN)
    assert reason in broken.reason
    assert reason in runs_text([broken], copied)


def test_a_recipe_that_was_edited_is_told(copied):
    edit_recipe(copied / "a" / "good")
    good = list_runs(copied)[0]
    assert (good.state, good.reason) == (FINISHED, "recipe.yaml was edited after the run wrote it")


def test_a_run_without_a_readable_checkpoint_is_told(copied):
    (state,) = (copied / "c-broken-off" / "checkpoints").glob("*14/*state*.json")
    state.write_text("{")
    (broken,) = (one for one in list_runs(copied) if one.state == BROKEN)
    assert broken.folder.name == "c-broken-off"
    assert f"{state.parent.name}/{state.name} is no readable JSON" in broken.reason
    shutil.rmtree(copied / "c-broken-off" / "checkpoints")
    assert "no checkpoint yet" in [one.reason for one in list_runs(copied) if one.state == UNFINISHED]


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
NAMES = ("headline", "reported_split", "test", "intervals", "history", "seconds", "finished")


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    metrics=st.dictionaries(st.sampled_from(NAMES), JUNK, max_size=3),
    recipe=st.dictionaries(st.text(max_size=5), JUNK, max_size=3),
)
def test_whatever_the_files_hold_the_other_runs_are_listed(metrics, recipe, copied):
    folder = copied / "b-short"
    before = {name: (folder / name).read_text() for name in ("metrics.json", "recipe.yaml")}
    try:
        set_metric(**metrics)(folder)
        if recipe:
            (folder / "recipe.yaml").write_text(json.dumps(recipe))
        entries = list_runs(copied)
        assert {one.folder.name for one in entries} == {"good", "b-short", "c-broken-off"}
        assert entries[0].folder.name == "good" or entries[0].state == FINISHED
        runs_text(entries, copied)
        for one in entries:
            json.dumps(one.to_dict())
    finally:
        for name, text in before.items():
            (folder / name).write_text(text)


def test_the_curves_of_all_runs_are_in_one_plot(shelf, monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, file: drawn.append((figure, file)))
    entries = list_runs(shelf)
    save_curves(entries, shelf, tmp_path / "new" / "curves.png")
    ((figure, file),) = drawn
    assert file == tmp_path / "new" / "curves.png"
    for axes, key, factor in zip(figure.axes, ("train_loss", "validation_loss", "validation_accuracy"), (1, 1, 100),
                                 strict=True):  # fmt: skip
        assert [list(line.get_ydata()) for line in axes.lines] == [
            [factor * entry[key] for entry in one.history] for one in entries
        ]
        assert [line.get_label() for line in axes.lines] == ["a/good", "b-short", "c-broken-off"]
    with pytest.raises(ValueError, match=r"takes a file that ends in .png, .svg, .pdf, got curves.gif"):
        save_curves(entries, shelf, tmp_path / "curves.gif")
    with pytest.raises(ValueError, match=r"no run below .* has finished an epoch"):
        save_curves([], shelf, tmp_path / "curves.png")


def test_the_command_prints_lines_for_people_and_for_programs(shelf, monkeypatch, capsys, tmp_path):
    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["vithub", "runs", *map(str, arguments)])
        return run(app), capsys.readouterr()

    code, printed = command(shelf, "--json", "--plot", tmp_path / "curves.svg")
    rows = [json.loads(line) for line in printed.out.splitlines()]
    assert code == 0
    assert [(row["state"], row["differences"]["training.epochs"]) for row in rows] == [
        (FINISHED, 10), (FINISHED, 1), (UNFINISHED, 10),
    ]  # fmt: skip
    assert (tmp_path / "curves.svg").is_file()
    assert command(shelf)[1].out.splitlines() == runs_text(list_runs(shelf), shelf).splitlines()
    (tmp_path / "empty").mkdir()
    assert "there is no run below" in command(tmp_path / "empty")[1].out
    code, printed = command(tmp_path / "gone")
    assert code == 1
    assert "there is no folder" in printed.err
    with pytest.raises(TargetError, match="there is no folder"):
        list_runs(tmp_path / "gone")
