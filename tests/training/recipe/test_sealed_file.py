import os
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vithub.hub.checkpoints import CheckpointError
from vithub.training.recipe.presets import preset, preset_names, read_recipe
from vithub.training.recipe.recipe import Recipe, RecipeError
from vithub.training.recipe.run_data import run_data
from vithub.training.recipe.sealed_file import HEAD, seal, unseal
from vithub.training.recipe.yaml_text import write_yaml
from vithub.training.run_folder import read_run_recipe, write_recipe

RECIPE = Recipe().with_values({"training.epochs": 77, "data.source": "photos/\u00fc", "training.lr": 1e-5})
WHOLE = seal(RECIPE.to_yaml()).encode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("run")


def test_no_cut_of_the_file_is_read_as_another_recipe(folder):
    file = folder / "recipe.yaml"
    for length in range(len(WHOLE)):
        file.write_bytes(WHOLE[:length])
        with pytest.raises(RecipeError, match=r"recipe\.yaml"):
            read_run_recipe(folder)
        if length < len(WHOLE) - 1:  # without the end of the last line it is still the whole recipe
            with pytest.raises(RecipeError, match=r"recipe\.yaml"):
                Recipe.from_yaml(file)
            with pytest.raises(CheckpointError, match=r"recipe\.yaml"):
                run_data(folder)
    assert run_data(folder) == RECIPE.data
    assert Recipe.from_yaml(file) == RECIPE


@given(place=st.integers(0, len(WHOLE) - 1), bit=st.integers(0, 7))
def test_a_run_with_one_flipped_bit_in_its_recipe_is_not_resumed(place, bit, folder):
    changed = bytearray(WHOLE)
    changed[place] ^= 1 << bit
    (folder / "recipe.yaml").write_bytes(changed)
    if place < len(HEAD):  # it may be a recipe without a seal then, which is whole
        with suppress(RecipeError):
            assert read_run_recipe(folder) == RECIPE
    else:
        with pytest.raises(RecipeError, match=r"recipe\.yaml"):
            read_run_recipe(folder)


def test_what_is_written_is_read_back_and_a_person_sees_the_recipe_alone(folder):
    write_recipe(folder, RECIPE)
    assert (folder / "recipe.yaml").read_bytes() == WHOLE
    assert read_run_recipe(folder) == Recipe.from_yaml(folder / "recipe.yaml") == RECIPE
    assert unseal(WHOLE.decode()) == RECIPE.to_yaml()


def test_a_new_run_may_begin_from_an_edited_recipe_and_a_resumed_one_may_not(folder):
    text = WHOLE.decode().replace("epochs: 77", "epochs: 78")
    (folder / "recipe.yaml").write_text(text, encoding="utf-8")
    assert Recipe.from_yaml(folder / "recipe.yaml").training.epochs == 78
    with pytest.raises(RecipeError, match="not what the run wrote"):
        read_run_recipe(folder)


def test_recipes_of_older_runs_have_no_checksum_and_are_read(folder):
    (folder / "recipe.yaml").write_text(RECIPE.to_yaml(), encoding="utf-8")
    assert read_run_recipe(folder) == RECIPE


@pytest.mark.parametrize("name", preset_names())
def test_a_file_of_few_fields_begins_from_the_preset_that_it_names(name, folder):
    file = folder / "mine.yaml"
    file.write_text(f"preset: {name}\ntraining: {{lr: 1e-7}}\nmodel: {{fields: {{hidden_act: relu}}}}\n")
    stated = {"training.lr": 1e-7, "model.fields.hidden_act": "relu"}
    assert read_recipe(file) == preset(name).with_values(stated)


def test_a_file_of_few_fields_without_a_preset_begins_from_the_defaults(folder):
    file = folder / "mine.yaml"
    file.write_text("training: {lr: 1e-7}\n")
    assert read_recipe(file) == Recipe().with_values({"training.lr": 1e-7})


@pytest.mark.parametrize("named", ["finetun", "my own"])
def test_a_file_of_few_fields_must_name_a_preset_that_there_is(named, folder):
    file = folder / "mine.yaml"
    file.write_text(f"preset: {named}\n")
    with pytest.raises(RecipeError, match=rf"mine\.yaml: .*no '{named}'; there are .*finetune"):
        read_recipe(file)


@pytest.mark.parametrize("sealed", [True, False])
def test_a_recipe_of_a_run_is_taken_as_it_is_whatever_its_preset_holds_today(sealed, folder):
    """Also that of an old run, which lacks the sections that came later and has no seal."""
    recipe, file = Recipe().with_values({"preset": "detr-small-data", "training.lr": 1e-7}), folder / "mine.yaml"
    content = recipe.model_dump(mode="json")
    for later in ("task", "boxes", "lora", "distillation"):
        del content[later]
    for later in ("optimizer", "schedule", "decay_all", "backbone_lr"):
        del content["training"][later]
    text = write_yaml(content)
    file.write_text(seal(text) if sealed else text, encoding="utf-8")
    assert read_recipe(file) == recipe


def test_a_file_is_seen_whole_or_not_at_all_while_it_is_replaced(folder, monkeypatch):
    write_recipe(folder, RECIPE)
    other, seen, sync = RECIPE.with_values({"training.epochs": 5}), [], os.fsync

    def watched(descriptor):
        seen.append(read_run_recipe(folder))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    write_recipe(folder, other)
    assert seen == [RECIPE]
    assert read_run_recipe(folder) == other
