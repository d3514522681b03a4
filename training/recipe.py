"""Everything that decides a training run, typed and checked; saved whole beside the weights it made."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..data.augmentation import Augmentation

Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]


class RecipeError(ValueError):
    """A recipe with a wrong field; the message names it, the value got and what would be right."""


class Section(BaseModel):
    """A group of settings: no other names, checked when they are set."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)


class ModelSettings(Section):
    """What is trained."""

    source: str = Field(
        "deit-ti", description="a preset from scratch (vit|deit-ti|s|b|l|h, /PATCH), a folder or a Hub id"
    )
    revision: str | None = Field(None, description="branch, tag or commit of a Hub id")
    image_size: int | tuple[int, int] | None = Field(
        None, description="pixels, or height and width; default: the model's"
    )
    patch_size: int | tuple[int, int] | None = Field(None, description="pixels; default: the model's")
    fields: dict[str, Any] = Field(default_factory=dict, description="fields of the configuration, e.g. drop_path_rate")
    activation_checkpointing: bool = Field(False, description="recompute layers in the backward pass to save memory")
    compile: bool = Field(False, description="torch.compile")


class DataSettings(Section):
    """What it is trained on."""

    source: str = Field("digits", description="'digits', a folder, a .csv or .parquet file, or a Hub id")
    revision: str | None = Field(None, description="branch, tag or commit of a Hub id")
    image_column: str | None = Field(None, description="default: found")
    label_column: str | None = Field(None, description="default: found")
    train_split: str | None = Field(None, description="default: found")
    validation_split: str | None = Field(None, description="default: found, or drawn from the training split")
    test_split: str | None = Field(None, description="default: found, or drawn where there is one split only")
    validation_fraction: Share = Field(0.1, description="drawn where there is no validation split")
    test_fraction: Share = Field(0.1, description="drawn where there is one split only")
    split_seed: int = Field(0, ge=0, description="of drawn splits")
    workers: int | None = Field(None, ge=0, description="loading processes; default: by the number of cores")


class TrainingSettings(Section):
    """How it learns."""

    epochs: int = Field(30, ge=1)
    batch_size: int = Field(64, ge=1, description="images per step, over all processes and accumulation steps")
    accumulation: int = Field(1, ge=1, description="pieces of a batch that are computed one after the other")
    lr: Positive = Field(5e-4, description="peak learning rate")
    min_lr: float = Field(1e-6, ge=0, description="at the end of the schedule")
    warmup: float = Field(5, ge=0, description="epochs of linear warm-up")
    warmup_lr: float = Field(1e-6, ge=0, description="at the start of the warm-up")
    weight_decay: float = Field(0.05, ge=0, description="none on norms, biases, tokens and position embeddings")
    betas: tuple[Share, Share] = Field((0.9, 0.999))
    epsilon: Positive = Field(1e-8)
    clip_norm: float | None = Field(None, gt=0, description="largest norm of the gradient; default: no clipping")
    label_smoothing: Share = Field(0.1)
    layer_decay: float = Field(
        1.0, gt=0, le=1, description="factor of the learning rate from each layer to the one below"
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="auto: bf16 where it is fast, else fp32"
    )
    early_stop: int | None = Field(
        None, ge=1, description="epochs without a better validation accuracy before it stops"
    )
    publish: Literal["best", "last"] = Field(
        "best", description="weights of the epoch with the best validation accuracy (of equal ones the lowest loss), "
        "or of the last epoch"
    )
    keep_checkpoints: int = Field(2, ge=1, description="how many of the last checkpoints are kept")


class EvaluationSettings(Section):
    """How it is judged."""

    crop_ratio: float = Field(0.875, gt=0, le=1, description="part of the resized image that the centre crop keeps")
    batch_size: int = Field(64, ge=1)
    interpolation: Literal["bicubic", "bilinear"] = Field("bicubic")


class Recipe(Section):
    """A training run."""

    preset: str = Field("from-scratch-small", description="the named recipe that this one began as")
    model: ModelSettings = Field(default_factory=ModelSettings)
    data: DataSettings = Field(default_factory=DataSettings)
    augmentation: Augmentation = Field(default_factory=Augmentation)
    training: TrainingSettings = Field(default_factory=TrainingSettings)
    evaluation: EvaluationSettings = Field(default_factory=EvaluationSettings)
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        batch, accumulation = self.training.batch_size, self.training.accumulation
        if batch % accumulation:
            raise ValueError(f"training.batch_size {batch} must be a multiple of training.accumulation {accumulation}")
        if self.augmentation.mixes and batch // accumulation % 2:
            raise ValueError(
                f"training.batch_size / accumulation must be even to mix images, got {batch // accumulation}"
            )
        return self

    def with_values(self, values: dict[str, Any]) -> Self:
        """A copy with some fields replaced.

        Args:
            values: By dotted name, such as {"training.lr": 1e-3}; `model.fields.NAME` sets a configuration field.

        Raises:
            RecipeError: There is no such field, or the value does not fit.
        """
        content = self.model_dump()
        for name, value in values.items():
            *sections, last = name.split(".")
            place = content
            for section in sections:
                if not isinstance(place.get(section), dict):
                    raise RecipeError(f"there is no recipe field {name!r}")
                place = place[section]
            if last not in place and sections[-1:] != ["fields"]:
                raise RecipeError(f"there is no recipe field {name!r}; {_near(name)}")
            place[last] = value
        return self.from_dict(content)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Self:
        """A recipe from nested plain data; what is left out has its default."""
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            raise RecipeError("; ".join(_message(problem) for problem in error.errors())) from error

    @classmethod
    def from_yaml(cls, file: str | Path) -> Self:
        """A recipe from a file, such as the `recipe.yaml` of a run."""
        try:
            content = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as error:
            raise RecipeError(f"{file} is no readable recipe: {error}") from error
        if not isinstance(content, dict):
            raise RecipeError(f"{file} must hold a recipe, got {type(content).__name__}")
        try:
            return cls.from_dict(content)
        except RecipeError as error:
            raise RecipeError(f"{file}: {error}") from error

    def to_yaml(self) -> str:
        """The whole recipe, defaults included."""
        text: str = yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, width=120)
        return text


def field_names(model: type[BaseModel] = Recipe, prefix: str = "") -> dict[str, tuple[Any, str]]:
    """Default and description of every field, by dotted name."""
    found: dict[str, tuple[Any, str]] = {}
    for name, info in model.model_fields.items():
        inner = info.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            found |= field_names(inner, f"{prefix}{name}.")
        else:
            found[prefix + name] = (info.get_default(call_default_factory=True), info.description or "")
    return found


def _message(problem: Any) -> str:
    place = ".".join(str(part) for part in problem["loc"])
    text = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        return f"there is no recipe field {place!r}; {_near(place)}"
    return f"{place}: {text[0].lower()}{text[1:]}, got {problem['input']!r}" if place else text


def _near(name: str) -> str:
    from difflib import get_close_matches

    known = list(field_names())
    last = name.split(".")[-1]
    close = get_close_matches(name, known, n=3, cutoff=0.6) or [k for k in known if k.split(".")[-1] == last]
    return f"did you mean {', '.join(close)}?" if close else "`vithub finetune --help` lists them"


__all__ = ["Recipe", "RecipeError", "field_names"]
