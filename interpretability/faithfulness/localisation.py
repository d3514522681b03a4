"""Agreement of maps with annotated objects. It is not faithfulness: a model may use evidence beside the object.

Shapes: B images.
"""

from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage

# Measures, and whether higher (1) or lower (-1) values are better.
PLACE_MEASURES = {"pointing_game": 1, "mask_iou": 1, "box_iou": 1}
# Measures that are a share of images that are right or wrong, apart from ties; higher is better for all of them.
SHARES = frozenset({"pointing_game"})


def pointing_game(maps: torch.Tensor, masks: torch.Tensor, tolerance: int = 0) -> torch.Tensor:
    """Whether the maximum of a map lies on the object (Zhang et al. 2018, https://arxiv.org/abs/1608.00507).

    Args:
        maps: Maps (B, height, width).
        masks: Masks (B, height, width), bool, True on the object.
        tolerance: Number of pixels around the object, along both axes, that still count; 0 by default.

    Returns:
        Score of each image, (B,), fp64: 1 on the object, 0 beside it; if the maximum occurs several times, the share of
        its positions that lie on the object.
    """
    _check(maps, masks)
    if tolerance:
        grown = torch.nn.functional.max_pool2d(masks[:, None].float(), 2 * tolerance + 1, 1, tolerance)
        masks = grown[:, 0] > 0
    largest = maps == maps.amax(dim=(1, 2), keepdim=True)
    return (largest & masks).sum(dim=(1, 2)).double() / largest.sum(dim=(1, 2))


def mask_iou(maps: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Intersection over union (IoU) of the object and the equally many pixels with the largest values.

    The measure needs no threshold, because the map gets the area of the object.

    Args:
        maps: Maps (B, height, width).
        masks: Masks (B, height, width), bool, True on the object.

    Returns:
        IoU of each image, (B,), fp64, in [0, 1]; NaN without an object.
    """
    _check(maps, masks)
    found = torch.full((len(maps),), torch.nan, dtype=torch.float64)
    for number, (values, mask) in enumerate(zip(maps.flatten(1), masks.flatten(1), strict=True)):
        if area := int(mask.sum()):
            chosen = torch.zeros_like(mask)
            chosen[values.argsort(descending=True, stable=True)[:area]] = True
            found[number] = float((chosen & mask).sum()) / float((chosen | mask).sum())
    return found


def box_iou(maps: torch.Tensor, boxes: Sequence[torch.Tensor], threshold: float = 0.2) -> torch.Tensor:
    """Intersection over union (IoU) of the map's box and the best fitting annotated box.

    Args:
        maps: Maps (B, height, width).
        boxes: Annotated boxes (n, 4) of each image: left, top, right, bottom in pixels.
        threshold: Share of the map's maximum above which pixels belong to its box, in (0, 1); see `map_box`.

    Returns:
        IoU of each image, (B,), fp64, in [0, 1]; NaN without an annotated box.
    """
    if len(maps) != len(boxes):
        raise ValueError(f"there must be boxes for each of {len(maps)} maps, got {len(boxes)}")
    found = torch.full((len(maps),), torch.nan, dtype=torch.float64)
    for number, (values, annotated) in enumerate(zip(maps, boxes, strict=True)):
        if len(annotated):
            own = map_box(values, threshold)
            found[number] = max(_box_overlap(own, [float(edge) for edge in box]) for box in annotated)
    return found


def map_box(values: torch.Tensor, threshold: float) -> list[float]:
    """Box around the largest connected region of a map above a threshold: left, top, right, bottom in pixels.

    The method is that of CAM (Zhou et al. 2016, https://arxiv.org/abs/1512.04150, section 3.2).

    Args:
        values: Map (height, width).
        threshold: Threshold as a share of the map's maximum, in (0, 1).

    Returns:
        Edges of the box; the whole image if no value is positive.
    """
    height, width = values.shape
    if float(values.max()) <= 0:
        return [0.0, 0.0, float(width), float(height)]
    parts, count = ndimage.label((values > threshold * values.max()).numpy(force=True))
    sizes = ndimage.sum_labels(np.ones_like(parts), parts, range(1, count + 1))
    rows, columns = ndimage.find_objects(parts)[int(np.argmax(sizes))]
    return [float(columns.start), float(rows.start), float(columns.stop), float(rows.stop)]


def box_masks(boxes: Sequence[torch.Tensor], image_hw: tuple[int, int]) -> torch.Tensor:
    """Masks of boxes, (B, height, width), bool: True for pixels whose centre lies in one of an image's boxes."""
    height, width = image_hw
    y, x = torch.arange(height)[:, None] + 0.5, torch.arange(width)[None] + 0.5
    masks = torch.zeros(len(boxes), height, width, dtype=torch.bool)
    for mask, annotated in zip(masks, boxes, strict=True):
        for left, top, right, bottom in annotated.tolist():
            mask |= (x > left) & (x < right) & (y > top) & (y < bottom)
    return masks


def _box_overlap(first: Sequence[float], second: Sequence[float]) -> float:
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    shared = max(width, 0.0) * max(height, 0.0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return shared / (sum(areas) - shared)


def _check(maps: torch.Tensor, masks: torch.Tensor) -> None:
    if maps.shape != masks.shape or masks.dtype != torch.bool:
        raise ValueError(
            f"masks must be bool and of the maps' shape {tuple(maps.shape)}, got {masks.dtype} {tuple(masks.shape)}"
        )


__all__ = ["PLACE_MEASURES", "SHARES", "box_iou", "box_masks", "map_box", "mask_iou", "pointing_game"]
