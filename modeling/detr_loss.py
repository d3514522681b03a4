"""The loss of DETR (Carion et al. 2020, https://arxiv.org/abs/2005.12872, eq. 2), of all decoder layers at once.

Shapes: L layers, B images, Q queries, C classes, N boxes of the image with most of them, M matched pairs.
"""

from collections.abc import Sequence
from typing import Any
from weakref import finalize

import torch
from torch import nn
from transformers.utils import logging

from ..configuration.configuration_detr import HubDetrConfig
from .box_geometry import center_to_corners, generalized_iou, l1_distance
from .detr_matcher import Matches, PaddedTargets, image_name, match_queries, pad_targets

logger = logging.get_logger(__name__)

# Ids of the configurations whose models have been told of too many boxes: once for a model and what it is trained on.
_TOLD: set[int] = set()
EDGE = 1e-3  # how far a box may pass the image's edge by rounding, of its size


def check_targets(labels: Sequence[dict[str, Any]], batch: int, config: HubDetrConfig) -> None:
    """Form of the targets: one dict per image, with as many labels as boxes.

    Raises:
        ValueError: What is wrong, in which image.
    """
    if len(labels) != batch:
        raise ValueError(f"`labels` must have one entry for each of the {batch} images, got {len(labels)}")
    for position, target in enumerate(labels):
        name = f"image {image_name(target, position)}"
        if missing := {"class_labels", "boxes"} - set(target):
            raise ValueError(f"{name}: `labels` must have `class_labels` and `boxes`, got no {', '.join(missing)}")
        classes, boxes = target["class_labels"], target["boxes"]
        if classes.is_floating_point() or classes.dtype == torch.bool or classes.ndim != 1:
            raise ValueError(f"{name}: `class_labels` must be (n,) whole numbers, got {classes.dtype} {classes.shape}")
        if not boxes.is_floating_point() or tuple(boxes.shape) != (len(classes), 4):
            raise ValueError(
                f"{name}: `boxes` must be ({len(classes)}, 4) floats, one for each of the `class_labels`, got "
                f"{boxes.dtype} {tuple(boxes.shape)}"
            )
    crowded = [number for number, target in enumerate(labels) if len(target["class_labels"]) > config.num_queries]
    if crowded and id(config) not in _TOLD:
        _TOLD.add(id(config))
        finalize(config, _TOLD.discard, id(config)).atexit = False
        image, boxes = image_name(labels[crowded[0]], crowded[0]), len(labels[crowded[0]]["class_labels"])
        logger.warning(
            f"image {image} has {boxes} boxes and the model {config.num_queries} queries: some boxes are never "
            "matched, here and in other such images, which are not named"
        )


def check_values(targets: PaddedTargets, config: HubDetrConfig) -> None:
    """Range of the targets: labels that exist, and boxes that lie in the image and have an area.

    Raises:
        ValueError: The first that does not, with its image.
    """
    count = torch.tensor(targets.counts, device=targets.labels.device)
    used = torch.arange(targets.labels.shape[1], device=targets.labels.device) < count[:, None]  # (B, N)
    wrong_label = (targets.labels < 0) | (targets.labels >= config.num_labels)
    corners = center_to_corners(targets.boxes)
    inside = ((corners >= -EDGE) & (corners <= 1 + EDGE)).all(-1) & (targets.boxes[..., 2:] > 0).all(-1)
    wrong = used & (wrong_label | ~inside)  # a comparison with NaN is False, hence not inside
    if not wrong.any():
        return
    image, position = wrong.nonzero()[0].tolist()
    name = f"image {targets.image_ids[image]}, box {position}"
    label, box = int(targets.labels[image, position]), [round(v, 4) for v in targets.boxes[image, position].tolist()]
    if not 0 <= label < config.num_labels:
        raise ValueError(f"{name}: `class_labels` must lie in 0..{config.num_labels - 1}, got {label}")
    raise ValueError(
        f"{name}: `boxes` must be (center x, center y, width, height) relative to the image without padding, within "
        f"[0, 1] and with an area, got {box}; cut boxes that reach beyond their image before"
    )


