"""Tables of the recipe's options that have no effect: by task, and by the values of other options.

An option without effect is an error, since whoever sets it believes that it did something. Only options that were set
count: a value is set if it was given, or if it differs both from the default and from the named preset's value. A
preset's values may lose their effect through other options; values that a person adds may not.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ...data.argument_names import argument
from .model_names import DETECTOR_FROM_SCRATCH, is_from_scratch
from .presets import preset, preset_names
from .recipe import Recipe, RecipeError, field_names, flat
from .task_options import UNKNOWN_TO

# Values that are accepted although they have no effect, since they hold anyway: labels are smoothed by no other task.
_TRUE_ANYWAY = {(task, "training.label_smoothing"): 0.0 for task in ("detection", "pretraining")}


class Condition(NamedTuple):
    """Condition on the recipe under which options have an effect.

    Args:
        holds: Function that says whether a recipe, as a flat dictionary by dotted names, meets the condition.
        otherwise: Text that completes "has no effect ..." if the condition fails; {preset} stands for that argument's
            name.
    """

    holds: Callable[[Mapping[str, Any]], bool]
    otherwise: str


def _given(*others: str) -> Condition:
    """Condition that at least one of these options is on."""
    return Condition(lambda values: any(values[other] for other in others), f"without {' or '.join(others)}")


def _off(other: str) -> Condition:
    """Condition that an option is off."""
    return Condition(lambda values: not values[other], f"with {other}")


def _one_of(other: str, *choices: str) -> Condition:
    """Condition that an option has one of these values."""
    return Condition(lambda values: values[other] in choices, f"unless {other} is {' or '.join(choices)}")


def _not(other: str, choice: str) -> Condition:
    """Condition that an option differs from this value."""
    return Condition(lambda values: values[other] != choice, f"with {other} {choice}")


def _on_the_hub(*sources: str) -> Condition:
    """Condition that one of these options names something on the Hub."""
    return Condition(
        lambda values: any(_is_hub_id(values[source]) for source in sources),
        f"unless {' or '.join(sources)} is a Hub id",
    )


def _several_readings(values: Mapping[str, Any]) -> bool:
    """Whether an image is read more than once."""
    varying = any(values[f"augmentation.{name}"] for name in _VARYING) or values["augmentation.crop"] != "none"
    features = values["training.freeze"] == "backbone" and not varying and values["distillation.teacher"] is None
    return not features and (values["training.epochs"] > 1 or values["augmentation.repeats"] > 1)


_VARYING = (
    "horizontal_flip", "vertical_flip", "rand_augment", "three_augment", "color_jitter", "random_erasing", "mixup",
    "cutmix",
)  # fmt: skip
_READ_AGAIN = Condition(_several_readings, "where each image is read once: in one epoch, or for features that are kept")
_NEVER = Condition(lambda _: False, "on a recipe that is there already; begin from another one with {preset}")


def _is_hub_id(source: str | None) -> bool:
    if source is None or source in ("digits", DETECTOR_FROM_SCRATCH) or is_from_scratch(source):
        return False
    return source.count("/") == 1 and not Path(source).expanduser().exists()


_CHECKPOINT = Condition(
    lambda values: values["model.source"] != DETECTOR_FROM_SCRATCH and not is_from_scratch(values["model.source"]),
    "unless model.source is a checkpoint",
)

_OF_DINO = (
    "masked_weight", "local_crops", "local_size", "local_scale", "prototypes", "projection_width", "bottleneck_width",
    "frozen_prototypes", "student_temperature", "teacher_temperature", "teacher_momentum", "centre_momentum",
)  # fmt: skip


def _hides(*methods: str) -> Condition:
    """Condition that patches are hidden: by one of these methods, or by "dino" with a weight for them."""
    return Condition(
        lambda values: (
            values["pretraining.method"] in methods
            or (values["pretraining.method"] == "dino" and values["pretraining.masked_weight"] > 0)
        ),
        f"unless pretraining.method is {' or '.join(methods)}, or dino with pretraining.masked_weight",
    )


# Options that have an effect only under a condition, in every task that accepts them.
NEEDS: tuple[tuple[Condition, tuple[str, ...]], ...] = (
    (_NEVER, ("preset",)),
    (_on_the_hub("model.source", "model.backbone"), ("model.revision",)),
    (_one_of("model.source", DETECTOR_FROM_SCRATCH), ("model.backbone", "model.backbone_stride")),
    (_given("model.backbone"), ("model.backbone_stride",)),
    (_CHECKPOINT, ("model.convert", "boxes.batch_scale")),
    (_not("training.freeze", "backbone"), ("model.activation_checkpointing",)),
    (_on_the_hub("data.source"), ("data.revision",)),
    (_given("data.streaming"), ("data.shuffle_buffer", "data.held_out_images", "data.labels")),
    (_given("data.streaming"), ("training.steps_per_epoch",)),
    (_off("data.streaming"), ("data.cache",)),
    (_READ_AGAIN, ("data.cache",)),
    (_off("data.streaming"), ("data.validation_fraction", "data.test_fraction", "data.split_seed", "training.epochs")),
    (_one_of("data.on_bad_image", "skip"), ("data.max_bad_share",)),
    (_off("data.streaming"), ("data.on_leakage",)),
    (_one_of("augmentation.crop", "random_resized"), ("augmentation.scale", "augmentation.ratio")),
    (_off("augmentation.rand_augment"), ("augmentation.color_jitter",)),
    (_given("augmentation.mixup", "augmentation.cutmix"), ("augmentation.mix_probability",)),
    (_given("augmentation.mixup", "augmentation.cutmix"), ("augmentation.mix_off_epoch",)),
    (_given("augmentation.mixup"), ("augmentation.mix_switch",)),
    (_given("augmentation.cutmix"), ("augmentation.mix_switch",)),
    (_off("data.streaming"), ("data.sampler",)),
    (_not("data.sampler", "balanced"), ("training.logit_adjustment",)),
    (_one_of("training.loss", "focal"), ("training.focal_gamma",)),
    (_given("boxes.crop"), ("boxes.crop_sides", "boxes.crop_size", "boxes.min_visible")),
    (_one_of("training.schedule", "cosine", "linear"), ("training.min_lr",)),
    (_one_of("training.schedule", "step"), ("training.step_epochs", "training.step_factor")),
    (_given("training.warmup"), ("training.warmup_unit", "training.warmup_lr")),
    (_given("training.weight_decay"), ("training.decay_all",)),
    (_one_of("training.optimizer", "adamw", "lamb", "muon"), ("training.betas",)),
    (_one_of("training.optimizer", "adamw", "lamb"), ("training.epsilon",)),
    (_one_of("training.optimizer", "sgd", "muon"), ("training.momentum",)),
    (_not("training.freeze", "backbone"), ("training.layer_decay", "training.backbone_lr")),
    (_not("training.freeze", "backbone"), ("training.head_first_epochs",)),
    (_off("data.streaming"), ("training.head_first_epochs",)),
    (_given("training.ema_decay"), ("training.ema_warmup",)),
    (_one_of("distillation.kind", "soft"), ("distillation.temperature", "distillation.reduction")),
    (_on_the_hub("distillation.teacher"), ("distillation.revision",)),
    (_given("lora.rank"), ("lora.alpha", "lora.dropout", "lora.targets", "lora.publish")),
    (_given("pretraining.probe"), ("pretraining.probe_images", "pretraining.probe_neighbours")),
    (_hides("mae", "simmim"), ("pretraining.mask_ratio",)),
    (_hides("simmim"), ("pretraining.mask_unit",)),
    (_one_of("pretraining.method", "dino"), tuple(f"pretraining.{name}" for name in _OF_DINO)),
    (_given("pretraining.local_crops"), ("pretraining.local_size", "pretraining.local_scale")),
    (
        _one_of("pretraining.method", "features"),
        ("pretraining.image_weight", "pretraining.patch_weight", "pretraining.cosine_share"),
    ),
    (_one_of("pretraining.method", "mae"), ("pretraining.normalize_targets",)),
    (
        _one_of("pretraining.method", "mae"),
        tuple(f"pretraining.decoder_{name}" for name in ("width", "layers", "heads")),
    ),
)
# As `NEEDS`, but checked also for the named preset's own values: such a preset cannot work without a teacher.
NEEDS_EVEN_IN_A_PRESET = (
    (
        _given("distillation.teacher"),
        tuple(name for name in field_names() if name.startswith("distillation.") and not name.endswith(".teacher")),
    ),
)


def check_effects(recipe: Recipe, given: Collection[str] = ()) -> None:
    """Rejects a recipe in which an option is set that has no effect.

    Args:
        recipe: Whole recipe.
        given: Dotted names of the options that were stated in this call; they count as set even if equal to the
            preset's.

    Raises:
        RecipeError: An option has no effect; the message gives each such option with its value, the reason, and the
            option to use instead if there is one.
    """
    problems = [problem for _, problem in _named_problems(recipe, given)]
    if problems:
        raise RecipeError("; ".join(problems))


def _named_problems(recipe: Recipe, given: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yields the name of each option that is set without effect, with the message about it."""
    values, defaults = _flat(recipe), {name: default for name, (default, _) in field_names().items()}
    begun_as = _flat(preset(recipe.preset)) if recipe.preset in preset_names() else {}
    for name, value in values.items():
        if value == defaults[name]:
            continue
        from_preset = name not in given and value == begun_as.get(name)
        reason = next(_reasons(recipe.task, name, values, from_preset), None)
        if reason is not None and _TRUE_ANYWAY.get((recipe.task, name)) != value:
            yield name, f"{name} {value!r} has no effect {reason}"


