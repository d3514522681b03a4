"""`vithub verify --data` measures again what a manifest states, and names the first image that is another."""

import shutil

import pytest
from published import written
from vithub.training.verification import _as_trained_on

import vithub


@pytest.fixture(scope="module")
def published(finished_run, tmp_path_factory):
    """The files of a run as they would be published, as a class of transformers."""
    return written(finished_run.folder, tmp_path_factory.mktemp("published") / "model", native=True)


def test_figures_are_measured_again_on_the_same_images(published, digit_folders):
    result = vithub.verify(published, data=digit_folders)
    assert result.problems == []
    told = "\n".join(result.checked)
    assert "images of split 'test' and their labels are those of the run" in told
    assert "accuracy is " in told
    assert "macro_f1 is " in told
    assert "the same within rounding" in told


def test_the_first_image_that_differs_is_named(published, digit_folders, tmp_path):
    data = shutil.copytree(digit_folders, tmp_path / "data")
    rows = _as_trained_on(published, data)["test"]
    changed = [rows[number]["image"]["path"] for number in (9, 5)]
    other = rows[30]["image"]["path"]
    for path in changed:
        shutil.copy(other, path)
    (text,) = [one for one in vithub.verify(published, data=data).problems if "the data is not" in one]
    assert "row 5 of split 'test'" in text
    assert changed[1].rpartition("/")[2] in text


def test_a_figure_that_is_not_so_is_named(finished_run, digit_folders, tmp_path):
    folder = shutil.copytree(finished_run.folder, tmp_path / "run")
    text = (folder / "metrics.json").read_text()
    true = finished_run.metrics["test"]["accuracy"]
    assert f'"accuracy": {true}' in text
    (folder / "metrics.json").write_text(text.replace(f'"accuracy": {true}', f'"accuracy": {true + 0.02}'))
    result = vithub.verify(written(folder, tmp_path / "model"), data=digit_folders)
    (problem,) = result.problems
    said = f"accuracy is {true:.6g}, the manifest states {true + 0.02:.6g}, which differs by more than"
    assert problem.startswith(said)
