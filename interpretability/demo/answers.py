"""Answers of one model or two to many pictures, and how often two models agree."""

import io
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...data.images import BadImageError
from ...data.intervals import share_interval
from .model import DemoModel, Seen
from .photos import FAILED, read_photo

logger = logging.getLogger(__name__)

_THUMBNAIL = 224  # pixels of the longer side
_TOP = 5  # classes of an answer that are kept


@dataclass(frozen=True)
class Answer:
    """Answer of one model to a picture.

    Args:
        decision: Labels by which models are compared; None for a model without a head.
        text: Answer in a few words, such as "rose 87 %".
        content: Answer as JSON values.
    """

    decision: tuple[str, ...] | None
    text: str
    content: dict[str, Any]


@dataclass(frozen=True)
class Answered:
    """Picture with the answers of all models, or why there are none.

    Args:
        name: File name of the picture.
        path: File of the picture.
        answers: Answer of each model, in order; empty if there is an error.
        thumbnail: Small JPEG of the picture; empty if there is an error.
        error: Why there is no answer, for the visitor; None if there is one.
    """

    name: str
    path: str
    answers: tuple[Answer, ...] = ()
    thumbnail: bytes = b""
    error: str | None = None

    @property
    def differs(self) -> bool:
        """Whether two models gave different answers."""
        return len({answer.decision for answer in self.answers}) > 1


def answer_all(
    models: Sequence[DemoModel], paths: Sequence[str], on_picture: Callable[[int], None] = lambda _: None
) -> list[Answered]:
    """Answers of all models to all pictures; a picture that cannot be read gets an error and the others go on.

    Args:
        models: Models.
        paths: Files of the pictures.
        on_picture: Function called after each picture with the number of those that are done.
    """
    answered = []
    for number, path in enumerate(paths, 1):
        answered.append(_answered(models, path))
        on_picture(number)
    return answered


def _answered(models: Sequence[DemoModel], path: str) -> Answered:
    name = Path(path).name
    try:
        picture = read_photo(path)
        answers = tuple(answer_of(model, model.look(picture)) for model in models)
    except BadImageError as error:
        return Answered(name, path, error=str(error))
    except Exception:
        logger.exception("the page could not answer for %s", name)
        return Answered(name, path, error=f"{name}: {FAILED}")
    picture.thumbnail((_THUMBNAIL, _THUMBNAIL))
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=85)
    return Answered(name, path, answers, content.getvalue())


def answer_of(model: DemoModel, seen: Seen) -> Answer:
    """Answer of a model to a picture that it has seen."""
    decision = model.decision(seen)
    content: dict[str, Any] = {"model": model.name, "calibrated": model.calibration is not None}
    if model.calibration is not None:
        content["temperature"] = model.temperature
    if model.is_detector:
        content["detections"] = [
            {
                "label": found.label,
                "score": found.score,
                "box": {
                    "left": found.left, "top": found.top, "right": found.right, "bottom": found.bottom,
                    "unit": "share of the picture's width and height",
                },
            }
            for found in seen.detections
        ]  # fmt: skip
        counts = {label: decision.count(label) for label in dict.fromkeys(decision or ())} if decision else {}
        text = ", ".join(f"{count} x {label}" for label, count in counts.items()) or "no object"
        return Answer(decision, text, content)
    content["predictions"] = [{"label": label, "score": score} for label, score in seen.scores[:_TOP]]
    if decision is None:
        return Answer(None, "no classes", content)
    scores = dict(seen.scores)
    return Answer(decision, ", ".join(f"{label} {scores[label]:.0%}" for label in decision) or "no label", content)


@dataclass(frozen=True)
class Agreement:
    """How often two models give the same answer.

    Args:
        same: Number of pictures with the same answer.
        pictures: Number of pictures that both answered.
        differing: Those with different answers.
        why_not: Why agreement cannot be counted, for the visitor; None if it can.
    """

    same: int
    pictures: int
    differing: tuple[Answered, ...]
    why_not: str | None = None

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the share of pictures with the same answer."""
        return share_interval(self.same, self.pictures)


def agreement(models: Sequence[DemoModel], answered: Sequence[Answered]) -> Agreement | None:
    """Counts how often two models agree: on the likeliest class, or on the objects found; None for one model."""
    if len(models) != 2:
        return None
    if models[0].is_detector != models[1].is_detector or not all(model.has_head for model in models):
        return Agreement(0, 0, (), "agreement is counted between two classifiers, or between two detectors")
    if not models[0].labels & models[1].labels:
        return Agreement(0, 0, (), "the two models have no class name in common, so that they can never agree")
    both = [one for one in answered if one.error is None]
    differing = tuple(one for one in both if one.differs)
    return Agreement(len(both) - len(differing), len(both), differing)


def answers_json(models: Sequence[DemoModel], answered: Sequence[Answered]) -> dict[str, Any]:
    """All answers and the agreement, as JSON values."""
    pictures: list[dict[str, Any]] = []
    for one in answered:
        entry: dict[str, Any] = {"picture": one.name}
        pictures.append(entry | ({"error": one.error} if one.error else {"answers": [a.content for a in one.answers]}))
    found = agreement(models, answered)
    content: dict[str, Any] = {"models": [model.name for model in models], "pictures": pictures}
    if found is not None and found.why_not is None and found.pictures:
        content["agreement"] = {
            "same": found.same,
            "pictures": found.pictures,
            "interval_95": list(found.interval),
            "differing": [one.name for one in found.differing],
        }
    return content


__all__ = ["Agreement", "Answer", "Answered", "agreement", "answer_all", "answer_of", "answers_json"]
