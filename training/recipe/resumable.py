"""Fields of a recipe that may change when a run is resumed."""

from typing import Any

from .effects import has_effect_on
from .recipe import Recipe, flat

LENGTH = ("training.epochs", "training.max_steps")
# Settings on which no result depends.
WITHOUT_EFFECT = (
    "data.cache",
    "data.on_leakage",
    "data.workers",
    "training.checkpoint_steps",
    "training.keep_checkpoints",
    "training.trackers",
)
# Settings that affect only the rest of the run; a change is recorded in the run.
RECORDED = (
    "data.max_bad_share",
    "data.on_bad_image",
    "training.early_stop",
    *LENGTH,
    "training.on_nonfinite",
    "training.publish",
)
MAY_CHANGE = frozenset((*WITHOUT_EFFECT, *RECORDED))


def changeable(recipe: Recipe) -> dict[str, Any]:
    """Returns the values of the fields whose changes are recorded."""
    fields = flat(recipe.model_dump(mode="json"))
    return {name: fields[name] for name in RECORDED}


def refused_changes(old: Recipe, new: Recipe) -> list[str]:
    """Lists the fields that differ between two recipes and must not change, each as text with both values.

    Fields that the task does not accept are left out: an older version may have written another default for them.
    """
    before, after = flat(old.model_dump()), flat(new.model_dump())
    return [
        f"{name} is {before.get(name)!r}, not {after.get(name)!r}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name) and name not in MAY_CHANGE and has_effect_on(new.task, name)
    ]


__all__ = ["LENGTH", "MAY_CHANGE", "RECORDED", "WITHOUT_EFFECT", "changeable", "refused_changes"]
