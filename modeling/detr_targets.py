"""Training targets of DETR: the annotated classes and boxes of each image, checked and padded to tensors.

Shapes: B images, N boxes of the image with most of them, S denoising queries.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import finalize

import torch
from transformers.utils import logging

from ..configuration.configuration_detr import HubDetrConfig
from .box_geometry import center_to_corners

logger = logging.get_logger(__name__)

# Ids of the configurations for which too many boxes were warned of, so that each model warns once.
_TOLD: set[int] = set()
EDGE = 1e-3  # fraction of the image that a box may reach beyond its edge by rounding


@dataclass
class PaddedTargets:
    """Target boxes of a batch as tensors.

    Args:
        labels: Class indices, (B, N) int64; 0 where an image has fewer boxes.
        boxes: Boxes, (B, N, 4) fp32; 0 where an image has fewer boxes.
        counts: Number of boxes of each image.
        image_ids: Name of each image in messages.
        noise: Noise of the denoising queries, (B, S, 6) in [0, 1); None draws it.
    """

    labels: torch.Tensor
    boxes: torch.Tensor
    counts: list[int]
    image_ids: list[Any]
    noise: torch.Tensor | None = None

    def to(self, device: torch.device, non_blocking: bool = True) -> "PaddedTargets":
        """Copies the tensors to a device, by default without waiting for its work."""
        labels, boxes = (tensor.to(device, non_blocking=non_blocking) for tensor in (self.labels, self.boxes))
        noise = None if self.noise is None else self.noise.to(device, non_blocking=non_blocking)
        return PaddedTargets(labels, boxes, self.counts, self.image_ids, noise)


def read_targets(
    labels: Sequence[dict[str, Any]] | PaddedTargets, batch: int, config: HubDetrConfig, device: torch.device
) -> PaddedTargets:
    """Checks the targets of a batch and pads them to tensors.

    The checks read values, so that targets on an accelerator make the host wait for it; targets on the CPU do not.

    Args:
        labels: One dict per image, as `HubDetrForObjectDetection` takes them; or what this function returned before,
            which is not checked again.
        batch: Number of images B.
        config: Configuration of the model.
        device: Device of the model.

    Raises:
        ValueError: Targets are wrong; the message names the image and the fault.
    """
    if isinstance(labels, PaddedTargets):
        if len(labels.counts) != batch:
            raise ValueError(f"`labels` must be targets of the {batch} images, got those of {len(labels.counts)}")
        return labels.to(device)
    check_targets(labels, batch, config)
    targets = pad_targets(labels, labels[0]["boxes"].device if labels else device)
    check_values(targets, config)
    targets.noise = _noise(labels, config.denoising_queries) if config.denoising_queries else None
    return targets.to(device)


def check_targets(labels: Sequence[dict[str, Any]], batch: int, config: HubDetrConfig) -> None:
    """Checks the structure of the targets: one dict per image, with as many labels as boxes.

    Raises:
        ValueError: The structure is wrong; the message names the image and the fault.
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
    """Checks the values of the targets: labels exist, and boxes lie in the image and have an area.

    Raises:
        ValueError: A value is wrong; the message names the first such box and its image.
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


def pad_targets(labels: Sequence[dict[str, Any]], device: torch.device) -> PaddedTargets:
    """Pads targets, as `HubDetrForObjectDetection` takes them, to N boxes per image; N is at least 1."""
    counts = [len(target["class_labels"]) for target in labels]
    most = max([1, *counts])
    classes = torch.zeros(len(labels), most, dtype=torch.int64, device=device)
    boxes = torch.zeros(len(labels), most, 4, device=device)
    if total := sum(counts):
        place = torch.tensor([image * most + n for image, count in enumerate(counts) for n in range(count)])
        place = place.to(device, non_blocking=True)
        flat_labels = torch.cat([target["class_labels"].reshape(-1) for target in labels]).to(device)
        flat_boxes = torch.cat([target["boxes"].reshape(-1, 4) for target in labels]).to(boxes)
        assert len(flat_labels) == len(flat_boxes) == total
        classes.view(-1)[place] = flat_labels
        boxes.view(-1, 4)[place] = flat_boxes
    image_ids = [image_name(target, position) for position, target in enumerate(labels)]
    return PaddedTargets(classes, boxes, counts, image_ids)


def _noise(labels: Sequence[dict[str, Any]], slots: int) -> torch.Tensor | None:
    """Noise (B, S, 6) in [0, 1) that the targets carry; None where they carry none."""
    given = [target["noise"] for target in labels if "noise" in target]
    if not given:
        return None
    if len(given) != len(labels) or any(tuple(noise.shape) != (slots, 6) for noise in given):
        shapes = sorted({tuple(noise.shape) for noise in given})
        raise ValueError(
            f"`noise` must be ({slots}, 6) for each of the {len(labels)} images or for none, got {shapes} for "
            f"{len(given)} of them"
        )
    return torch.stack(given).float()


def image_name(target: dict[str, Any], position: int) -> Any:
    """Name of an image in messages: its id (converted from a tensor), or its position in the batch."""
    image_id = target.get("image_id", position)
    if not isinstance(image_id, torch.Tensor):
        return image_id
    return image_id.item() if image_id.numel() == 1 else image_id.tolist()


__all__ = ["PaddedTargets", "check_targets", "check_values", "image_name", "pad_targets", "read_targets"]
