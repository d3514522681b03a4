"""Hostile values of every field of a recipe, given with `--set`; what is accepted is trained with for a step."""

import json
import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from . import stock
from .case import Case, Place
from .judging import strict_json

AREA = "recipe values"
VALUES = {
    "nothing": "null",
    "true": "true",
    "text": "abc",
    "escape sequences": '"\\e[31mred"',
    "not a number": ".nan",
    "infinity": ".inf",
    "-1": "-1",
    "0": "0",
    "2**64": str(2**64),
    "1e308": "1e308",
    "reversed range": "[2, 1]",
    "range with not a number": "[.nan, 1]",
    "list of texts": '["a", "b"]',
    "object": "{a: 1}",
    "date": "2020-01-01",
    "Python object": "!!python/object/apply:os.getpid []",
}
SHORT = {"true", "not a number", "2**64", "reversed range"}
SHORT_PAIRS = {
    ("augmentation.color_jitter", "1e308"), ("data.image_column", "text"), ("data.label_column", "text"),
    ("data.train_split", "text"), ("model.source", "text"), ("distillation.teacher", "text"),
}  # fmt: skip
SHORT_FIELDS = {"augmentation.scale", "seed", "lora.rank", "training.label_smoothing", "evaluation.crop_ratio"}
# What other fields need, so that a field has an effect.
CONTEXT: dict[str, dict[str, Any]] = {
    "lora.alpha": {"lora.rank": 2},
    "lora.dropout": {"lora.rank": 2},
    "lora.targets": {"lora.rank": 2},
    "lora.publish": {"lora.rank": 2},
    "augmentation.scale": {"augmentation.crop": "random_resized"},
    "augmentation.ratio": {"augmentation.crop": "random_resized"},
    "augmentation.mix_probability": {"augmentation.mixup": 0.5},
    "augmentation.mix_off_epoch": {"augmentation.mixup": 0.5},
    "augmentation.mix_switch": {"augmentation.mixup": 0.5, "augmentation.cutmix": 0.5},
    "training.step_epochs": {"training.schedule": "step"},
    "training.step_factor": {"training.schedule": "step"},
    "training.momentum": {"training.optimizer": "sgd"},
    "training.ema_warmup": {"training.ema_decay": 0.9},
    "training.label_smoothing": {"training.loss": "cross_entropy"},
    "data.max_bad_share": {"data.on_bad_image": "skip"},
}
# What a message calls the thing that a field names, where it does not name the field.
CALLED = {"data.source": ("no data set at",)}
SECONDS, COMPILING = 15, 300  # of computing; a compiler needs minutes where it has no cache
# They say how long a run is, or that it is another: 2**64 steps are no mistake that could be told.
_NOT_RUN = {
    ("training.epochs", "2**64"), ("training.max_steps", "2**64"), ("training.epochs", "1e308"),
    ("training.max_steps", "1e308"),
}  # fmt: skip


def _fields() -> dict[str, Any]:
    from vithub.training.recipe.recipe import field_names

    return {name: default for name, (default, _) in field_names().items()}


def _act(field: str, text: str, place: Place) -> Path:
    out = place.folder / "run"
    with stock.no_drawing():
        if field.startswith("boxes."):
            stock.train_detector(stock.coco(place.shared), out, {}, "--set", f"{field}={text}")
            return out
        values = {"training.max_steps": 1, "training.epochs": 1, **CONTEXT.get(field, {})}
        if field.startswith("distillation.") and field != "distillation.teacher":
            values["distillation.teacher"] = str(stock.run(place.shared))
        stock.train(stock.photos(place.shared), out, values, "--set", f"{field}={text}")
    return out


def _prepare(place: Place) -> None:
    stock.photos(place.shared)


def _right(field: str, text: str, out: Path) -> str | None:
    """The recipe has the value as given, and the run has a model whose weights and figures are numbers."""
    import safetensors.torch
    from vithub.training.recipe.yaml_text import read_yaml

    recorded: Any = read_yaml((out / "recipe.yaml").read_text())
    for key in field.split("."):
        recorded = recorded[key]
    given = read_yaml(text)
    if not _same(given, recorded):
        return f"{field}={text[:40]} was taken as {recorded!r}"
    try:
        strict_json((out / "metrics.json").read_text())
    except ValueError as error:
        return f"metrics.json: {error}"
    for name, tensor in safetensors.torch.load_file(out / "model.safetensors").items():
        if not tensor.isfinite().all():
            return f"{name} holds values that are not finite"
    return None


def _same(given: Any, recorded: Any) -> bool:
    if isinstance(given, list | tuple) and isinstance(recorded, list):
        return len(given) == len(recorded) and all(map(_same, given, recorded))
    if isinstance(given, bool) != isinstance(recorded, bool):
        return isinstance(recorded, bool) and given in (0, 1)
    if isinstance(given, float) and isinstance(recorded, int | float):
        return math.isclose(given, recorded)
    return bool(given == recorded) or json.dumps(given) == json.dumps(recorded)


def cases(seed: int) -> Iterator[Case]:
    """Every field with every value; nothing is left out but what is a field's default."""
    for field, default in _fields().items():
        for what, text in VALUES.items():
            if (what == "nothing" and default is None) or (field, what) in _NOT_RUN:
                continue
            last = field.rsplit(".", 1)[-1]
            # whether it is told of by its name or by the value; of the whole run's loss where that is what it broke
            option = f"--{last.replace('_', '-')}"  # the field as an option of the command
            told = (*CALLED.get(field, ()), *((text,) if len(text) > 4 else ()))
            names = (field, last, option, "finite", "--set", *told)
            seconds = COMPILING if (field, text) == ("model.compile", "true") else SECONDS
            yield Case(
                AREA, f"{field} = {what}", f"vithub finetune --set '{field}={text[:60]}'", partial(_act, field, text),
                _prepare,
                partial(_right, field, text), names, False, seconds,
                (field in SHORT_FIELDS and what in SHORT) or (field, what) in SHORT_PAIRS,
            )  # fmt: skip


__all__ = ["cases"]
