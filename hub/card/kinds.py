"""Registry of the kinds of model card, by the `problem` in the `metrics.json` of a run."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class CardKind:
    """Model card of one kind of run.

    Args:
        hub_task: Task name of the Hub, such as "object-detection".
        template: Template file; each part begins with a line `<!-- part NAME -->`.
        reported: Metrics of the Hub's model index, the headline first: key in `metrics.json`, metric type, and metric
            name or None.
        facts: Function that returns the values of the template. Its arguments are the run's folder, the contents of
            `config.json` and `metrics.json`, the class names, and the class of transformers under which the model is
            published, or None.
    """

    hub_task: str
    template: Traversable
    reported: tuple[tuple[str, str, str | None], ...]
    facts: Callable[[Path, dict[str, Any], dict[str, Any], list[str], str | None], dict[str, Any]]


TEMPLATES: Traversable = files("vithub.model_cards")

_KINDS: dict[str | None, CardKind] = {}


def register_card_kind(problem: str | None, kind: CardKind) -> None:
    """Registers a kind of card for a problem; None stands for an unknown problem."""
    _KINDS[problem] = kind


def card_kind(metrics: dict[str, Any]) -> CardKind:
    """Kind of card for a run, by the content of its `metrics.json`."""
    problem = metrics.get("problem")
    return _KINDS[problem if isinstance(problem, str) and problem in _KINDS else None]


__all__ = ["TEMPLATES", "CardKind", "card_kind", "register_card_kind"]
