"""Selection of the model's score that is explained: class and, for a detector, object query.

Shapes: B images, Q object queries, L labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ...data.argument_names import argument
from ...modeling.detector_output import class_probabilities
from ..capture.architecture import unwrap
from ..capture.subject import ExplanationError, NotApplicableError

Target = int | str | Sequence[int | str] | torch.Tensor | None


@dataclass(frozen=True)
class Choice:
    """Selected score of each image.

    Args:
        labels: Class indices (B,).
        queries: Object queries (B,) of a detector, or None.
        probabilities: Probabilities (B,) of the classes: softmax, or sigmoid for a multi-label model.
    """

    labels: torch.Tensor
    queries: torch.Tensor | None
    probabilities: torch.Tensor

    def of(self, images: torch.Tensor) -> "Choice":
        """Choice for a selection of the images, given by their indices."""
        queries = None if self.queries is None else self.queries[images]
        return Choice(self.labels[images], queries, self.probabilities[images])

    def scores(self, logits: torch.Tensor) -> torch.Tensor:
        """Selected scores (B,) of logits (B, L) or (B, Q, L)."""
        images = torch.arange(len(logits), device=logits.device)
        return logits[images, self.labels] if self.queries is None else logits[images, self.queries, self.labels]


def choose(
    model: nn.Module, logits: torch.Tensor | None, target: Target = None, query: int | Sequence[int] | None = None
) -> Choice:
    """Selects the scores that are explained.

    Args:
        model: Model whose configuration names the labels.
        logits: Logits (B, L) of a classifier, (B, Q, L + 1) of a detector whose last class is "no object", or (B, Q, L)
            of a detector with independent classes; None for a model without a head.
        target: Class, by index or name, for all images or one per image; None means the most likely one.
        query: Object query of a detector, for all images or one per image; None means the query with the highest
            probability of the class, or of any class if there is no `target`.

    Raises:
        ExplanationError: There is no such class or query, or the model has no head.
    """
    if logits is None:
        raise NotApplicableError(f"{type(unwrap(model)).__name__} gives no logits, so there is no class to explain")
    logits = logits.detach().float()
    if logits.ndim == 3:
        return _choose_object(model, logits, target, query)
    if query is not None:
        raise ExplanationError(
            f"{argument('query')} names an object query of a detector, and this model is a classifier"
        )
    problem = getattr(getattr(unwrap(model), "config", None), "problem_type", None)
    probabilities = logits.sigmoid() if problem == "multi_label_classification" else logits.softmax(dim=-1)
    labels = _indices(model, target, logits) if target is not None else logits.argmax(dim=-1)
    return Choice(labels, None, probabilities.gather(1, labels[:, None])[:, 0])


def _choose_object(model: nn.Module, logits: torch.Tensor, target: Target, query: int | Sequence[int] | None) -> Choice:
    num_labels = getattr(getattr(unwrap(model), "config", None), "num_labels", logits.shape[-1] - 1)
    probabilities = class_probabilities(logits, num_labels)
    images = torch.arange(len(logits), device=logits.device)
    labels = None if target is None else _indices(model, target, probabilities)
    if query is None:
        sure = probabilities.amax(dim=-1) if labels is None else probabilities[images, :, labels]
        queries = sure.argmax(dim=-1)
    else:
        queries = _per_image("query", query, logits)
        if wrong := [int(q) for q in queries if not 0 <= q < logits.shape[1]]:
            raise ExplanationError(f"{argument('query')} must lie in 0 to {logits.shape[1] - 1}, got {wrong[0]}")
    if labels is None:
        labels = probabilities[images, queries].argmax(dim=-1)
    return Choice(labels, queries, probabilities[images, queries, labels])


def _indices(
    model: nn.Module, target: int | str | Sequence[int | str] | torch.Tensor, logits: torch.Tensor
) -> torch.Tensor:
    names = label_names(model)
    numbers = {name: number for number, name in names.items()}

    def index(entry: int | str) -> int:
        if isinstance(entry, str):
            if entry not in numbers:
                shown = ", ".join(list(numbers)[:8]) + (", ..." if len(numbers) > 8 else "")
                raise ExplanationError(
                    f"{argument('target')} {entry!r} is no label of the model, whose labels are {shown or 'unnamed'}"
                )
            return numbers[entry]
        if isinstance(entry, bool) or not 0 <= int(entry) < logits.shape[-1] or int(entry) != entry:
            raise ExplanationError(
                f"{argument('target')} must be a class from 0 to {logits.shape[-1] - 1}, got {entry!r}"
            )
        return int(entry)

    entries = torch.as_tensor(target).reshape(-1).tolist() if isinstance(target, torch.Tensor) else target
    indices = [index(entry) for entry in ([entries] if isinstance(entries, int | str) else list(entries))]
    return _per_image("target", indices[0] if len(indices) == 1 else indices, logits)


def _per_image(name: str, value: int | Sequence[int], logits: torch.Tensor) -> torch.Tensor:
    values = torch.as_tensor(value, device=logits.device).reshape(-1)
    if values.is_floating_point() or len(values) not in (1, len(logits)):
        raise ExplanationError(f"`{name}` must be one value, or one per image ({len(logits)}), got {value!r}")
    return values.long().expand(len(logits))


def label_names(model: nn.Module) -> dict[int, str]:
    """Label names by index; empty if the model's configuration has no names."""
    names = getattr(getattr(unwrap(model), "config", None), "id2label", None) or {}
    return {int(index): str(name) for index, name in names.items()}


__all__ = ["Choice", "Target", "choose", "label_names"]
