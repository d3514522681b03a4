"""What `load` and `convert` made of a checkpoint."""

from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedModel


@dataclass
class Conversion:
    """One of our models, and where it came from.

    Args:
        model: The model, in evaluation mode.
        image_processor: The stock processor that belongs to it.
        source: Where the weights came from.
        family: "vithub", "vit", "deit", "dinov2", "dinov2_with_registers", "detr", "timm", "deit-original" or
            "detr-original".
        differences: Largest difference from the source's output by comparison; empty where nothing was compared.
        dropped: Names of tensors that the task does not need.
        notes: What a user should know.
        fresh: Names of tensors that the checkpoint lacks and that need training.
    """

    model: PreTrainedModel
    image_processor: Any
    source: str
    family: str
    differences: dict[str, float] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    fresh: list[str] = field(default_factory=list)

    @property
    def max_difference(self) -> float | None:
        """The largest of `differences`."""
        return max(self.differences.values(), default=None)


__all__ = ["Conversion"]
