"""Recipe: all settings of a training run, typed and validated; saved completely beside the trained weights."""

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, Self, get_args, get_origin

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from ...data.boxes.augmentation_settings import BoxAugmentation
from ...data.labelled.augmentation_settings import Augmentation
from .boolean_fields import misplaced_boolean
from .pretraining_settings import PretrainingSettings
from .sealed_file import is_cut
from .sections import (
    DataSettings,
    DistillationSettings,
    EvaluationSettings,
    LoraSettings,
    ModelSettings,
    Section,
    Seed,
    TrainingSettings,
)
from .task_options import UNKNOWN_TO
from .yaml_text import read_yaml, write_yaml


class RecipeError(ValueError):
    """Error for a recipe with a wrong field; the message names the field, the value got and the accepted values."""


class Recipe(Section):
    """Settings of a training run."""

    task: str = Field("classification", description="what is learned: classification, detection or pretraining")
    preset: str = Field("from-scratch-small", description="the named recipe that this one began as")
    model: ModelSettings = Field(default_factory=ModelSettings)
    data: DataSettings = Field(default_factory=DataSettings)
    augmentation: Augmentation = Field(default_factory=Augmentation)
    boxes: BoxAugmentation = Field(default_factory=BoxAugmentation)
    training: TrainingSettings = Field(default_factory=TrainingSettings)
    distillation: DistillationSettings = Field(default_factory=DistillationSettings)
    lora: LoraSettings = Field(default_factory=LoraSettings)
    pretraining: PretrainingSettings = Field(default_factory=PretrainingSettings)
    evaluation: EvaluationSettings = Field(default_factory=EvaluationSettings)
    seed: Seed = Field(0, description="of all random choices but the drawing of splits")

    @model_validator(mode="before")
    @classmethod
    def _no_booleans_as_numbers(cls, content: Any) -> Any:
        if wrong := misplaced_boolean(cls, content):
            raise ValueError(f"{wrong[0]} takes no true or false, got {wrong[1]!r}")
        return content

    @field_validator("task")
    @classmethod
    def _known_task(cls, name: str) -> str:
        if name not in UNKNOWN_TO:
            raise ValueError(f"must be one of {', '.join(UNKNOWN_TO)}")
        return name

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        batch, accumulation = self.training.batch_size, self.training.accumulation
        if self.training.loss == "bce" and self.training.label_smoothing > 0:
            raise ValueError(
                "training.label_smoothing must be 0 with training.loss bce, which takes every target above 0 as 1, "
                f"got {self.training.label_smoothing}"
            )
        self._balance_once()
        if self.data.streaming and self.training.max_steps is None:
            raise ValueError("training.max_steps must be given with data.streaming, whose length is not known")
        if self.data.streaming and (self.distillation.cache or self.augmentation.repeats > 1):
            raise ValueError("data.streaming sees an image once: no distillation.cache and augmentation.repeats 1")
        if self.data.group_shapes and self.augmentation.repeats > 1:
            raise ValueError(
                "data.group_shapes puts each image into an epoch once: augmentation.repeats must be 1, got "
                f"{self.augmentation.repeats}"
            )
        if self.lora.rank is not None and self.training.freeze:
            raise ValueError(
                f"lora.rank freezes all but adapters and head: training.freeze must be 0, got {self.training.freeze!r}"
            )
        if self.training.master_weights and self.training.precision in ("fp32", "fp16"):
            raise ValueError(
                "training.master_weights computes in bf16: training.precision must be bf16 or auto, got "
                f"{self.training.precision}"
            )
        if self.training.master_weights and self.model.activation_checkpointing:
            raise ValueError(
                "training.master_weights does not go with model.activation_checkpointing, which would compute again "
                "with the fp32 weights"
            )
        if self.training.deterministic and self.training.cudnn_benchmark:
            raise ValueError(
                "training.cudnn_benchmark must be false with training.deterministic, as it chooses by time, got True"
            )
        if batch % accumulation:
            raise ValueError(f"training.batch_size {batch} must be a multiple of training.accumulation {accumulation}")
        if self.augmentation.mixes and batch // accumulation % 2:
            raise ValueError(
                f"training.batch_size / accumulation must be even to mix images, got {batch // accumulation}"
            )
        return self

    def _balance_once(self) -> None:
        """Rejects two answers to the same imbalance of classes."""
        weights, training = self.training.class_weights, self.training
        if self.data.sampler == "balanced" and isinstance(weights, str):
            raise ValueError(
                f"training.class_weights must be none with data.sampler balanced, which balances already, got {weights}"
            )
        if training.logit_adjustment is not None and training.loss != "cross_entropy":
            raise ValueError(
                "training.logit_adjustment shifts the logits of a softmax: training.loss must be cross_entropy, got "
                f"{training.loss}"
            )
        if training.logit_adjustment is not None and isinstance(weights, str):
            raise ValueError(
                "training.class_weights must be none with training.logit_adjustment, which balances already, got "
                f"{weights}"
            )

    def with_values(self, values: dict[str, Any]) -> Self:
        """Returns a copy with some fields replaced.

        Args:
            values: Values by dotted name, such as {"training.lr": 1e-3}; `model.fields.NAME` sets a configuration
                field.

        Raises:
            RecipeError: A field does not exist, or a value does not fit.
        """
        check_names(values)
        return self.from_dict(_with(self.model_dump(), values))

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Self:
        """Builds a recipe from nested plain data; fields that are left out have their defaults."""
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            raise RecipeError("; ".join(_message(problem) for problem in error.errors())) from error

    @classmethod
    def from_yaml(cls, file: str | Path) -> Self:
        """Reads a recipe from a file such as the `recipe.yaml` of a run; fields that are left out have their defaults.

        For a file that a person wrote, use `presets.read_recipe`.
        """
        _, content = read_content(file)
        try:
            return cls.from_dict(content)
        except RecipeError as error:
            raise RecipeError(f"{file}: {error}") from error

    def to_yaml(self) -> str:
        """Returns the whole recipe as YAML, defaults included."""
        return write_yaml(self.model_dump(mode="json"))


