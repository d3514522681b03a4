"""Conversion between two box formats, and distances between boxes.

A box is four numbers in the last dimension, relative to the width and height of the image without padding (0 is its
left or top edge, 1 its right or bottom edge): (center x, center y, width, height) or (left, top, right, bottom).
"""

import torch


def center_to_corners(boxes: torch.Tensor) -> torch.Tensor:
    """Converts (..., 4) boxes from center x, center y, width, height to left, top, right, bottom."""
    x, y, width, height = boxes.unbind(-1)
    return torch.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], dim=-1)


def corners_to_center(boxes: torch.Tensor) -> torch.Tensor:
    """Converts (..., 4) boxes from left, top, right, bottom to center x, center y, width, height."""
    left, top, right, bottom = boxes.unbind(-1)
    return torch.stack([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top], dim=-1)


def generalized_iou(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Generalised IoU (Rezatofighi et al. 2019, https://arxiv.org/abs/1902.09630) of each pair of boxes.

    Takes (..., 4) corners whose leading dimensions broadcast; returns those dimensions, in [-1, 1] and at least fp32.
    Boxes without area (points or lines) are accepted: their IoU is 0.
    """
    dtype = torch.promote_types(first.dtype, torch.float32)
    left, top, right, bottom = first.to(dtype).unbind(-1)
    other_left, other_top, other_right, other_bottom = second.to(dtype).unbind(-1)
    width = (torch.minimum(right, other_right) - torch.maximum(left, other_left)).clamp(min=0)
    height = (torch.minimum(bottom, other_bottom) - torch.maximum(top, other_top)).clamp(min=0)
    intersection = width * height
    area = (right - left) * (bottom - top)
    other_area = (other_right - other_left) * (other_bottom - other_top)
    union = area + other_area - intersection
    hull_width = torch.maximum(right, other_right) - torch.minimum(left, other_left)
    hull_height = torch.maximum(bottom, other_bottom) - torch.minimum(top, other_top)
    hull = hull_width * hull_height
    tiny = torch.finfo(dtype).tiny
    return intersection / union.clamp(min=tiny) - (hull - union) / hull.clamp(min=tiny)


def l1_distance(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Sum of the four absolute differences of (..., 4) boxes whose leading dimensions broadcast."""
    x, y, width, height = (first - second).abs().unbind(-1)
    return x + y + width + height


def logit(values: torch.Tensor, epsilon: float = 1e-4) -> torch.Tensor:
    """Inverse sigmoid of values clamped to [epsilon, 1 - epsilon]."""
    return torch.logit(values.clamp(epsilon, 1 - epsilon))


__all__ = ["center_to_corners", "corners_to_center", "generalized_iou", "l1_distance", "logit"]
