"""Agreement of an exported form with its source: the same outputs on the same pixels, alone and in a batch."""

from collections.abc import Sequence
from typing import Any

import torch

from ...hub.exported.exported_model import ExportedModel
from ...hub.exported.forms import BackendError
from .graphs import Graph

# Largest difference of an output from the source's, by precision; int8 is judged by its accuracy alone.
LARGEST = {"fp32": 1e-4, "bf16": 0.5, "fp16": 0.05}
BATCH = 8


def measure_parity(
    model: Any, exported: ExportedModel, pixels: Sequence[torch.Tensor], precision: str
) -> dict[str, float]:
    """Compares an exported form with its source on pixels, and its batches of 1 with its batches of 8.

    Args:
        model: Source, in evaluation mode and float32.
        exported: Exported form.
        pixels: Batches of normalised images, each (B, C, height, width).
        precision: Precision of the form.

    Returns:
        Largest absolute difference by output, and `batch` for that between batch sizes.

    Raises:
        BackendError: A difference is larger than the precision explains, or an output is not finite.
    """
    graph, differences = Graph(model), dict[str, float]()
    for batch in pixels:
        with torch.no_grad():
            wanted = graph(batch)
        whole = exported(pixel_values=batch)
        names = [name for name in graph.outputs if name in whole][: len(wanted)]
        for name, reference in zip(names, wanted, strict=True):
            found = whole[name]
            if not bool(torch.isfinite(found).all()):
                raise BackendError(
                    f"the exported {name} are infinite or not a number: its numbers exceed the range of {precision}"
                )
            scale = max(1.0, float(reference.abs().max()))
            difference = float((found - reference).abs().max()) / scale
            differences[name] = max(differences.get(name, 0.0), difference)
    repeated = pixels[0][:1].expand(BATCH, -1, -1, -1).contiguous()
    alone, batched = exported(pixel_values=repeated[:1]), exported(pixel_values=repeated)
    differences["batch"] = max(
        float((batched[name] - alone[name]).abs().max()) / max(1.0, float(alone[name].abs().max())) for name in alone
    )
    limit, worst = LARGEST.get(precision), max(differences, key=lambda name: differences[name])
    if limit is not None and differences[worst] > limit:
        raise BackendError(
            f"the exported {worst} differ from the model's by {differences[worst]:.2g} of their range, more than "
            f"{limit:g}, which {precision} explains"
        )
    return differences


__all__ = ["BATCH", "LARGEST", "measure_parity"]
