import re

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from vithub.training.recipe.presets import preset, preset_names, preset_text
from vithub.training.recipe.recipe import Recipe, RecipeError, field_names

finite = st.floats(allow_nan=False, allow_infinity=False, width=64)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | finite | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
recipes = st.builds(
    lambda **values: Recipe().with_values({name.replace("__", "."): value for name, value in values.items()}),
    seed=st.integers(0, 2**63),
    model__source=st.text(min_size=1) | st.sampled_from(["1e3", "on", "null", "~", "0123", "2001-01-01", "a: b", "'"]),
    model__image_size=st.none() | st.integers(1, 999) | st.tuples(st.integers(1, 999), st.integers(1, 999)),
    model__fields=st.dictionaries(st.text(max_size=5), plain, max_size=3),
    data__label_column=st.none() | st.text(),
    data__validation_fraction=st.floats(0, 1, exclude_max=True),
    augmentation__scale=st.tuples(st.floats(0.01, 0.5), st.floats(0.5, 1)),
    augmentation__rand_augment=st.none() | st.just("rand-m9-mstd0.5-inc1"),
    training__lr=st.floats(5e-324, 1e300),
    training__min_lr=st.floats(0, 1e-3),
    training__betas=st.tuples(st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True)),
    training__clip_norm=st.none() | st.floats(1e-9, 1e9),
    training__early_stop=st.none() | st.integers(1, 99),
)


@given(recipe=recipes)
@example(
    recipe=Recipe().with_values({"data.label_column": "next\x85line", "model.fields": {"\x85": ["\u2028\n\u2029"]}})
)
def test_a_recipe_comes_back_from_its_file_as_it_was(recipe, tmp_path_factory):
    file = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    file.write_text(recipe.to_yaml(), encoding="utf-8")
    assert Recipe.from_yaml(file) == recipe
    assert Recipe.from_yaml(file).to_yaml() == recipe.to_yaml()


def test_a_pair_among_the_model_fields_comes_back_as_it_was(tmp_path):
    recipe = Recipe().with_values({"model.fields.patch_size": (4, 2)})
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    assert Recipe.from_yaml(tmp_path / "recipe.yaml") == recipe


def test_a_saved_recipe_states_every_field():
    content = yaml.safe_load(Recipe().to_yaml())

    def leaves(model, prefix=""):
        for name, info in model.model_fields.items():
            inner = info.annotation
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                yield from leaves(inner, f"{prefix}{name}.")
            else:
                yield prefix + name

    for name in leaves(Recipe):
        place = content
        for part in name.split("."):
            assert part in place, name
            place = place[part]
    assert set(leaves(Recipe)) == set(field_names())