def read_content(file: str | Path) -> tuple[str, dict[str, Any]]:
    """Reads the text of a recipe's file and the plain data in it, whose fields are not validated yet.

    Raises:
        RecipeError: The file is missing, truncated, not YAML, or holds something other than fields.
    """
    try:
        text = Path(file).read_text(encoding="utf-8")
        if is_cut(text):
            raise RecipeError(f"{file} was cut short: its last line is missing")
        content = read_yaml(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"{file} is no readable recipe: {error}") from error
    if not isinstance(content, dict):
        raise RecipeError(f"{file} must hold a recipe, got {type(content).__name__}")
    return text, content


def check_names(names: Iterable[str]) -> None:
    """Rejects dotted names that are neither a field, nor a section, nor a field of a model's configuration.

    Raises:
        RecipeError: A name is unknown; the message gives the first one and similar fields.
    """
    known = set(field_names())
    sections = {name.rpartition(".")[0] for name in known}
    for name in names:
        section, _, last = name.rpartition(".")
        if name not in known | sections and not (section == "model.fields" and last):
            raise RecipeError(f"there is no recipe field {name!r}; {_near(name)}")


def check_values(values: dict[str, Any]) -> None:
    """Rejects unknown dotted names, and values that do not fit their field regardless of the other fields.

    Raises:
        RecipeError: A name or value is wrong; the message gives each such field with the value got.
    """
    check_names(values)
    content = _with({}, values)
    if wrong := misplaced_boolean(Recipe, content):
        raise RecipeError(f"{wrong[0]} takes no true or false, got {wrong[1]!r}")
    try:
        Recipe.model_validate(content)
    except ValidationError as error:
        problems = [
            _message(problem) for problem in error.errors() if problem["loc"]
        ]  # the others concern several fields
        if problems:
            raise RecipeError("; ".join(problems)) from error


