"""YAML of strangers: a key that is there twice, and aliases that stand for more than memory holds."""

import pytest
import yaml
from vithub.data.text.yaml_reading import read_plain_yaml
from vithub.training.recipe.presets import read_recipe
from vithub.training.recipe.recipe import RecipeError


def bomb(depth):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    return "\n".join(lines + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, depth)])


def test_a_key_that_is_there_twice_is_named_with_its_line():
    with pytest.raises(yaml.YAMLError, match=r"'epochs' is stated twice; state it once(.|\n)*line 3"):
        read_plain_yaml("training:\n  epochs: 3\n  epochs: 30\n")
    assert read_plain_yaml("a: {epochs: 3}\nb: {epochs: 30}") == {"a": {"epochs": 3}, "b": {"epochs": 30}}


def test_aliases_may_repeat_but_not_without_bound():
    assert read_plain_yaml("a: &a [1, 2]\nb: *a") == {"a": [1, 2], "b": [1, 2]}
    assert len(read_plain_yaml(bomb(4))) == 4
    for text in (bomb(40), "a: &a [*a]"):
        with pytest.raises(yaml.YAMLError, match=r"aliases stand for more than 1000000 values|nested too deeply"):
            read_plain_yaml(text)


def test_merged_mappings_may_be_overridden():
    text = "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}"
    assert read_plain_yaml(text)["b"] == {"x": 1, "y": 3}


def test_a_recipe_that_states_a_field_twice_is_refused(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text("preset: from-scratch-small\ntraining:\n  epochs: 3\n  lr: 0.1\n  epochs: 300\n")
    with pytest.raises(RecipeError, match=r"recipe\.yaml is no readable recipe: 'epochs' is stated twice"):
        read_recipe(file)
