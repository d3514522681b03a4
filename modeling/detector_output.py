"""Conversion of a detector's output to class probabilities and to detected objects with their boxes.

Shapes: B images, Q object queries, C classes.
"""

from typing import NamedTuple

import torch

from .box_geometry import center_to_corners

MOST_FOUND = 100  # (query, class) pairs that transformers keeps of a DETR with independent classes


class FoundObjects(NamedTuple):
    """Objects found in one image.

    Args:
        scores: Class probabilities, (m,), in [0, 1].
        labels: Class indices, (m,).
        boxes: Corners left, top, right, bottom, (m, 4), as fractions of the image's width and height.
        queries: Indices of the object queries that found them, (m,).
    """

    scores: torch.Tensor
    labels: torch.Tensor
    boxes: torch.Tensor
    queries: torch.Tensor


def has_no_object_class(logits: torch.Tensor, num_labels: int) -> bool:
    """Whether the last logit of a query stands for "no object", so that the classes exclude each other.

    Args:
        logits: Logits (..., C + 1) of classes that exclude each other, or (..., C) of independent classes (focal loss).
        num_labels: Number of classes C.

    Raises:
        ValueError: There are neither C nor C + 1 logits per query.
    """
    if (given := logits.shape[-1]) not in (num_labels, num_labels + 1):
        raise ValueError(
            f"a detector of {num_labels} classes must give {num_labels} or {num_labels + 1} scores per query, "
            f"got {given}"
        )
    return bool(given == num_labels + 1)


def class_probabilities(logits: torch.Tensor, num_labels: int) -> torch.Tensor:
    """Probability of each class, without "no object": (..., C), softmax or sigmoid by the number of logits.

    Args:
        logits: Logits (..., C + 1) with "no object" last, or (..., C) of independent classes.
        num_labels: Number of classes C.
    """
    if has_no_object_class(logits, num_labels):
        return logits.softmax(-1)[..., :-1]
    return logits.sigmoid()


def found_objects(
    logits: torch.Tensor, boxes: torch.Tensor, num_labels: int, most: int = MOST_FOUND
) -> list[FoundObjects]:
    """Objects of each image, as the image processors of transformers read them, without a threshold.

    Where classes exclude each other, every query yields its most probable class, in the order of the queries.
    Independent classes yield the `most` most probable pairs of query and class, in descending order.

    Args:
        logits: Logits (B, Q, C + 1) with "no object" last, or (B, Q, C) of independent classes.
        boxes: Boxes (B, Q, 4): center x, center y, width, height as fractions of the image.
        num_labels: Number of classes C.
        most: Largest number of pairs of query and class per image; used for independent classes only.
    """
    probabilities = class_probabilities(logits, num_labels)  # (B, Q, C)
    if has_no_object_class(logits, num_labels):
        scores, labels = probabilities.max(-1)
        queries = torch.arange(logits.shape[1], device=logits.device).expand_as(labels)
    else:
        pairs = probabilities.flatten(1)
        scores, places = pairs.topk(min(most, pairs.shape[1]), dim=1)
        queries, labels = places // num_labels, places % num_labels
    corners = center_to_corners(boxes).gather(1, queries[..., None].expand(-1, -1, 4))
    return [FoundObjects(*image) for image in zip(scores, labels, corners, queries, strict=True)]


__all__ = ["MOST_FOUND", "FoundObjects", "class_probabilities", "found_objects", "has_no_object_class"]
