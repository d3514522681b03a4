"""Every option of a recipe changes the run of every task, or is refused by name."""

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
import transformers
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, List, Value
from vithub.data.digits import digits_dataset
from vithub.training.finetuning import finetune
from vithub.training.loop.accelerate_loop import AccelerateLoop
from vithub.training.recipe.effects import NEEDS, NEEDS_EVEN_IN_A_PRESET, check_effects
from vithub.training.recipe.presets import preset, preset_names
from vithub.training.recipe.recipe import Recipe, RecipeError, field_names
from vithub.training.recipe.task_options import UNKNOWN_TO
from vithub.training.runtime.progress import QuietReporter
from vithub.training.tasks.registry import build_task

import vithub

from .option_effects import ALSO, CASES, ENTRIES, OTHER_VALUES, REFUSED, Changes

BEGUN_AS = {"classification": "from-scratch-small", "detection": "detr-small-data", "pretraining": "pretrain-mae"}
TASKS = Path(__file__).parents[3] / "training" / "tasks"


def test_every_option_has_an_entry_for_every_task():
    tasks = {folder.name for folder in TASKS.iterdir() if (folder / "kind.py").is_file()}
    assert set(ENTRIES) == tasks <= set(UNKNOWN_TO)
    for task in tasks:
        assert set(ENTRIES[task]) == set(field_names()), task


def test_the_tables_name_options_that_there_are():
    known = set(field_names())
    sections = {f"{name.rpartition('.')[0]}.*" for name in known}
    assert all(set(table) <= known | sections for table in UNKNOWN_TO.values())
    assert all(set(names) <= known for _, names in (*NEEDS, *NEEDS_EVEN_IN_A_PRESET))
    places = {place for table in UNKNOWN_TO.values() for place in table.values() if place}
    for place in places - {"augmentation.*"}:
        for name in place.split(" and "):
            assert name in known or name.startswith("model.fields."), place


