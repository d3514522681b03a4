"""Loss of DETR (Carion et al. 2020, https://arxiv.org/abs/2005.12872, eq. 2), computed for all decoder layers at once.

Shapes: L layers, B images, Q queries, C classes, N boxes of the image with most of them, M matched pairs.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ..configuration.configuration_detr import HubDetrConfig
from .box_geometry import center_to_corners, generalized_iou, l1_distance
from .detr_matcher import Matches, match_queries
from .detr_targets import PaddedTargets

Count = float | torch.Tensor  # a number, or a scalar tensor that the host does not read


def loss_counts(labels: Sequence[dict[str, Any]], config: HubDetrConfig) -> torch.Tensor:
    """Counts that the terms of the loss are divided by: boxes, matched boxes, images, denoised boxes, (4,) fp32.

    The counts depend on the targets alone. A training loop that splits a batch into pieces passes each piece the mean
    of the counts of all pieces; the mean of the pieces' losses is then the loss of the whole batch.
    """
    return counts_of_sizes([len(target["class_labels"]) for target in labels], config)


def counts_of_sizes(sizes: Sequence[int], config: HubDetrConfig) -> torch.Tensor:
    """Counts as `loss_counts` returns them, computed from the number of boxes of each image."""
    matched = sum(min(size, config.num_queries) for size in sizes)
    denoised = sum(denoised_boxes(size, config) for size in sizes)
    return torch.tensor([sum(sizes), matched, len(sizes), denoised], dtype=torch.float32)


def denoised_boxes(size: int, config: HubDetrConfig) -> int:
    """Number of denoising queries that an image with `size` boxes uses: whole copies of all its boxes."""
    room = config.denoising_queries
    return room if size > room else room // size * size if size else 0


def average_over_processes(counts: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Mean of the counts over all processes, which must all call it at the same step.

    Args:
        counts: Counts of this process, (4,) fp32.
        device: Device on which the processes exchange data; a single process leaves the counts where they are.
    """
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return counts
    counts = counts.to(device, non_blocking=True, copy=True)
    distributed.all_reduce(counts)
    return counts / distributed.get_world_size()


def as_divisors(counts: torch.Tensor, device: torch.device) -> tuple[torch.Tensor, ...]:
    """The four counts as scalars on a device, the number of boxes at least 1; the host does not read them."""
    exact = torch.float32 if device.type == "mps" else torch.float64  # MPS has no fp64
    boxes, matched, images, denoised = counts.to(device, exact, non_blocking=True).unbind()
    return boxes.clamp(min=1), matched, images, denoised


def class_divisor(config: HubDetrConfig, matched: Count, total: Count, boxes: Count) -> Count:
    """Divisor of the class term: the number of boxes (focal loss), or the sum of the queries' weights."""
    return boxes if config.focal_loss else matched + config.eos_coefficient * (total - matched)


def class_loss(
    logits: torch.Tensor, classes: torch.Tensor, config: HubDetrConfig, matched: Count, total: Count, boxes: Count
) -> torch.Tensor:
    """Class term of each layer, (L,).

    Args:
        logits: Logits (L, B, Q, C), or with "no object" last (L, B, Q, C + 1).
        classes: Target classes (L, B, Q); C where a query has no object.
        config: Configuration with the kind of class loss and its weights.
        matched: Number of queries with an object, for the divisor of the cross-entropy.
        total: Number of all queries, for the divisor of the cross-entropy.
        boxes: Number of boxes, the divisor of the focal loss.
    """
    logits = logits.float()
    divisor = class_divisor(config, matched, total, boxes)
    if config.focal_loss:
        # Comparing instead of `one_hot`, which reads the largest class back on some devices.
        one_hot = (classes[..., None] == torch.arange(config.num_labels, device=classes.device)).to(logits)
        entropy = nn.functional.binary_cross_entropy_with_logits(logits, one_hot, reduction="none")
        missed = (logits.sigmoid() - one_hot).abs()  # 1 - probability of the true outcome
        weight = (config.focal_alpha * one_hot + (1 - config.focal_alpha) * (1 - one_hot)) * missed**config.focal_gamma
        return (weight * entropy).flatten(1).sum(1) / divisor
    weight = logits.new_ones(config.num_labels + 1)
    weight[-1] = config.eos_coefficient
    entropy = nn.functional.cross_entropy(logits.flatten(0, 2), classes.flatten(), weight, reduction="none")
    return entropy.view(len(logits), -1).sum(1) / divisor