def loss_counts(labels: Sequence[dict[str, Any]], config: HubDetrConfig) -> torch.Tensor:
    """What the terms of the loss are divided by: numbers of boxes, matched boxes, images and denoised boxes, (4,) fp32.

    They depend on the targets alone. A training loop that cuts a batch into pieces gives each piece the mean of the
    counts of all pieces; the mean of the pieces' losses is then the loss of the whole batch.
    """
    sizes = [len(target["class_labels"]) for target in labels]
    matched = sum(min(size, config.num_queries) for size in sizes)
    room = config.denoising_queries
    denoised = sum(room if size > room else room // size * size for size in sizes if size)
    return torch.tensor([sum(sizes), matched, len(sizes), denoised], dtype=torch.float32)


def average_over_processes(counts: torch.Tensor) -> torch.Tensor:
    """The mean of the counts over all processes; each must call it at the same step."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return counts
    counts = counts.clone()
    distributed.all_reduce(counts)
    return counts / distributed.get_world_size()


def class_divisor(config: HubDetrConfig, matched: float, total: float, boxes: float) -> float:
    """What the class term is divided by: the number of boxes (focal loss), or the sum of the queries' weights."""
    return boxes if config.focal_loss else matched + config.eos_coefficient * (total - matched)


def class_loss(
    logits: torch.Tensor, classes: torch.Tensor, config: HubDetrConfig, matched: float, total: float, boxes: float
) -> torch.Tensor:
    """The class term of each layer, (L,).

    Args:
        logits: (L, B, Q, C), or with "no object" last (L, B, Q, C + 1).
        classes: (L, B, Q), C where a query has no object.
        config: Which loss, and its weights.
        matched: Number of queries with an object that the mean counts.
        total: Number of queries that it counts.
        boxes: Number of boxes, which the focal loss is divided by.
    """
    logits = logits.float()
    divisor = class_divisor(config, matched, total, boxes)
    if config.focal_loss:
        one_hot = nn.functional.one_hot(classes, config.num_labels + 1)[..., :-1].to(logits)
        entropy = nn.functional.binary_cross_entropy_with_logits(logits, one_hot, reduction="none")
        missed = (logits.sigmoid() - one_hot).abs()  # 1 - the probability of what is true
        weight = (config.focal_alpha * one_hot + (1 - config.focal_alpha) * (1 - one_hot)) * missed**config.focal_gamma
        return (weight * entropy).flatten(1).sum(1) / divisor
    weight = logits.new_ones(config.num_labels + 1)
    weight[-1] = config.eos_coefficient
    entropy = nn.functional.cross_entropy(logits.flatten(0, 2), classes.flatten(), weight, reduction="none")
    return entropy.view(len(logits), -1).sum(1) / divisor


def box_losses(
    boxes: torch.Tensor, targets: PaddedTargets, matches: Matches, divisor: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """L1 and 1 - generalised IoU of each layer, (L,) each: summed over matched pairs of (L, B, Q, 4), then divided."""
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
    labels: Sequence[dict[str, Any]],
    config: HubDetrConfig,
    counts: torch.Tensor | None = None,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The weighted sum of the terms of all layers, and the terms.

    Args:
        logits: (L, B, Q, classes), first layer to last.
        boxes: (L, B, Q, 4), likewise.
        labels: One dict per image (see `HubDetrForObjectDetection`).
        config: Weights and costs.
        counts: As `loss_counts`; None counts these labels.

    Returns:
        The loss, and "loss_ce", "loss_bbox", "loss_giou" of the last layer and, with "_0", "_1", ... behind, of the
        others; detached, not yet weighted.

    Raises:
        ValueError: Wrong targets.
        NonFiniteCostError: Wrong predictions.
    """
    check_targets(labels, logits.shape[1], config)
    targets = pad_targets(labels, logits.device)
    check_values(targets, config)
    matches = match_queries(logits, boxes, targets, config)
    counted = loss_counts(labels, config) if counts is None else counts
    number, matched, images, _ = counted.tolist()
    number = max(number, 1.0)
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
    """The weighted sum of terms (L,) over layers, and the terms by name, those of the last layer without a number."""
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
    "average_over_processes",
    "box_losses",
    "check_targets",
    "check_values",
    "class_divisor",
    "class_loss",
    "detection_loss",
    "loss_counts",
    "weigh",
]
