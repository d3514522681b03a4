"""Registry of what a card says of each kind of run, by the `problem` of its `metrics.json`."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class CardKind:
    """What a card says of one kind of run.

    Args:
        hub_task: The Hub's name of what the model does, such as "object-detection".
        template: File of the template; its parts begin with a line `<!-- part NAME -->`.
        reported: Metrics of the model index, the headline first: key in `metrics.json`, type and name there.
        facts: Called with the run's folder, `config.json`, `metrics.json`, the class names, and the class of
            transformers under which it is published or None; returns the values of the template.
    """

    hub_task: str
    template: Traversable
    reported: tuple[tuple[str, str, str | None], ...]
    facts: Callable[[Path, dict[str, Any], dict[str, Any], list[str], str | None], dict[str, Any]]


TEMPLATES: Traversable = files("vithub.model_cards")

_KINDS: dict[str | None, CardKind] = {}


def register_card_kind(problem: str | None, kind: CardKind) -> None:
    """Adds a kind of run; None stands for a problem that is not known."""
    _KINDS[problem] = kind


def card_kind(metrics: dict[str, Any]) -> CardKind:
    """The kind of a run by its `metrics.json`."""
    problem = metrics.get("problem")
    return _KINDS[problem if isinstance(problem, str) and problem in _KINDS else None]


__all__ = ["TEMPLATES", "CardKind", "card_kind", "register_card_kind"]