def box_losses(
    boxes: torch.Tensor, targets: PaddedTargets, matches: Matches, divisor: Count
) -> tuple[torch.Tensor, torch.Tensor]:
    """L1 and 1 - generalised IoU terms of each layer, (L,) each: sums over the matched pairs, divided by `divisor`.

    Args:
        boxes: Predicted boxes (L, B, Q, 4).
        targets: Targets of the B images.
        matches: Matched pairs of all layers.
        divisor: Number that the sums are divided by.
    """
    found = boxes.float()[matches.layer, matches.image, matches.query]  # (M, 4)
    wanted = targets.boxes[matches.image, matches.target]
    apart = l1_distance(found, wanted)
    overlap = generalized_iou(center_to_corners(found), center_to_corners(wanted))
    zero = found.new_zeros(boxes.shape[0])
    by_layer = [zero.index_add(0, matches.layer, term) / divisor for term in (apart, 1 - overlap)]
    return by_layer[0], by_layer[1]


def detection_loss(
    logits: torch.Tensor,
    boxes: torch.Tensor,
    targets: PaddedTargets,
    config: HubDetrConfig,
    counts: torch.Tensor | None = None,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Weighted sum of the loss terms of all layers, and the terms.

    Args:
        logits: Logits (L, B, Q, classes), first layer to last.
        boxes: Predicted boxes (L, B, Q, 4), first layer to last.
        targets: Targets of the B images.
        config: Configuration with the weights of the terms and the matching costs.
        counts: Divisors as `loss_counts` returns them, (4,); None counts `targets`.

    Returns:
        The loss, and its terms, detached and unweighted: "loss_ce", "loss_bbox" and "loss_giou" of the last layer, and
        those of the other layers with "_0", "_1", ... after the name.

    Raises:
        NonFiniteCostError: Predictions are infinite or not a number.
    """
    matches = match_queries(logits, boxes, targets, config)
    counted = counts_of_sizes(targets.counts, config) if counts is None else counts
    number, matched, images, _ = as_divisors(counted, logits.device)
    classes = torch.full(logits.shape[:3], config.num_labels, dtype=torch.int64, device=logits.device)
    classes[matches.layer, matches.image, matches.query] = targets.labels[matches.image, matches.target]
    terms = {
        "loss_ce": class_loss(logits, classes, config, matched, images * logits.shape[2], number),
    }
    terms["loss_bbox"], terms["loss_giou"] = box_losses(boxes, targets, matches, number)
    return weigh(terms, config)


def weigh(
    terms: dict[str, torch.Tensor], config: HubDetrConfig, suffix: str = ""
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Weighted sum over the layers of terms (L,), and the terms by name; names of the last layer have no number."""
    weights = {
        "loss_ce": config.class_loss_coefficient,
        "loss_bbox": config.bbox_loss_coefficient,
        "loss_giou": config.giou_loss_coefficient,
    }
    total = sum(weights[name] * term.sum() for name, term in terms.items())
    assert isinstance(total, torch.Tensor)
    named = {f"{name}{suffix}": term[-1].detach() for name, term in terms.items()}
    for name, term in terms.items():
        named |= {f"{name}{suffix}_{layer}": value for layer, value in enumerate(term[:-1].detach())}
    return total, named


__all__ = [
    "as_divisors",
    "average_over_processes",
    "box_losses",
    "class_divisor",
    "class_loss",
    "counts_of_sizes",
    "denoised_boxes",
    "detection_loss",
    "loss_counts",
    "weigh",
]