def test_values_replace_and_leave_the_rest():
    recipe = Recipe()
    changed = recipe.with_values(
        {"training.lr": 1e-3, "model.fields.drop_path_rate": 0.2, "seed": 7, "training.betas": [0.8, 0.95]}
    )
    assert (changed.training.lr, changed.seed, changed.training.betas) == (1e-3, 7, (0.8, 0.95))
    assert changed.model.fields == {"drop_path_rate": 0.2}
    assert recipe == Recipe()
    assert recipe.model.fields == {}
    put_back = {"training.lr": recipe.training.lr, "model.fields": {}, "seed": 0, "training.betas": (0.9, 0.999)}
    assert changed.with_values(put_back) == recipe


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"training.learning_rat": 1}, "no recipe field 'training.learning_rat'"),
        ({"training.warm_up": 1}, "no recipe field 'training.warm_up'; did you mean training.warmup"),
        ({"trainin.lr": 1}, "no recipe field 'trainin.lr'; did you mean training.lr"),
        ({"lr": 1}, r"no recipe field 'lr'; did you mean .*training\.lr"),
        ({"epochs": 1}, "no recipe field 'epochs'; did you mean training.epochs"),
        ({"training.lr.x": 1}, "no recipe field 'training.lr.x'"),
        ({"training.learning_rate": 1}, r"no recipe field 'training.learning_rate'; did you mean training\.lr\?"),
        ({"training.warmup_steps": 1}, r"did you mean training\.warmup\?"),
        ({"augmentation.hflip": 1}, r"did you mean augmentation\.horizontal_flip\?"),
        ({"boxes.hflip": 1}, r"did you mean boxes\.horizontal_flip\?"),
        ({"gradient_accumulation_steps": 1}, r"did you mean training\.accumulation\?"),
        ({"seed": 2**64}, rf"seed: .*less than or equal to {2**64 - 1}, got {2**64}"),
        ({"data.split_seed": 2**64}, r"data\.split_seed: .*less than or equal to"),
        ({"data.workers": 10**6}, r"data\.workers: .*less than or equal to 1024, got 1000000"),
        ({"lora.rank": 10**6}, r"lora\.rank: .*less than or equal to 4096, got 1000000"),
        ({"model.image_size": 10**9}, r"model\.image_size.*less than or equal to 65536, got 1000000000"),
        ({"training.batch_size": 10**12}, r"training\.batch_size: .*less than or equal to"),
        (
            {"augmentation.scale": [1.0, 0.08]},
            r"augmentation\.scale: .*least and then the most, 1.0 is more than 0.08, got \[1.0, 0.08\]",
        ),
        ({"augmentation.scale": [0.5, 2.0]}, r"augmentation\.scale\.1: .*less than or equal to 1, got 2.0"),
        ({"augmentation.scale": [0.0, 1.0]}, r"augmentation\.scale\.0: .*greater than 0, got 0.0"),
        ({"augmentation.ratio": [2.0, 0.5]}, r"augmentation\.ratio: .*least and then the most"),
        ({"augmentation.ratio": [-1.0, 0.5]}, r"augmentation\.ratio\.0: .*got -1.0"),
        ({"boxes.crop_size": [600, 384]}, r"boxes\.crop_size: .*least and then the most, 600 is more than 384"),
        ({"boxes.sides": [10**9]}, r"boxes\.sides\.0: .*less than or equal to"),
        ({"zzz": 1}, "no recipe field 'zzz'; .*--help"),
        ({"training.lr": -1}, r"training\.lr: .*greater than 0, got -1"),
        ({"training.lr": "fast"}, r"training\.lr: .*number.*, got 'fast'"),
        ({"training.epochs": 0}, r"training\.epochs: .*greater than or equal to 1, got 0"),
        ({"training.epochs": 1.5}, r"training\.epochs: .*integer.*, got 1.5"),
        ({"training.precision": "fp64"}, r"training\.precision: .*'auto', 'fp32', 'bf16' or 'fp16', got 'fp64'"),
        ({"training.label_smoothing": 1}, r"training\.label_smoothing: .*less than 1, got 1"),
        ({"training.betas": [0.9]}, r"training\.betas.*"),
        ({"augmentation.horizontal_flip": 1.5}, r"augmentation\.horizontal_flip: .*less than or equal to 1, got 1.5"),
        ({"evaluation.crop_ratio": 0}, r"evaluation\.crop_ratio: .*greater than 0, got 0"),
        ({"training": 3}, r"training: .*, got 3"),
        ({"model.fields": {"hidden_act": print}}, r"model\.fields: must be plain data"),
        ({"model.fields": [1]}, r"model\.fields: .*, got \[1\]"),
        ({"training.batch_size": 10, "training.accumulation": 4}, "training.batch_size 10 .*training.accumulation 4"),
        ({"training.batch_size": 5, "augmentation.mixup": 0.8}, "must be even to mix images, got 5"),
    ],
)
def test_a_wrong_field_or_value_is_named(values, message):
    with pytest.raises(RecipeError, match=message):
        Recipe().with_values(values)


@pytest.mark.parametrize("value", [float("inf"), float("nan"), -float("inf")])
@pytest.mark.parametrize("name", ["training.lr", "training.weight_decay", "training.warmup", "training.clip_norm"])
def test_numbers_must_be_finite(name, value):
    with pytest.raises(RecipeError, match=name.replace(".", r"\.")):
        Recipe().with_values({name: value})


def test_every_problem_is_told_at_once():
    with pytest.raises(RecipeError) as caught:
        Recipe().with_values({"training.lr": 0, "data.workers": -1, "seed": -3})
    assert all(name in str(caught.value) for name in ("training.lr", "data.workers", "seed"))
    assert "\n" not in str(caught.value)