def _with(content: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """Sets values by dotted names in nested data, in place."""
    for name, value in values.items():
        *sections, last = name.split(".")
        place = content
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise RecipeError(f"{section}: must name fields and values, got {place!r}")
        place[last] = value
    return content


def field_names(model: type[BaseModel] = Recipe, prefix: str = "") -> dict[str, tuple[Any, str]]:
    """Returns the default and the description of every field, by dotted name."""
    found: dict[str, tuple[Any, str]] = {}
    for name, info in model.model_fields.items():
        inner = info.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            found |= field_names(inner, f"{prefix}{name}.")
        else:
            found[prefix + name] = (info.get_default(call_default_factory=True), info.description or "")
    return found


def field_choices(model: type[BaseModel] = Recipe, prefix: str = "") -> dict[str, list[str]]:
    """Returns the accepted values of each field that has a fixed set of them, by dotted name."""
    found: dict[str, list[str]] = {}
    for name, info in model.model_fields.items():
        inner = info.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            found |= field_choices(inner, f"{prefix}{name}.")
        elif choices := _choices(inner):
            found[prefix + name] = choices
    return found


def _choices(kind: Any) -> list[str]:
    """Returns the values of every `Literal` within a type."""
    if get_origin(kind) is Literal:
        return [str(value) for value in get_args(kind)]
    return [value for part in get_args(kind) for value in _choices(part)]


def flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flattens nested sections to one dictionary with dotted names; weights by label stay one value."""
    found: dict[str, Any] = {}
    for name, value in content.items():
        nested = isinstance(value, dict) and prefix + name != "training.class_weights"
        found |= flat(value, f"{prefix}{name}.") if nested else {prefix + name: value}
    return found


def _message(problem: Any) -> str:
    place = ".".join(str(part) for part in problem["loc"])
    text = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        return f"there is no recipe field {place!r}; {_near(place)}"
    return f"{place}: {text[0].lower()}{text[1:]}, got {problem['input']!r}" if place else text


# Last parts of field names in other tools, with their names here.
_OTHER_NAMES = {
    "learning_rate": "lr",
    "max_lr": "lr",
    "num_train_epochs": "epochs",
    "num_epochs": "epochs",
    "per_device_train_batch_size": "batch_size",
    "gradient_accumulation_steps": "accumulation",
    "grad_accumulation": "accumulation",
    "opt": "optimizer",
    "optim": "optimizer",
    "lr_scheduler_type": "schedule",
    "lr_scheduler": "schedule",
    "scheduler": "schedule",
    "sched": "schedule",
    "warmup_epochs": "warmup",
    "warmup_steps": "warmup",
    "warmup_ratio": "warmup",
    "wd": "weight_decay",
    "eps": "epsilon",
    "adam_epsilon": "epsilon",
    "opt_eps": "epsilon",
    "max_grad_norm": "clip_norm",
    "clip_grad": "clip_norm",
    "gradient_clipping": "clip_norm",
    "layer_lr_decay": "layer_decay",
    "label_smoothing_factor": "label_smoothing",
    "smoothing": "label_smoothing",
    "model_ema_decay": "ema_decay",
    "fp16": "precision",
    "bf16": "precision",
    "amp": "precision",
    "num_workers": "workers",
    "dataloader_num_workers": "workers",
    "gradient_checkpointing": "activation_checkpointing",
    "torch_compile": "compile",
    "img_size": "image_size",
    "input_size": "image_size",
    "reprob": "random_erasing",
    "aa": "rand_augment",
    "auto_augment": "rand_augment",
    "hflip": "horizontal_flip",
    "vflip": "vertical_flip",
    "report_to": "trackers",
    "patience": "early_stop",
    "lora_r": "rank",
    "dataset": "source",
}


def near_fields(name: str) -> list[str]:
    """Returns fields similar to a wrong name: by its last part, by other tools' names for them, or by spelling."""
    known = list(field_names())
    section, _, last = name.rpartition(".")
    for wanted in (last, _OTHER_NAMES.get(last)):
        if same := [field for field in known if field.rpartition(".")[2] == wanted]:
            return [field for field in same if field.rpartition(".")[0] == section] or same
    return get_close_matches(name, known, n=3, cutoff=0.6)


def _near(name: str) -> str:
    close = near_fields(name)
    return f"did you mean {', '.join(close)}?" if close else "`vithub finetune --help` lists them"


__all__ = [
    "Recipe",
    "RecipeError",
    "check_names",
    "check_values",
    "field_choices",
    "field_names",
    "flat",
    "near_fields",
    "read_content",
]
