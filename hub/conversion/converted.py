"""Result of converting a checkpoint, as `load` and `convert` use it."""

from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedModel


@dataclass
class Conversion:
    """Model of this package with its image processor, and a report of its conversion.

    Args:
        model: Converted model, in evaluation mode.
        image_processor: Image processor of transformers that prepares images for the model.
        source: Path, Hub id or class name of the source model.
        family: Family of the source checkpoint: "vithub", "vit", "deit", "dinov2", "dinov2_with_registers", "detr",
            "timm", "deit-original", "detr-original" or "remote code".
        differences: Largest absolute difference from the source's output, by name of the comparison; empty if nothing
            was compared.
        dropped: Names of the source's tensors that the task does not need.
        notes: Remarks for the user, such as assumptions made.
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
        """Largest of `differences`; None if nothing was compared."""
        return max(self.differences.values(), default=None)


__all__ = ["Conversion"]
