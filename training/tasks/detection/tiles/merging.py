"""Merging of the boxes that several views of one picture show: overlapping tiles, and the picture as a whole.

Greedy non-maximum merging (NMM) and suppression (NMS), by intersection over union (IoU) or over the smaller box (IoS),
as SAHI has them (Akyon et al. 2022, https://arxiv.org/abs/2202.06934), with three differences. Boxes of one view are
never merged with each other: these detectors need no suppression within a picture, and two objects that a model tells
apart stay two. A box grows only beyond an edge of its view that cuts it: the union of boxes of whole objects is larger
than the object. And a box that has grown is compared again, until no other box fits, so that all pieces of an object
join, whatever their order.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ...tiling import Region
from ..detections import Detections

OUTWARD = np.array([-1.0, -1.0, 1.0, 1.0])  # direction of growth of left, top, right and bottom
MATCH = 0.5  # least IoU or IoS of two boxes of one object
GROWTH = 0.5  # least share of the best score at which a box makes the best one larger
AT_EDGE = 0.02  # share of a view's side, from the edge on, in which a box that ends there counts as cut


class View(NamedTuple):
    """Part of a picture, with the boxes that a model found in it.

    Args:
        region: Left, top, right and bottom of the part in pixels of the picture; no two views have the same.
        found: Detections, in pixels of the picture.
    """

    region: Region
    found: Detections


def view_of(region: Region, found: Detections) -> View:
    """Makes the view of a region from boxes in pixels of that region, which are cut at its edges.

    Boxes of which nothing is left inside are dropped.
    """
    left, top, right, bottom = region
    inside = found.boxes.clip(0, np.array([right - left, bottom - top] * 2, dtype=np.float64))
    kept = (inside[:, 2:] > inside[:, :2]).all(axis=1)
    boxes = inside[kept] + np.array([left, top, left, top], dtype=np.float64)
    return View(region, Detections(boxes, found.scores[kept], found.classes[kept]))


def merge_views(views: Sequence[View], merge: str, most: int | None = None) -> Detections:
    """Merges the boxes of all views of a picture; the result does not depend on the order of views and boxes.

    The best box of a class takes from each other view the box of its class that it overlaps most, if their IoU or IoS
    is at least `MATCH`. With NMM it grows to the other's end at each side where the edge of its view cuts it, unless
    the other's score is below `GROWTH` times its own; with NMS it stays as it is. Then the next best of the boxes that
    are left follows. A merged box has the best score of its parts, so that lower scores do not change what is found
    above a threshold.

    Args:
        views: Views of one picture.
        merge: "nmm-ios", "nmm-iou", "nms-ios" or "nms-iou".
        most: Largest number of boxes per class, the best; None for all.
    """
    ranked = sorted(views, key=lambda view: view.region)
    source = np.concatenate([np.full(len(view.found), number) for number, view in enumerate(ranked)])
    boxes = np.concatenate([view.found.boxes for view in ranked])
    scores = np.concatenate([view.found.scores for view in ranked])
    classes = np.concatenate([view.found.classes for view in ranked])
    order = np.lexsort((source, *boxes.T, classes, -scores))
    kind, measure = merge.split("-")
    cut = _cut_sides(boxes, np.array([view.region for view in ranked], dtype=np.float64), source)
    if kind == "nms":
        cut[:] = False  # nothing grows
    merged = Detections(np.empty((0, 4)), np.empty(0), np.empty(0, dtype=np.int64))
    for number in np.unique(classes):
        rows = order[classes[order] == number]
        found, tops = _groups(boxes[rows], scores[rows], source[rows], cut[rows], measure == "ios", most)
        merged = Detections(
            np.concatenate([merged.boxes, found]),
            np.concatenate([merged.scores, tops]),
            np.concatenate([merged.classes, np.full(len(tops), number)]),
        )
    return Detections.best(merged.boxes, merged.scores, merged.classes, most)


def _cut_sides(boxes: np.ndarray, regions: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Tells which sides (n, 4) of boxes end at an edge of their view that is none of the picture.

    Args:
        boxes: Boxes (n, 4).
        regions: Regions of the views (v, 4), which cover the picture together.
        source: Number of each box's view, (n,).
    """
    picture = np.concatenate([regions[:, :2].min(axis=0), regions[:, 2:].max(axis=0)])
    sides = regions[:, 2:] - regions[:, :2]
    near = np.abs(boxes - regions[source]) <= AT_EDGE * np.tile(sides, 2)[source]
    cut: np.ndarray = near & (regions != picture)[source]
    return cut


def _groups(
    boxes: np.ndarray, scores: np.ndarray, source: np.ndarray, cut: np.ndarray, smaller: bool, most: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns boxes (g, 4) and scores (g,) of the groups of one class, whose boxes come in falling order of scores.

    Args:
        boxes: Boxes (n, 4).
        scores: Scores (n,), falling.
        source: Number of each box's view, (n,).
        cut: Sides over which a box grows, (n, 4).
        smaller: Whether to compare by IoS in place of IoU.
        most: Largest number of groups.
    """
    free = np.ones(len(boxes), dtype=bool)
    found: list[np.ndarray] = []
    tops: list[float] = []
    for top in range(len(boxes)):
        if not free[top]:
            continue
        if len(tops) == most:
            break
        free[top] = False
        box, open_sides, open_views = boxes[top], cut[top], free & (source != source[top])
        similar = open_views & (scores >= GROWTH * scores[top])
        while (rows := np.flatnonzero(similar)).size:
            overlap = _overlap(box, boxes[rows], smaller)
            if overlap.max() < MATCH:
                break
            member = rows[int(overlap.argmax())]
            free[member] = False
            other = source != source[member]
            similar, open_views = similar & other, open_views & other
            beyond = open_sides & (OUTWARD * boxes[member] > OUTWARD * box)
            box, open_sides = np.where(beyond, boxes[member], box), np.where(beyond, cut[member], open_sides)
        rows = np.flatnonzero(open_views)
        rows = rows[_overlap(box, boxes[rows], smaller) >= MATCH]
        free[rows[np.unique(source[rows], return_index=True)[1]]] = False  # the best of each view
        found.append(box)
        tops.append(float(scores[top]))
    return np.array(found).reshape(-1, 4), np.array(tops)


def _overlap(box: np.ndarray, others: np.ndarray, smaller: bool) -> np.ndarray:
    """Computes IoS, or IoU, of a box (4,) with others (n, 4)."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    common = sides.clip(0).prod(axis=1)
    area, areas = (box[2:] - box[:2]).prod(), (others[:, 2:] - others[:, :2]).prod(axis=1)
    whole = np.minimum(area, areas) if smaller else area + areas - common
    overlap: np.ndarray = common / np.maximum(whole, 1e-300)
    return overlap


__all__ = ["AT_EDGE", "GROWTH", "MATCH", "OUTWARD", "View", "merge_views", "view_of"]
