"""The grid trains what it says, once; parts are nested; crossings are claimed only where chance is beaten."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForImageClassification
from vithub.comparison.contestants import family_of
from vithub.comparison.curves import data_section, t_interval
from vithub.comparison.data_efficiency import (
    ARCHITECTURES,
    GridSettings,
    build_network,
    grid,
    measure_data_efficiency,
    part_rows,
    read_cells,
    repeated,
)
from vithub.comparison.verdict import verdict
from vithub.data.sources import DataError

SMALL = {
    "fractions": (0.1, 1.0), "seeds": (0,), "architectures": ("CNN", "DeiT"), "epochs": 1, "batch_size": 40,
    "image_size": 16, "hidden_size": 32, "layers": 1, "train_images": 80, "test_images": 40,
}  # fmt: skip


@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=60),
    fractions=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)),
    seed=st.integers(0, 9),
)
def test_parts_are_nested_and_hold_every_class(labels, fractions, seed):
    small, large = (set(part_rows(labels, fraction, seed)) for fraction in sorted(fractions))
    assert small <= large
    assert {labels[row] for row in small} == set(labels)
    assert part_rows(labels, 1.0, seed) == list(range(len(labels)))


def test_a_part_is_repeated_evenly_to_the_length_of_the_whole():
    rows = repeated([3, 5, 9], 11)
    assert len(rows) == 11
    assert {rows.count(row) for row in (3, 5, 9)} == {3, 4}


def test_the_teacher_is_trained_before_its_student():
    cells = grid(GridSettings(fractions=(0.1, 1.0), seeds=(0, 1)))
    assert len(cells) == 4
    for group in cells:
        assert [cell.architecture for cell in group] == list(ARCHITECTURES)
        assert len({(cell.fraction, cell.seed) for cell in group}) == 1


def test_settings_that_cannot_be_trained_are_refused():
    with pytest.raises(ValueError, match=r"`architectures` with DeiT must name CNN too, its teacher, got \('DeiT',\)"):
        GridSettings(architectures=("DeiT",))
    with pytest.raises(ValueError, match="a power of two from 16, got 48"):
        GridSettings(image_size=48)
    with pytest.raises(ValueError, match="`fractions` must be above 0 and at most 1"):
        GridSettings(fractions=(0.5, 2))
    with pytest.raises(ValueError, match="`precision` must be auto, fp32 or bf16, got 'fp64'"):
        GridSettings(precision="fp64")


@pytest.mark.parametrize(
    ("architecture", "family"), [("CNN", "CNN"), ("ViT", "ViT"), ("DeiT", "ViT"), ("hybrid", "hybrid")]
)
def test_each_network_is_of_its_family_and_comes_back_from_its_folder(architecture, family, tmp_path):
    torch.manual_seed(0)
    settings = GridSettings(image_size=32, hidden_size=32, layers=2)
    model = build_network(architecture, settings, ["a", "b", "c"]).eval()
    pixels = torch.randn(2, 3, 32, 32)
    assert family_of(model, pixels) == family
    model.save_pretrained(tmp_path)
    again = AutoModelForImageClassification.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        torch.testing.assert_close(again(pixels).logits, model(pixels).logits)
    model.train()(pixels).logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.fixture(scope="module")
def trained(digit_folders, tmp_path_factory):
    folder = tmp_path_factory.mktemp("grid")
    return folder, measure_data_efficiency(digit_folders, folder, GridSettings(**SMALL))


def test_every_cell_has_as_many_steps_and_its_part_of_the_images(trained):
    folder, section = trained
    cells = read_cells(folder)
    assert [(cell["architecture"], cell["fraction"]) for cell in cells] == [
        ("CNN", 0.1), ("CNN", 1.0), ("DeiT", 0.1), ("DeiT", 1.0)
    ]  # fmt: skip
    assert len({cell["steps"] for cell in cells}) == 1
    sizes = {cell["fraction"]: cell["train_images"] for cell in cells}
    assert sizes[1.0] == pytest.approx(80, abs=5)
    assert sizes[0.1] == 10  # one of each class
    assert len(section.find("cell accuracy")) == 4
    metrics = json.loads((folder / "deit-100-seed0/run/metrics.json").read_text())
    assert metrics["teacher"]["name"] == str(folder / "cnn-100-seed0" / "run")
    assert not list(folder.glob("*/run/checkpoints"))


def test_what_is_there_is_not_trained_again_and_a_cell_that_died_is(trained, digit_folders):
    folder, _ = trained
    before = {file: file.stat().st_mtime_ns for file in folder.glob("*/run/model.safetensors")}
    old = (folder / "deit-100-seed0/cell.json").read_text()
    (folder / "deit-100-seed0/cell.json").unlink()
    measure_data_efficiency(digit_folders, folder, GridSettings(**SMALL))
    after = {file: file.stat().st_mtime_ns for file in folder.glob("*/run/model.safetensors")}
    assert [file.parts[-3] for file in before if before[file] != after[file]] == ["deit-100-seed0"]
    fresh = json.loads((folder / "deit-100-seed0/cell.json").read_text())
    assert fresh["accuracy"] == json.loads(old)["accuracy"]
    with pytest.raises(DataError, match="holds a grid of another kind: epochs 1, not 2"):
        measure_data_efficiency(digit_folders, folder, GridSettings(**{**SMALL, "epochs": 2}))


def cells_of(curves):
    """Finished cells of accuracies by architecture, fraction and seed."""
    shared = {"interval": [0.0, 1.0], "train_images": 1, "test_images": 10, "steps": 1, "parameters": 1, "seconds": 8}
    return [
        {"architecture": name, "fraction": fraction, "seed": seed, "accuracy": accuracy, **shared}
        for name, fractions in curves.items()
        for fraction, seeds in fractions.items()
        for seed, accuracy in enumerate(seeds)
    ]


def crossing_of(curves):
    settings = {"data": "x", "epochs": 1, "batch_size": 1, "image_size": 16, "hidden_size": 32, "layers": 1, "lr": 1}
    (found,) = data_section(cells_of(curves), settings).find("data crossing")
    return found


def test_a_crossing_is_established_only_beyond_chance():
    steady = {0.1: (0.5, 0.51, 0.49), 1.0: (0.5, 0.51, 0.49)}
    found = crossing_of({"CNN": steady, "ViT": {0.1: (0.3, 0.31, 0.29), 1.0: (0.7, 0.71, 0.69)}})
    assert found.value == pytest.approx(100 * 0.1**0.5, rel=1e-6)  # half-way on the logarithm
    assert found.note == "established"
    noisy = crossing_of({"CNN": steady, "ViT": {0.1: (0.3, 0.31, 0.29), 1.0: (0.4, 0.8, 0.45)}})
    assert noisy.value is not None
    assert noisy.note.startswith("not established")
    none = crossing_of({"CNN": steady, "ViT": {0.1: (0.3, 0.31, 0.29), 1.0: (0.4, 0.41, 0.39)}})
    assert none.value is None
    assert none.note == "no crossing: CNN is ahead everywhere, beyond chance at 2 of 2 parts"


def test_the_verdict_says_what_to_train_on_how_much_data_and_what_the_rest_costs():
    curves = {
        "CNN": {0.1: (0.5, 0.51, 0.49), 1.0: (0.5, 0.51, 0.49)},
        "ViT": {0.1: (0.3, 0.31, 0.29), 1.0: (0.7, 0.71, 0.69)},
        "hybrid": {0.1: (0.45, 0.6, 0.3), 1.0: (0.6, 0.61, 0.59)},
    }
    settings = {"data": "x", "epochs": 1, "batch_size": 1, "image_size": 16, "hidden_size": 32, "layers": 1, "lr": 1}
    text = verdict([data_section(cells_of(curves), settings)], {})
    assert text[-3:] == [
        "From scratch on 1 image (10 %) take CNN, accuracy 50 % (47.5 to 52.5): instead, hybrid costs 5.0 points of "
        "accuracy (within chance), ViT costs 20.0 points of accuracy.",
        "From scratch on 1 image (100 %) take ViT, accuracy 70 % (67.5 to 72.5): instead, hybrid costs 10.0 points of "
        "accuracy, CNN costs 20.0 points of accuracy.",
        "Time of one such training, on average: CNN 8 s, ViT 8 s, hybrid 8 s.",
    ]


def test_students_interval_is_the_textbooks():
    mean, interval = t_interval([1.0, 2.0, 3.0])
    assert mean == 2
    assert interval == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5), rel=1e-5)
    assert t_interval([4.0]) == (4.0, None)
