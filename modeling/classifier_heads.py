"""Replacement of a classifier's label set."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import nn
from transformers.utils import logging

logger = logging.get_logger(__name__)


class HeadResizing:
    """Mixin of classifiers whose `head_names` name linear layers (or None) with one row per label.

    A subclass may have `extra_rows` further rows after the labels, which keep their weights, and may set the initial
    bias of new labels, `fresh_bias` (0 by default).
    """

    head_names: ClassVar[tuple[str, ...]] = ()
    extra_rows = 0
    fresh_bias = 0.0
    config: Any

    def resize(self, labels: Sequence[str] | int) -> None:
        """Replaces the label set of the heads, in place.

        A label that the model already has under the same name keeps its weights; the rows of the others are
        re-initialised, and a warning names them.

        Args:
            labels: Label names in the order of their indices, or a number of labels named LABEL_0, LABEL_1, ...

        Raises:
            ValueError: `labels` is empty or has a name twice.
        """
        names = [f"LABEL_{i}" for i in range(labels)] if isinstance(labels, int) else [str(name) for name in labels]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"`labels` must be at least one distinct name, got {labels!r}")
        old_rows = {name: row for row, name in self.config.id2label.items()}
        kept = {} if isinstance(labels, int) else {row: old_rows[n] for row, n in enumerate(names) if n in old_rows}
        if list(self.config.id2label.values()) == names:
            return
        fresh = [name for row, name in enumerate(names) if row not in kept]
        self._replace_heads(names, kept)
        if fresh:
            shown = ", ".join(fresh[:10]) + (f" and {len(fresh) - 10} more" if len(fresh) > 10 else "")
            logger.warning(
                "%s: the rows of %d of %d labels were re-initialised and need training: %s",
                " and ".join(self.head_names), len(fresh), len(names), shown,
            )  # fmt: skip

    def reset_classifier(self, num_classes: int) -> None:
        """Replaces the heads by new ones with initial weights, for the labels LABEL_0, LABEL_1, ..., in place.

        It is timm's method of this name; `resize` gives labels names, and keeps the weights of those it knows.

        Args:
            num_classes: Number of labels, at least 1. Features without a head are the output of `base_model`.

        Raises:
            ValueError: `num_classes` is below 1.
        """
        if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 1:
            raise ValueError(
                f"`num_classes` must be a whole number of at least 1, got {num_classes!r}; `base_model` has no head"
            )
        self._replace_heads([f"LABEL_{row}" for row in range(num_classes)], {})

    def _replace_heads(self, names: Sequence[str], kept: dict[int, int]) -> None:
        """Gives the heads the labels `names`; `kept` maps their rows to old ones that keep their weights."""
        old = len(self.config.id2label)
        extra = {len(names) + row: old + row for row in range(self.extra_rows)}
        start = (self.config.initializer_range, self.fresh_bias)
        for head_name in self.head_names:
            if (head := getattr(self, head_name)) is not None:
                setattr(self, head_name, _resized(head, len(names) + len(extra), kept | extra, *start))
        self.config.id2label = dict(enumerate(names))
        self.config.label2id = {name: row for row, name in enumerate(names)}


def _resized(head: nn.Linear, size: int, kept: dict[int, int], std: float, bias: float) -> nn.Linear:
    """Linear layer of `size` rows; `kept` maps its rows to rows of `head`, the others are initialised anew."""
    layer = nn.Linear(head.in_features, size, device=head.weight.device, dtype=head.weight.dtype)
    nn.init.trunc_normal_(layer.weight, std=std)
    nn.init.constant_(layer.bias, bias)
    if kept:
        with torch.no_grad():
            new, old = list(kept), list(kept.values())
            layer.weight[new], layer.bias[new] = head.weight[old], head.bias[old]
    layer.requires_grad_(head.weight.requires_grad)
    return layer


__all__ = ["HeadResizing"]