def test_settings_are_checked_when_they_are_set():
    recipe = Recipe()
    with pytest.raises(ValidationError):
        recipe.training.lr = -1.0
    with pytest.raises(ValidationError):
        recipe.training.lerning_rate = 1.0
    assert recipe == Recipe()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("training: {lr: -1}", r"training\.lr: .*, got -1"),
        ("training: {learning_rate: 1}", r"'training\.learning_rate'"),
        ("trainig: {lr: 1}", "'trainig'"),
        ("[1, 2]", "must hold a recipe, got list"),
        ("", "must hold a recipe, got NoneType"),
        ("a: [1", "no readable recipe"),
        ("seed: &a 1\nmodel: !!python/object/apply:os.getcwd []", "no readable recipe"),
    ],
)
def test_a_wrong_file_is_named_with_what_is_wrong_in_it(tmp_path, text, message):
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(RecipeError, match=r"mine\.yaml.*" + message):
        Recipe.from_yaml(file)


def test_a_missing_file_and_one_that_is_no_text_are_named(tmp_path):
    with pytest.raises(RecipeError, match=r"nothing\.yaml"):
        Recipe.from_yaml(tmp_path / "nothing.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(RecipeError, match=r"binary\.yaml"):
        Recipe.from_yaml(tmp_path / "binary.yaml")


def test_numbers_as_people_write_them_in_a_file(tmp_path):
    # YAML 1.1 takes 1e-3, without a point, for text
    (tmp_path / "recipe.yaml").write_text(
        "training: {lr: 1e-3, betas: [9e-1, 0.99]}\nmodel: {fields: {layer_norm_eps: 1e-6, hidden_act: relu}}"
    )
    recipe = Recipe.from_yaml(tmp_path / "recipe.yaml")
    assert (recipe.training.lr, recipe.training.betas) == (1e-3, (0.9, 0.99))
    assert recipe.model.fields == {"layer_norm_eps": 1e-6, "hidden_act": "relu"}


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_opens_with_its_command_time_and_accuracy(name):
    opening = [line for line in preset_text(name).splitlines() if line.startswith("#")]
    assert preset_text(name).startswith("# ")
    assert any(re.match(r"# Command:\s+(vithub|accelerate launch) ", line) for line in opening)
    for figure in ("Time", "Accuracy"):
        (line,) = (line for line in opening if line.startswith(f"# {figure}:"))
        assert re.search(r"\d|not measured", line), line


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_a_recipe_that_bears_its_name_and_comes_back_from_its_file(name, tmp_path):
    recipe = preset(name)
    assert recipe.preset == name
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    assert Recipe.from_yaml(tmp_path / "recipe.yaml") == recipe


def test_an_unknown_preset_is_named_with_those_there_are():
    with pytest.raises(RecipeError, match=r"'swin'.*digits.*finetune"):
        preset("swin")


NUMBERS = [name for name, (default, _) in field_names().items() if type(default) in (int, float, tuple)]


@pytest.mark.parametrize("name", [*NUMBERS, "training.max_steps", "training.clip_norm", "lora.rank", "training.freeze"])
def test_true_and_false_are_no_numbers(name):
    for value in (True, False, [True, 0.5]):
        with pytest.raises(RecipeError, match=re.escape(f"{name} takes no true or false, got ")):
            Recipe().with_values({name: value})


def test_true_and_false_are_for_the_fields_that_take_them():
    chosen = Recipe().with_values(
        {"training.ema_warmup": False, "model.fields": {"qkv_bias": False, "sizes": [True]}, "model.compile": 1}
    )
    assert chosen.training.ema_warmup is False
    assert chosen.model.fields == {"qkv_bias": False, "sizes": [True]}
    assert chosen.model.compile is True


@pytest.mark.parametrize(
    ("value", "reason"),
    [("[" * 3000, "nested too deeply"), ("9" * 6000, "cannot be read"), ("2020-13-45", "cannot be read")],
)
def test_values_that_yaml_cannot_hold_are_one_line_that_names_the_file(value, reason, tmp_path):
    (tmp_path / "recipe.yaml").write_text(f"seed: {value}\n")
    with pytest.raises(RecipeError, match=rf"recipe\.yaml.*{reason}"):
        Recipe.from_yaml(tmp_path / "recipe.yaml")