def _reasons(task: str, name: str, values: Mapping[str, Any], from_preset: bool) -> Iterator[str]:
    """Yields the reasons why an option has no effect; nothing if it has one."""
    if (unknown := _unknown(task, name)) is not None:
        instead = unknown[1]
        yield f"on task {task}{f'; use {instead}' if instead else ''}"
        return
    table = NEEDS_EVEN_IN_A_PRESET if from_preset else (*NEEDS_EVEN_IN_A_PRESET, *NEEDS)
    for condition, names in table:
        if name in names and not condition.holds(values):
            yield condition.otherwise.format(preset=argument("preset"))
    if not from_preset and name == "augmentation.interpolation" and values[name] == "random":
        crop = _one_of("augmentation.crop", "random_resized")
        if not crop.holds(values):
            yield crop.otherwise


def has_effect_on(task: str, name: str) -> bool:
    """Whether a task accepts an option, given by its dotted name."""
    return _unknown(task, name) is None


def check_resumed_effects(recipe: Recipe, given: Collection[str]) -> None:
    """Rejects options that were stated on resuming a run and that the run's task does not accept.

    Args:
        recipe: Recipe of the run, with the stated options applied.
        given: Dotted names of the stated options.

    Raises:
        RecipeError: A task does not accept an option; the message gives each with its value and the option to use
            instead if there is one.
    """
    stated = [name for name in given if not has_effect_on(recipe.task, name)]
    problems = [problem for name, problem in _named_problems(recipe, stated) if name in stated]
    if problems:
        raise RecipeError("; ".join(problems))