@pytest.mark.parametrize(("task", "name"), [case for case in CASES if ENTRIES[case[0]][case[1]] == REFUSED])
def test_an_option_without_effect_is_refused_by_name_and_value(task, name, tmp_path):
    value = OTHER_VALUES.get(name, other_number(name))
    begun_as = BEGUN_AS[task]
    with pytest.raises(RecipeError) as caught:
        finetune(data="digits", output=tmp_path / "run", preset=begun_as, values={name: value} | ALSO.get(name, {}))
    assert f"{name} {value!r} has no effect" in str(caught.value)
    if name in UNKNOWN_TO[task]:
        assert f"on task {task}" in str(caught.value)
        assert UNKNOWN_TO[task][name] is None or f"use {UNKNOWN_TO[task][name]}" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def other_number(name):
    """A number that the field takes and that is not its default."""
    default = field_names()[name][0]
    if isinstance(default, tuple):
        return tuple(value / 2 for value in default)
    if default is None or isinstance(default, str):
        return "main"
    return default + 1 if isinstance(default, int) else default / 2 or 0.25


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The data sets, models and files that the entries name, for each task."""
    folder = tmp_path_factory.mktemp("made")
    torch.manual_seed(0)
    names = {"id2label": dict(enumerate("01234"))}
    size = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    teacher = vithub.HubViTForImageClassification(vithub.HubViTConfig(image_size=12, patch_size=4, **size, **names))
    teacher.save_pretrained(folder / "teacher")
    vithub.data.image_processing.build_image_processor((12, 12)).save_pretrained(folder / "teacher")
    backbone = transformers.ResNetForImageClassification(
        transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16, 16, 32], depths=[1, 1, 1, 1],
                                  layer_type="basic")
    )  # fmt: skip
    backbone.save_pretrained(folder / "backbone")
    vithub.data.image_processing.build_image_processor((32, 32)).save_pretrained(folder / "backbone")
    labelled = labelled_sources()
    sources = {"classification": labelled, "detection": boxed_sources(), "pretraining": labelled}
    return sources, {"TEACHER": str(folder / "teacher"), "BACKBONE": str(folder / "backbone")}


def labelled_sources():
    digits = digits_dataset()
    chosen = np.flatnonzero(np.asarray(digits["label"]) < 5)
    rows = [digits[int(row)] for row in chosen[:60]]

    def table(rows, **more):
        kinds = {
            "image": Image(),
            "label": ClassLabel(names=list("01234")),
            **{name: kind for name, (kind, _) in more.items()},
        }
        columns = {"image": [r["image"] for r in rows], "label": [r["label"] for r in rows]}
        return Dataset.from_dict(columns | {n: values for n, (_, values) in more.items()}, features=Features(kinds))

    turned = [row["image"].rotate(90) for row in rows]
    return {
        "USUAL": table(rows),
        "OTHER": table(rows[::-1][:40]),
        "COLUMNS": table(rows, second=(Image(), turned),
                         other_label=(ClassLabel(names=list("01234")), [r["label"] for r in rows[::-1]])),
        "SPLITS": DatasetDict({"train": table(rows[:30]), "first": table(rows[15:]), "validation": table(rows[30:45]),
                               "second": table(rows[20:50]), "test": table(rows[45:])}),
        "DAMAGED": damaged(table(rows)),
    }  # fmt: skip


def damaged(table):
    """The table with every fourth image cut short."""
    encoded = table.cast_column("image", Image(decode=False))
    rows = [dict(row) for row in encoded]
    for row in rows[::4]:
        row["image"] = {"bytes": row["image"]["bytes"][:60], "path": None}
    columns = {name: [row[name] for row in rows] for name in table.column_names}
    return Dataset.from_dict(columns, features=encoded.features)


def boxed_sources():
    def table(seed, count=14, **more):
        draws, images, second, objects, others = np.random.default_rng(seed), [], [], [], []
        for number in range(count):
            pixels = draws.integers(0, 255, (64, 48 + 16 * (number % 2), 3)).astype(np.uint8)
            images.append(PIL.Image.fromarray(pixels))
            second.append(PIL.Image.fromarray(pixels[:, ::-1]))
            boxes = [[float(draws.integers(10, 20)), float(draws.integers(10, 20)), 20.0, 16.0] for _ in range(2)]
            objects.append({"bbox": boxes, "category": [0, 1]})
            others.append({"bbox": boxes[:1], "category": [number % 2]})
        kind = {"bbox": List(List(Value("float64"))), "category": List(ClassLabel(names=["red", "blue"]))}
        columns: dict[str, Any] = {"image": images, "objects": objects}
        kinds: dict[str, Any] = {"image": Image(), "objects": kind}
        if more:
            columns |= {"second": second, "other_objects": others}
            kinds |= {"second": Image(), "other_objects": kind}
        return Dataset.from_dict(columns, features=Features(kinds))

    return {
        "USUAL": table(0),
        "OTHER": table(1),
        "COLUMNS": table(0, columns=True),
        "SPLITS": DatasetDict({name: table(seed, 8) for seed, name in
                               enumerate(["train", "first", "validation", "second", "test"])}),
        "DAMAGED": damaged(table(0)),
    }  # fmt: skip


@pytest.fixture(scope="module")
def usual(quick, quick_detector, quick_pretraining):
    """A run of a few steps of each task, in which every option can show that it does something."""
    classifier = quick(
        {
            "augmentation.crop": "random_resized",
            "evaluation.crop_ratio": 0.875,
            "training.batch_size": 8,
            "training.warmup": 0,
        }
    )
    # what a detector's loss is divided by makes its gradients large: without clipping all steps count
    detector = quick_detector({"training.epochs": 2, "training.batch_size": 4, "training.clip_norm": None,
                               "model.fields.encoder_layers": 1, "training.schedule": "cosine",
                               "training.warmup": 0, "training.backbone_lr": None, "training.decay_all": False,
                               "model.image_size": 48, "boxes.sides": (480, 640, 800)})  # fmt: skip
    del detector["model.backbone_stride"]
    backbone = quick_pretraining(values={"augmentation.crop": "random_resized", "evaluation.crop_ratio": 0.875,
                                         "training.batch_size": 8, "training.warmup": 0})  # fmt: skip
    return {
        "classification": (Recipe(), classifier),
        "detection": (preset("detr"), detector),
        "pretraining": (preset("pretrain-mae"), backbone),
    }


@pytest.fixture(scope="module")
def outcome(made, usual, tmp_path_factory):
    """What a run comes to, with some values: its weights, its figures and the names of its files."""
    known: dict[str, dict[str, Any]] = {}

    def run(task, values, seen):
        key = repr((task, sorted(values.items()), seen == "figures"))
        if key not in known:
            known[key] = trained(task, values, seen)
        return known[key][seen]

    def trained(task, values, seen):
        sources, places = made
        begun, rest = usual[task]
        values = {name: places.get(value, value) if isinstance(value, str) else value for name, value in values.items()}
        source = values.pop("data.source", "USUAL")
        usual_values = dict(rest) | {"data.source": "a Dataset in memory"}
        if source == "SPLITS":
            del usual_values["data.test_fraction"]
            if task == "classification":
                usual_values["data.on_leakage"] = "warn"  # the splits share images
        if "model.fields" in values:
            values["model.fields"] = usual_values["model.fields"] | values["model.fields"]
        if values.get("pretraining.method", "mae") != "mae":  # the small decoder is MAE's
            usual_values = {name: value for name, value in usual_values.items() if ".decoder_" not in name}
        recipe = begun.with_values(usual_values | values)
        check_effects(recipe, set(values))
        folder = tmp_path_factory.mktemp("run")
        try:
            built = build_task(recipe, sources[task][source])
            done = AccelerateLoop(built, folder, QuietReporter()).run()
        except ValueError as error:
            return {"weights": str(error), "figures": str(error), "files": str(error)}
        figures = ("validation_loss", "train_loss", "epoch")
        built.finish(None)
        final = built.evaluate(built.model, "test", done.accelerator, QuietReporter()) if seen == "figures" else None
        return {
            "weights": {name: tensor.clone() for name, tensor in built.model.state_dict().items()},
            "figures": [[entry[name] for name in figures] for entry in done.record.progress.history]
            + [final and final.values],
            "files": sorted(path.relative_to(folder).as_posix().partition("tfevents")[0] for path in folder.rglob("*")),
        }

    return run


@pytest.mark.parametrize(("task", "name"), [case for case in CASES if isinstance(ENTRIES[case[0]][case[1]], Changes)])
def test_an_option_changes_the_run(task, name, outcome):
    entry = ENTRIES[task][name]
    given = dict(entry.given)
    before, after = (outcome(task, values, entry.seen) for values in (given, given | {name: entry.value}))
    if entry.seen == "weights" and not isinstance(before, str) and not isinstance(after, str):
        same = before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
        assert not same
    else:
        assert before != after


@pytest.mark.parametrize("name", preset_names())
def test_every_option_of_a_preset_has_an_effect(name):
    needed = {
        "deit-distilled": {"distillation.teacher": "x/y"},
        "detr-small-data": {"model.backbone": "x/y"},
        "detr-pretrained": {"model.source": "x/y"},
        "pretrain-features": {"distillation.teacher": "x/y"},
    }
    recipe = preset(name).with_values(needed.get(name, {}))
    check_effects(recipe, set(field_names()) - {"preset"})


def test_a_preset_for_a_teacher_needs_one(tmp_path):
    with pytest.raises(RecipeError, match=r"distillation\.through 'token' has no effect without distillation\.teacher"):
        finetune(preset="deit-distilled", output=tmp_path / "run")


def test_what_a_preset_holds_may_lose_its_effect_and_what_is_added_may_not():
    recipe = preset("detr").with_values({"training.schedule": "cosine"})
    check_effects(recipe, {"training.schedule"})  # the preset's step_epochs are forgotten
    with pytest.raises(RecipeError, match=r"training\.step_epochs 9 has no effect unless training\.schedule is step"):
        check_effects(recipe.with_values({"training.step_epochs": 9}), {"training.step_epochs"})
    with pytest.raises(RecipeError, match=r"training\.step_epochs 200 has no effect"):
        check_effects(recipe, {"training.step_epochs"})


def test_a_value_that_is_the_default_is_never_refused():
    defaults = {name: default for name, (default, _) in field_names().items()}
    for task in ENTRIES:
        given = {name: value for name, value in defaults.items() if name != "task"}
        check_effects(Recipe(task=task).with_values(given), set(given))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"training.momentum": 0.5}, "momentum 0.5 has no effect unless training.optimizer is sgd or muon"),
        ({"training.optimizer": "sgd", "training.betas": [0.8, 0.9]}, r"betas \(0.8, 0.9\) has no effect unless"),
        ({"training.schedule": "constant", "training.min_lr": 1e-4}, "min_lr 0.0001 has no effect unless"),
        ({"training.warmup": 0, "training.warmup_unit": "steps"}, "warmup_unit 'steps' has no effect without"),
        ({"training.ema_warmup": False}, "ema_warmup False has no effect without training.ema_decay"),
        ({"training.weight_decay": 0, "training.decay_all": True}, "decay_all True has no effect without"),
        ({"training.freeze": "backbone", "training.layer_decay": 0.5}, "layer_decay 0.5 .* with training.freeze backb"),
        ({"training.freeze": "backbone", "training.head_first_epochs": 5}, "head_first_epochs 5 .* training.freeze ba"),
        (
            {"data.streaming": True, "training.max_steps": 5, "training.head_first_epochs": 5},
            "head_first_epochs 5 has no effect with data.streaming",
        ),
        ({"augmentation.mixup": 0.8, "augmentation.mix_switch": 0.1}, "mix_switch 0.1 .* without augmentation.cutmix"),
        ({"augmentation.crop": "padded", "augmentation.scale": [0.5, 1]}, r"scale \(0.5, 1.0\) has no effect unless"),
        ({"augmentation.crop": "padded", "augmentation.interpolation": "random"}, "interpolation 'random' has no eff"),
        ({"augmentation.rand_augment": "rand-m9", "augmentation.color_jitter": 0.4}, "color_jitter 0.4 .* with augm"),
        ({"distillation.teacher": "x/y", "distillation.temperature": 3}, "temperature 3.0 .* distillation.kind is"),
        ({"data.streaming": True, "training.max_steps": 5, "training.epochs": 3}, "epochs 3 .* with data.streaming"),
        ({"data.streaming": True, "training.max_steps": 5, "data.split_seed": 3}, "split_seed 3 .* with data.stream"),
        ({"data.revision": "main"}, "data.revision 'main' has no effect unless data.source is a Hub id"),
        ({"data.cache": "memory", "training.epochs": 1}, "cache 'memory' has no effect where each image is read once"),
        (
            {"data.cache": "memory", "training.freeze": "backbone", "augmentation.crop": "none",
             "augmentation.horizontal_flip": 0},
            "cache 'memory' has no effect where each image is read once",
        ),
        ({"data.cache": "memory", "data.streaming": True, "training.max_steps": 5}, "cache 'memory' .* with data.stre"),
        ({"lora.alpha": 3, "seed": 2}, r"^lora\.alpha 3 has no effect without lora\.rank$"),
    ],
)  # fmt: skip
def test_an_option_that_another_one_switches_off_is_refused(values, message):
    with pytest.raises(RecipeError, match=message):
        check_effects(Recipe().with_values(values), set(values))


@pytest.mark.parametrize("task", ["classification", "detection"])
@pytest.mark.parametrize(
    "values", [{"data.validation_fraction": 0.3}, {"data.test_fraction": 0.3}, {"data.split_seed": 5}]
)
def test_a_draw_of_splits_that_the_data_has_is_refused(task, values, made, usual):
    ((name, value),) = values.items()
    begun, rest = usual[task]
    recipe = begun.with_values({name: value for name, value in rest.items() if name != "data.test_fraction"} | values)
    with pytest.raises(RecipeError, match=rf"{name} {value} has no effect: the data has"):
        build_task(recipe, made[0][task]["SPLITS"])
