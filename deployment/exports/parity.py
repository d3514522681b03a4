"""Agreement of an exported form with its source: the same outputs on the same pixels, alone and in a batch."""

from collections.abc import Sequence
from typing import Any

import torch
from scipy.optimize import linear_sum_assignment

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
        for name in names:
            if not bool(torch.isfinite(whole[name]).all()):
                raise BackendError(
                    f"the exported {name} are infinite or not a number: its numbers exceed the range of {precision}"
                )
        values = in_order(wanted, [whole[name] for name in names], names)
        for name, reference, found in zip(names, wanted, values, strict=True):
            scale = max(1.0, float(reference.abs().max()))
            difference = float((found - reference).abs().max()) / scale
            differences[name] = max(differences.get(name, 0.0), difference)
    repeated = pixels[0][:1].expand(BATCH, -1, -1, -1).contiguous()
    alone, batched = exported(pixel_values=repeated[:1]), exported(pixel_values=repeated)
    names = list(alone)
    reference = [alone[name].expand(BATCH, *alone[name].shape[1:]) for name in names]
    values = in_order(reference, [batched[name] for name in names], names)
    differences["batch"] = max(
        float((found - one).abs().max()) / max(1.0, float(one.abs().max()))
        for found, one in zip(values, reference, strict=True)
    )
    limit, worst = LARGEST.get(precision), max(differences, key=lambda name: differences[name])
    if limit is not None and differences[worst] > limit:
        raise BackendError(
            f"the exported {worst} differ from the model's by {differences[worst]:.2g} of their range, more than "
            f"{limit:g}, which {precision} explains"
        )
    return differences


def in_order(
    wanted: Sequence[torch.Tensor], found: Sequence[torch.Tensor], names: Sequence[str]
) -> Sequence[torch.Tensor]:
    """Puts a detector's queries of each image into the order of the reference's; returns other outputs as they are.

    RT-DETR and its relatives choose queries by their scores, and rounding changes the order of nearly equal ones.

    Args:
        wanted: Outputs of the reference, of a detector each (B, Q, ...).
        found: Outputs to put in order, of the same shapes.
        names: Names of the outputs.
    """
    if "pred_boxes" not in names or any(one.shape != other.shape for one, other in zip(wanted, found, strict=True)):
        return found
    distances = torch.cdist(torch.cat(list(wanted), dim=-1), torch.cat(list(found), dim=-1), p=1.0)  # (B, Q, Q)
    order = torch.stack([torch.from_numpy(linear_sum_assignment(one.numpy())[1]) for one in distances])  # (B, Q)
    return [torch.take_along_dim(value, order[:, :, None], dim=1) for value in found]


__all__ = ["BATCH", "LARGEST", "in_order", "measure_parity"]