def _unknown(task: str, name: str) -> tuple[str, str | None] | None:
    """Returns the table entry of an option that a task does not accept: its key, and the option to use instead."""
    section = f"{name.rpartition('.')[0]}.*"
    return next(((key, UNKNOWN_TO[task][key]) for key in (name, section) if key in UNKNOWN_TO[task]), None)


def _flat(recipe: Recipe) -> dict[str, Any]:
    """Returns the recipe's values by dotted name; `model.fields` stays one value."""
    content = recipe.model_dump()
    fields = content["model"].pop("fields")
    return flat(content) | {"model.fields": fields}


def check_data_effects(recipe: Recipe, drawn: Collection[str]) -> None:
    """Rejects options for drawing splits if the data has its own splits.

    Args:
        recipe: Whole recipe; values of the named preset are not rejected.
        drawn: Splits, among "validation" and "test", that were drawn from the training split.

    Raises:
        RecipeError: Such an option is set and has no effect.
    """
    settings, usual = recipe.data, Recipe().data
    begun_as = preset(recipe.preset).data if recipe.preset in preset_names() else usual
    without = {
        "validation_fraction": "validation" not in drawn,
        "test_fraction": "test" not in drawn and not ("validation" in drawn and settings.test_fraction == 0),
        "split_seed": not drawn,
    }
    problems = [
        f"data.{name} {value!r} has no effect: the data has splits of its own"
        for name, unused in without.items()
        if unused and (value := getattr(settings, name)) not in (getattr(usual, name), getattr(begun_as, name))
    ]
    if problems:
        raise RecipeError("; ".join(problems))


__all__ = [
    "NEEDS",
    "NEEDS_EVEN_IN_A_PRESET",
    "Condition",
    "check_data_effects",
    "check_effects",
    "check_resumed_effects",
    "has_effect_on",
]
