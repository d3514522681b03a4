"""The search for the largest number of images that fits, against a device whose limit is known."""

import torch
from hypothesis import example, given
from hypothesis import strategies as st
from vithub.training.recipe.recipe import Recipe
from vithub.training.trial.search import Trials
from vithub.training.trial.step_memory import StepMemory
from vithub.training.trial.steps import possible_parts

SIZES = st.sets(st.integers(1, 2000), min_size=1, max_size=24).map(sorted)


@given(SIZES, st.integers(0, 2500), st.booleans())
@example([1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 96], 32, True)  # between two halvings
def test_going_down_finds_the_largest_that_fits_whether_memory_runs_out_or_is_over_the_budget(sizes, most, raises):
    def trial(images):
        if raises and images > most:
            raise torch.OutOfMemoryError
        return images

    trials = Trials(trial, most)
    assert trials.descend(sizes) == max((size for size in sizes if size <= most), default=None)
    tried = [one.images for one in trials.done]
    assert len(tried) == len(set(tried))
    assert [one.fits for one in trials.done] == [images <= most for images in tried]


def test_going_down_tries_halves_before_what_lies_between():
    def trial(images):
        if images > 40:
            raise torch.OutOfMemoryError
        return images

    trials = Trials(trial, 10**9)
    assert trials.descend([1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 96]) == 32
    assert [one.images for one in trials.done] == [96, 48, 24, 32]


@given(SIZES, st.integers(0, 5000), st.integers(1, 50), st.integers(0, 10**5))
def test_going_up_never_asks_the_host_for_more_than_the_budget(sizes, fixed, each, budget):
    asked = []

    def trial(images):
        asked.append(fixed + each * images)
        return asked[-1]

    trials = Trials(trial, budget)
    found = trials.ascend(sizes)
    assert all(needed <= budget for needed in asked[1:])  # the first is not known before
    assert found == (None if asked[0] > budget else sizes[len(asked) - 1])
    if fixed == 0 and found is not None:
        assert found == max(size for size in sizes if each * size <= budget)


@given(st.integers(1, 96), st.integers(1, 200), st.booleans(), st.integers(1, 4))
def test_every_division_leaves_the_batch_as_it_is(batch, images, mixes, parts):
    pair = 2 if mixes else 1
    unit = pair * parts
    wanted = batch * unit
    recipe = Recipe.from_dict({
        "training": {"batch_size": wanted, "accumulation": parts, "label_smoothing": 0.0},
        "augmentation": {"mixup": 0.8 if mixes else 0.0},
    })  # fmt: skip
    size = min(wanted, images // unit * unit)
    if size == 0:
        return
    found = possible_parts(recipe, size, images)
    assert parts in found
    assert found == sorted(set(found))
    for count in found:
        assert size % (count * pair) == 0
        assert recipe.with_values({"training.accumulation": count}).training.batch_size == wanted
        assert min(wanted, images // (count * pair) * (count * pair)) == size


def test_the_memory_of_a_step_is_what_it_takes_at_its_peak():
    memory = StepMemory(torch.device("cpu"))
    memory.begin()
    block = torch.ones(40 * 2**20)  # 160 MiB
    del block
    assert memory.needed() > 150 * 2**20
    memory.begin()
    assert memory.needed() < 80 * 2**20
    assert 0 < memory.budget < memory.available
