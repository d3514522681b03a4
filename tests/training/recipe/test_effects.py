"""Every option of a recipe changes the run of every task, or is refused by name."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

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


class Changes(NamedTuple):
    """A value that makes another run.

    Args:
        value: Of the field.
        given: What both runs have besides.
        seen: Where the difference is: "weights" (and all that follows from them), "figures" or "files".
    """

    value: Any
    given: Mapping[str, Any] = MappingProxyType({})
    seen: str = "weights"


class Stated(NamedTuple):
    """A field whose effect no number or file of a run of a few steps can show: where it shows, and what tests it."""

    reason: str


REFUSED = "refused"
MIXED = {"augmentation.mixup": 0.8, "augmentation.cutmix": 1.0}
TAUGHT = {"distillation.teacher": "TEACHER"}
FIRST = {"training.steps_per_epoch": 2, "training.max_steps": 4, "data.streaming": True}
# What is the same for every task: the loop's options.
LOOP = {
    "task": Stated("chooses between the two tables of this test"),
    "preset": REFUSED,
    "model.activation_checkpointing": Stated("memory and time; test_front_ends holds the losses equal"),
    "model.compile": Stated("time; test_compiled_training"),
    "model.revision": REFUSED,
    "data.revision": REFUSED,
    "data.workers": Stated("time; test_many_processes holds the losses equal"),
    "data.validation_fraction": Changes(0.5),
    "data.test_fraction": Changes(0.5),
    "data.split_seed": Changes(1),
    "data.on_bad_image": Changes("skip", {"data.source": "DAMAGED"}),
    "data.max_bad_share": Changes(0.9, {"data.source": "DAMAGED", "data.on_bad_image": "skip"}),
    "augmentation.repeats": Changes(2),
    "training.epochs": Changes(1),
    "training.max_steps": Changes(3),
    "training.batch_size": Changes(2),
    "training.accumulation": Stated("memory; test_front_ends holds the losses equal"),
    "training.optimizer": Changes("sgd"),
    "training.lr": Changes(1e-2),
    "training.lr_batch": Changes(16),
    "training.schedule": Changes("linear"),
    "training.min_lr": Changes(1e-3),
    "training.step_epochs": Changes(1, {"training.schedule": "step"}),
    "training.step_factor": Changes(0.5, {"training.schedule": "step", "training.step_epochs": 1}),
    "training.warmup": Changes(1),
    "training.warmup_unit": Changes("steps", {"training.warmup": 1}),
    "training.warmup_lr": Changes(1e-3, {"training.warmup": 1}),
    "training.weight_decay": Changes(0.5),
    "training.decay_all": Changes(True),
    "training.betas": Changes((0.5, 0.9)),
    "training.epsilon": Changes(1e-2),
    "training.momentum": Changes(0.5, {"training.optimizer": "sgd"}),
    "training.clip_norm": Changes(0.01),
    "training.layer_decay": Changes(0.5),
    "training.backbone_lr": Changes(1e-5),
    "training.ema_decay": Changes(0.9),
    "training.ema_warmup": Changes(False, {"training.ema_decay": 0.9}),
    "training.precision": Changes("bf16"),
    "training.early_stop": Changes(1, {"training.lr": 1e-12, "training.epochs": 3, "training.min_lr": 0.0}, "figures"),
    "training.publish": Stated("which epoch's weights are published; test_finetuning"),
    "training.keep_checkpoints": Changes(1, seen="files"),
    "training.checkpoint_steps": Changes(1, {"training.keep_checkpoints": 99}, "files"),
    "training.trackers": Changes(["tensorboard"], seen="files"),
    "training.on_nonfinite": Stated("what a loss that is not finite does; test_killed_runs and test_finetuning"),
    "evaluation.batch_size": Stated("time and memory; the figures are of whole splits"),
    "seed": Changes(1),
}
STREAMED_ONLY = ("data.shuffle_buffer", "data.held_out_images", "data.labels", "training.steps_per_epoch")
ENTRIES = {
    "classification": LOOP
    | {
        "model.source": Changes("vit-s/4"),
        "model.image_size": Changes(16),
        "model.patch_size": Changes(6),
        "model.backbone": REFUSED,
        "model.backbone_stride": REFUSED,
        "model.fields": Changes({"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1}),
        "data.source": Changes("OTHER"),
        "data.image_column": Changes("second", {"data.source": "COLUMNS"}),
        "data.label_column": Changes("other_label", {"data.source": "COLUMNS"}),
        "data.train_split": Changes("first", {"data.source": "SPLITS"}),
        "data.validation_split": Changes("second", {"data.source": "SPLITS"}, "figures"),
        "data.test_split": Changes("second", {"data.source": "SPLITS"}, "figures"),
        "data.streaming": Stated("the way of reading; test_streaming"),
        **dict.fromkeys(STREAMED_ONLY, REFUSED),
        "data.repair_boxes": REFUSED,
        "data.box_format": REFUSED,
        "augmentation.crop": Changes("none"),
        "augmentation.scale": Changes((0.9, 1.0)),
        "augmentation.ratio": Changes((1.0, 1.0)),
        "augmentation.interpolation": Changes("bilinear"),
        "augmentation.horizontal_flip": Changes(1.0),
        "augmentation.vertical_flip": Changes(1.0),
        "augmentation.rand_augment": Changes("rand-m9-mstd0.5-inc1"),
        "augmentation.three_augment": Changes(True),
        "augmentation.color_jitter": Changes(0.9),
        "augmentation.random_erasing": Changes(1.0),
        "augmentation.mixup": Changes(0.8),
        "augmentation.cutmix": Changes(1.0),
        "augmentation.mix_probability": Changes(0.0, MIXED),
        "augmentation.mix_switch": Changes(0.0, MIXED),
        "augmentation.mix_off_epoch": Changes(1, MIXED),
        **{name: REFUSED for name in field_names() if name.startswith("boxes.")},
        "training.freeze": Changes(1),
        "training.loss": Changes("bce", {"training.label_smoothing": 0.0}),
        "training.label_smoothing": Changes(0.3),
        "distillation.teacher": Changes("TEACHER"),
        "distillation.revision": REFUSED,
        "distillation.kind": Changes("soft", TAUGHT),
        "distillation.through": Changes("logits", TAUGHT),
        "distillation.temperature": Changes(3.0, TAUGHT | {"distillation.kind": "soft"}),
        "distillation.alpha": Changes(0.9, TAUGHT),
        "distillation.reduction": Changes("batchmean", TAUGHT | {"distillation.kind": "soft"}),
        "distillation.precision": Changes("bf16", TAUGHT | {"distillation.kind": "soft"}),
        "distillation.cache": Changes(
            True, TAUGHT | {"augmentation.crop": "none", "augmentation.horizontal_flip": 0.0}, "files"
        ),
        "lora.rank": Changes(2),
        "lora.alpha": Changes(64, {"lora.rank": 2}),
        "lora.dropout": Changes(0.5, {"lora.rank": 2}),
        "lora.targets": Changes(["k_proj"], {"lora.rank": 2}),
        "lora.publish": Stated("a file beside the weights; test_lora"),
        "evaluation.crop_ratio": Changes(0.5, seen="figures"),
        "evaluation.interpolation": Changes("bilinear", seen="figures"),
    },
    "detection": LOOP
    | {
        "model.source": Stated("a checkpoint in the place of a new detector; test_detector_training"),
        "model.image_size": Changes(64),
        "model.patch_size": REFUSED,
        "model.backbone": Changes("BACKBONE"),
        "model.backbone_stride": Changes(8, {"model.backbone": "BACKBONE"}),
        "model.fields": Changes({"dropout": 0.3}),
        "data.source": Changes("OTHER"),
        "data.image_column": Changes("second", {"data.source": "COLUMNS"}),
        "data.label_column": Changes("other_objects", {"data.source": "COLUMNS"}),
        "data.train_split": Changes("first", {"data.source": "SPLITS"}),
        "data.validation_split": Changes("second", {"data.source": "SPLITS"}, "figures"),
        "data.test_split": Changes("second", {"data.source": "SPLITS"}, "figures"),
        "data.streaming": REFUSED,
        **dict.fromkeys(STREAMED_ONLY, REFUSED),
        "data.on_bad_image": Stated("what a bad image does; seen by data.max_bad_share, which needs it"),
        "training.early_stop": Changes(
            1,
            {
                "training.lr": 1e-12,
                "training.epochs": 3,
                "training.min_lr": 0.0,
                "model.fields": {"freeze_batch_norm": True},
            },
            "figures",
        ),
        "data.repair_boxes": Stated("what a box that does not fit does; test_box_checks"),
        "data.box_format": Changes("cxcywh pixels"),
        "augmentation.repeats": Changes(2),
        **{
            name: REFUSED for name in field_names() if name.startswith("augmentation.") and not name.endswith("repeats")
        },
        "boxes.horizontal_flip": Changes(0.0),
        "boxes.vertical_flip": Changes(1.0),
        "boxes.sides": Changes((640,)),
        "boxes.longest": Changes(801),
        "boxes.crop": Changes(1.0),
        "boxes.crop_sides": Changes((800,), {"boxes.crop": 1.0}),
        "boxes.crop_size": Changes((500, 600), {"boxes.crop": 1.0}),
        "boxes.min_visible": Changes(1.0, {"boxes.crop": 1.0}),
        "boxes.color_jitter": Changes(0.9),
        "training.freeze": REFUSED,
        "training.loss": REFUSED,
        "training.label_smoothing": REFUSED,
        **{name: REFUSED for name in field_names() if name.startswith(("distillation.", "lora."))},
        "evaluation.crop_ratio": REFUSED,
        "evaluation.interpolation": REFUSED,
    },
}
CASES = [(task, name) for task, entries in ENTRIES.items() for name in entries]
# A value that is not the default, of a field that is refused whatever its value.
OTHER_VALUES = {
    "preset": "deit", "model.patch_size": 8, "model.backbone": "x/y", "model.backbone_stride": 16,
    "data.streaming": True, "data.shuffle_buffer": 7, "data.held_out_images": 7, "data.labels": ["a"],
    "data.repair_boxes": True, "data.box_format": "xyxy pixels", "training.steps_per_epoch": 7,
    "augmentation.crop": "padded", "augmentation.scale": (0.5, 1.0), "augmentation.ratio": (1.0, 1.0),
    "augmentation.interpolation": "bilinear", "augmentation.rand_augment": "rand-m9",
    "augmentation.three_augment": True,
    "augmentation.mix_off_epoch": 3, "boxes.sides": (640,), "boxes.longest": 900, "boxes.crop_sides": (500,),
    "boxes.crop_size": (300, 600), "training.freeze": 1, "training.loss": "bce", "distillation.teacher": "x/y",
    "distillation.kind": "soft", "distillation.through": "logits", "distillation.reduction": "batchmean",
    "distillation.precision": "bf16", "distillation.cache": True, "lora.rank": 2, "lora.alpha": 3,
    "lora.targets": ["q_proj"], "lora.publish": "adapter", "evaluation.interpolation": "bilinear",
}  # fmt: skip
TASKS = Path(__file__).parents[3] / "training" / "tasks"
# What a value needs to be a recipe at all.
ALSO = {"data.streaming": {"training.max_steps": 5}, "training.loss": {"training.label_smoothing": 0.0}}


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
    begun_as = {"classification": "from-scratch-small", "detection": "detr-small-data"}[task]
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
    sources = {"classification": labelled_sources(), "detection": boxed_sources()}
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
def usual(quick, quick_detector):
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
    begun = {"classification": Recipe(), "detection": preset("detr")}
    return {"classification": (begun["classification"], classifier), "detection": (begun["detection"], detector)}


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
        if "model.fields" in values:
            values["model.fields"] = usual_values["model.fields"] | values["model.fields"]
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
    needed = {"deit-distilled": {"distillation.teacher": "x/y"}, "detr-small-data": {"model.backbone": "x/y"}}
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
        ({"augmentation.mixup": 0.8, "augmentation.mix_switch": 0.1}, "mix_switch 0.1 .* without augmentation.cutmix"),
        ({"augmentation.crop": "padded", "augmentation.scale": [0.5, 1]}, r"scale \(0.5, 1.0\) has no effect unless"),
        ({"augmentation.crop": "padded", "augmentation.interpolation": "random"}, "interpolation 'random' has no eff"),
        ({"augmentation.rand_augment": "rand-m9", "augmentation.color_jitter": 0.4}, "color_jitter 0.4 .* with augm"),
        ({"distillation.teacher": "x/y", "distillation.temperature": 3}, "temperature 3.0 .* distillation.kind is"),
        ({"data.streaming": True, "training.max_steps": 5, "training.epochs": 3}, "epochs 3 .* with data.streaming"),
        ({"data.streaming": True, "training.max_steps": 5, "data.split_seed": 3}, "split_seed 3 .* with data.stream"),
        ({"data.revision": "main"}, "data.revision 'main' has no effect unless data.source is a Hub id"),
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
