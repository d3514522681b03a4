"""Search of recipe values: what is proposed, from which results, and how a search is gone on with."""

import builtins
import json
import math

import pytest
from vithub.hub.folders import TargetError
from vithub.training.recipe.recipe import Recipe, RecipeError
from vithub.training.run_list.listing import FINISHED
from vithub.training.run_list.proposals import MissingOptunaError, Range, Search
from vithub.training.sweeping import _range, sweep

RANGES = {"training.lr": Range(1e-5, 1e-1, log=True), "augmentation.mixup": Range(0.0, 0.8)}


def search_of(trials, seed=0):
    return Search(trials, {"training.optimizer": ["adamw", "sgd"]}, RANGES, seed)


def figure(cell):
    """A figure that is best at a rate of 1e-3 with adamw."""
    return 1 - abs(math.log10(cell["training.lr"]) + 3) / 4 - 0.3 * (cell["training.optimizer"] == "sgd")


def played(trials, seed=0):
    """Values that are proposed if each run reaches its figure; every third has no result."""
    return [
        cell for _, cell in search_of(trials, seed).cells(lambda number, cell: figure(cell) if number % 3 else None)
    ]


@pytest.fixture
def optuna():
    return pytest.importorskip("optuna", reason="a search needs the extra `search`")


def test_a_search_is_the_same_again_and_goes_on_as_it_began(optuna):
    whole = played(12)
    assert played(5) == whole[:5]
    assert played(12) == whole
    assert len({json.dumps(cell) for cell in whole}) == 12
    assert played(12, seed=1) != whole


def test_small_grids_are_not_tried_twice_while_values_are_left(optuna):
    search = Search(6, {"seed": [0, 1], "training.optimizer": ["adamw", "sgd", "lamb"]}, {})
    cells = [cell for _, cell in search.cells(lambda number, cell: 0.5)]
    assert len({json.dumps(cell) for cell in cells}) == 6


def test_proposals_lie_in_their_ranges_and_come_to_what_is_better(optuna):
    cells = played(40)
    for cell in cells:
        assert 1e-5 <= cell["training.lr"] <= 1e-1
        assert 0 <= cell["augmentation.mixup"] <= 0.8
        assert cell["training.optimizer"] in ("adamw", "sgd")
    first, last = (sum(map(figure, part)) / len(part) for part in (cells[:10], cells[-10:]))
    assert last > first + 0.1


def test_ends_of_ranges_are_among_what_is_checked():
    seen = list(search_of(3).extremes())
    assert {cell["training.lr"] for cell in seen} == {1e-5, 1e-1}
    assert {cell["training.optimizer"] for cell in seen} == {"adamw", "sgd"}


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ([1e-3], r"must be \[LOW,HIGH\] or \[LOW,HIGH,log\], got \[0.001\]"),
        ([1, 2, "ln"], r"must be \[LOW,HIGH\]"),
        ("1e-3", r"must be \[LOW,HIGH\].*got '1e-3'"),
        ([True, 2], r"must be \[LOW,HIGH\]"),
        ([1, float("inf")], r"must be \[LOW,HIGH\]"),
        ([2, 1], r"must have LOW < HIGH, got \[2, 1\]"),
        ([0, 1, "log"], r"must have LOW < HIGH and both must be above 0"),
    ],
)
def test_what_is_no_range_is_refused(stated, message):
    with pytest.raises(ValueError, match=f"`ranges`: training.lr {message}"):
        Range.parsed("training.lr", stated)


def test_whole_numbers_are_drawn_only_where_a_field_takes_no_others():
    assert _range(Recipe(), "seed", [1, 9]).whole
    assert not _range(Recipe(), "augmentation.mixup", [0, 1]).whole
    assert Range.parsed("seed", [1, 9]).whole
    assert not Range.parsed("seed", [1, 9.0]).whole
    assert Range(0.1, 0.2).rounded(0.19999999) == 0.2
    assert Range(1e-5, 1e-1, log=True).rounded(0.000123456) == 1.235e-4


@pytest.fixture(scope="module")
def settings(digit_folders, quick):
    values = {name: value for name, value in quick({"training.epochs": 1}).items() if name != "training.lr"}
    return {"data": str(digit_folders), "recipe": Recipe(), "values": values}


def test_a_search_trains_its_runs_and_goes_on_with_more(optuna, settings, listener, tmp_path):
    ranges = {"training.lr": [1e-4, 1e-2, "log"]}
    first = sweep(output=tmp_path / "sweep", ranges=ranges, search=1, reporter=listener(), **settings)
    heard = listener()
    both = sweep(output=tmp_path / "sweep", ranges=ranges, search=2, reporter=heard, **settings)
    assert [one.state for one in both] == [FINISHED] * 2
    assert {one.folder for one in first} < {one.folder for one in both}
    assert any("run 1 of 2" in told and told.endswith("finished before") for told in heard.messages)
    for one in both:
        assert 1e-4 <= one.differences["training.lr"] <= 1e-2
    with pytest.raises(TargetError, match="holds another sweep"):
        sweep(output=tmp_path / "sweep", ranges=ranges, search=2, search_seed=1, **settings)


def test_nothing_is_trained_if_a_search_is_wrong(optuna, settings, tmp_path):
    out = tmp_path / "sweep"
    with pytest.raises(RecipeError, match=r"training\.lr: .*greater than 0, got -1"):
        sweep(output=out, ranges={"augmentation.mixup": [0.0, 0.5], "training.lr": [-1, 1e-3]}, search=2, **settings)
    with pytest.raises(ValueError, match="`search` has nothing to vary"):
        sweep(output=out, search=2, **settings)
    with pytest.raises(ValueError, match=r"training\.lr has values in `grid` and in `ranges`"):
        sweep(output=out, grid={"training.lr": [1e-3]}, ranges={"training.lr": [1e-4, 1e-3]}, search=2, **settings)
    with pytest.raises(ValueError, match="`search` must be 1 to 999 runs, got 0"):
        sweep(output=out, ranges={"training.lr": [1e-4, 1e-3]}, search=0, **settings)
    with pytest.raises(ValueError, match="`ranges` is for a search; give `search` too"):
        sweep(output=out, grid={"seed": [1]}, ranges={"training.lr": [1e-4, 1e-3]}, **settings)
    assert not out.exists()


def test_a_missing_optuna_is_told_before_anything_is_written(settings, monkeypatch, tmp_path):
    def refuse(name, *arguments, **options):
        if name == "optuna":
            raise ImportError(name)
        return real(name, *arguments, **options)

    real = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingOptunaError, match=r"pip install 'vithub\[search\]'"):
        sweep(output=tmp_path / "sweep", ranges={"training.lr": [1e-4, 1e-3]}, search=2, **settings)
    assert not (tmp_path / "sweep").exists()
