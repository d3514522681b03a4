"""Matching of queries to target boxes (DETR, https://arxiv.org/abs/2005.12872, eq. 1).

Shapes: L layers, B images, Q queries, C classes, N boxes of the image with most of them, M matched pairs.
"""

from dataclasses import dataclass

import torch

from ..configuration.configuration_detr import HubDetrConfig
from .box_geometry import center_to_corners, generalized_iou, l1_distance
from .detr_targets import PaddedTargets


class NonFiniteCostError(FloatingPointError):
    """A prediction is infinite or not a number; the message names the decoder layer and the images."""


@dataclass
class Matches:
    """Matched pairs of all layers, sorted by layer and image; each field holds indices (M,) int64."""

    layer: torch.Tensor
    image: torch.Tensor
    query: torch.Tensor
    target: torch.Tensor


def matching_costs(
    logits: torch.Tensor, boxes: torch.Tensor, targets: PaddedTargets, config: HubDetrConfig
) -> torch.Tensor:
    """Matching cost of every pair of query and target within an image, (L, B, Q, N) in fp32.

    The cost is the sum, weighted by the configuration, of the class cost (minus the probability, or the focal form of
    Deformable DETR, https://arxiv.org/abs/2010.04159), the L1 distance and minus the generalised IoU.

    Args:
        logits: Logits (L, B, Q, classes).
        boxes: Predicted boxes (L, B, Q, 4), centers and sizes.
        targets: Targets of the B images.
        config: Configuration with the weights of the costs and the kind of class loss.
    """
    logits, boxes = logits.float(), boxes.float()
    wanted = targets.labels[None, :, None, :].expand(*logits.shape[:3], -1)  # (L, B, Q, N)
    if config.focal_loss:
        chance = logits.sigmoid()
        alpha, gamma = config.focal_alpha, config.focal_gamma
        present = alpha * (1 - chance) ** gamma * -(chance + 1e-8).log()
        absent = (1 - alpha) * chance**gamma * -(1 - chance + 1e-8).log()
        class_cost = (present - absent).gather(-1, wanted)
    else:
        class_cost = -logits.softmax(-1).gather(-1, wanted)
    there = targets.boxes[None, :, None]  # (1, B, 1, N, 4)
    here = boxes[:, :, :, None]  # (L, B, Q, 1, 4)
    distance = l1_distance(here, there)
    overlap = generalized_iou(center_to_corners(boxes)[:, :, :, None], center_to_corners(targets.boxes)[None, :, None])
    return config.bbox_cost * distance + config.class_cost * class_cost - config.giou_cost * overlap


@torch.no_grad()
def match_queries(logits: torch.Tensor, boxes: torch.Tensor, targets: PaddedTargets, config: HubDetrConfig) -> Matches:
    """One-to-one assignment of lowest cost in each image and layer, min(Q, boxes) pairs, computed by SciPy.

    The arguments are those of `matching_costs`. The costs of all layers are copied to the CPU in one transfer.

    Raises:
        NonFiniteCostError: A cost is infinite or not a number.
    """
    try:  # only training needs SciPy
        from scipy.optimize import linear_sum_assignment
    except ImportError as error:
        raise ImportError("the loss of a detector needs SciPy: pip install scipy") from error

    costs = matching_costs(logits, boxes, targets, config).cpu()
    if not costs.isfinite().all():
        _refuse(costs, targets)
    grid, pieces = costs.numpy(), list[torch.Tensor]()
    for layer in range(len(grid)):
        for image, count in enumerate(targets.counts):
            if count:
                pair = [torch.from_numpy(side) for side in linear_sum_assignment(grid[layer, image, :, :count])]
                place = [torch.full_like(pair[0], number) for number in (layer, image)]
                pieces.append(torch.stack([*place, *pair]))
    table = torch.cat(pieces, dim=1) if pieces else torch.empty(4, 0, dtype=torch.int64)
    return Matches(*table.to(torch.int64).to(logits.device, non_blocking=True).unbind(0))


def _refuse(costs: torch.Tensor, targets: PaddedTargets) -> None:
    broken = ~costs.isfinite().all(dim=3).all(dim=2)  # (L, B)
    layer = int(broken.any(dim=1).nonzero()[0])
    images = [str(targets.image_ids[image]) for image in broken[layer].nonzero().flatten().tolist()]
    raise NonFiniteCostError(
        f"the predictions of decoder layer {layer} are infinite or not a number for the images {', '.join(images)}"
    )


__all__ = ["Matches", "NonFiniteCostError", "match_queries", "matching_costs"]
