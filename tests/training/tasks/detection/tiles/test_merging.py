"""Merging of the boxes of several views: one box for each object, whatever the order, within the picture."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from vithub.training.tasks.detection.detections import Detections
from vithub.training.tasks.detection.tiles.merging import View, merge_views, view_of
from vithub.training.tasks.tiling import MERGES, Tiling

HEIGHT, WIDTH = 200, 300
TILING = Tiling((100, 120), 0.3)
REGIONS = TILING.regions(HEIGHT, WIDTH)
WHOLE = (0, 0, WIDTH, HEIGHT)


def detections(*rows):
    """From rows of left, top, right, bottom, score, class."""
    table = np.array(rows, dtype=np.float64).reshape(-1, 6)
    return Detections.best(table[:, :4], table[:, 4], table[:, 5].astype(np.int64), None)


def seen(region, *rows):
    """What a perfect model finds of boxes of the picture in a part of it: all that lies inside, cut at its edges."""
    left, top = region[:2]
    shifted = [[r[0] - left, r[1] - top, r[2] - left, r[3] - top, *r[4:]] for r in rows]
    return view_of(region, detections(*shifted))


@st.composite
def views(draw):
    """Random boxes of two classes in some of the tiles and in the whole, with many equal scores and places."""
    chosen = draw(st.lists(st.sampled_from([*REGIONS, WHOLE]), min_size=1, unique=True))
    found = []
    for region in chosen:
        sides = st.tuples(*[st.integers(-20, 130)] * 2, *[st.integers(5, 90)] * 2)
        rows = draw(st.lists(st.tuples(sides, st.sampled_from([0.1, 0.3, 0.5, 0.9]), st.integers(0, 1)), max_size=6))
        boxes = [[x, y, x + w, y + h, score, label] for (x, y, w, h), score, label in rows]
        found.append(view_of(region, detections(*boxes)))
    return found


def as_rows(found):
    return np.column_stack([found.boxes, found.scores, found.classes]).tolist()


@pytest.mark.parametrize("merge", MERGES)
@given(views(), st.randoms(use_true_random=False))
def test_the_order_of_views_and_boxes_changes_nothing(merge, given_views, random):
    before = merge_views(given_views, merge)
    shuffled = []
    for region, found in random.sample(given_views, len(given_views)):
        order = random.sample(range(len(found)), len(found))
        shuffled.append(View(region, Detections(found.boxes[order], found.scores[order], found.classes[order])))
    assert as_rows(merge_views(shuffled, merge)) == as_rows(before)


@pytest.mark.parametrize("merge", MERGES)
@given(views())
def test_boxes_stay_in_the_picture_and_no_score_or_class_is_made_up(merge, given_views):
    found = merge_views(given_views, merge)
    assert (found.boxes >= 0).all()
    assert (found.boxes <= [WIDTH, HEIGHT, WIDTH, HEIGHT]).all()
    assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()
    assert (np.diff(found.scores) <= 0).all()
    known = {(score, label) for _, one in given_views for score, label in zip(one.scores, one.classes, strict=True)}
    assert {(score, label) for score, label in zip(found.scores, found.classes, strict=True)} <= known
    counts = [np.bincount(one.classes, minlength=2) for one in (found, *(view.found for view in given_views))]
    assert (counts[0] >= np.max(counts[1:], axis=0)).all()  # boxes of one view do not merge with each other


@pytest.mark.parametrize("merge", MERGES)
@given(views(), st.sampled_from([0.05, 0.2, 0.4, 0.6]))
def test_what_is_found_above_a_score_does_not_depend_on_lower_scores(merge, given_views, threshold):
    """So that `predict` shows what was evaluated, and may drop what is below half the threshold before merging."""
    all_scores = merge_views(given_views, merge).above(threshold)
    half = [View(region, found.above(threshold / 2)) for region, found in given_views]
    assert as_rows(merge_views(half, merge).above(threshold)) == as_rows(all_scores)
    best = merge_views(given_views, merge, most=2)
    for number in (0, 1):
        every = [row for row in as_rows(merge_views(given_views, merge)) if row[5] == number]
        assert [row for row in as_rows(best) if row[5] == number] == every[:2]


@pytest.mark.parametrize("merge", MERGES)
@given(
    st.lists(st.tuples(st.integers(0, 8), st.integers(0, 5), st.integers(0, 1)), unique=True, min_size=1), st.booleans()
)
def test_a_box_wholly_inside_several_views_is_reported_once(merge, places, full):
    """Boxes on a grid, too far apart for each other, each found by every view that holds it whole."""
    rows = [
        [32 * x + 5, 32 * y + 5, 32 * x + 30, 32 * y + 30, 0.5 + 0.001 * n, c] for n, (x, y, c) in enumerate(places)
    ]
    given_views = []
    for region in [*REGIONS, *([WHOLE] if full else [])]:
        inside = [
            r for r in rows if region[0] <= r[0] and region[1] <= r[1] and r[2] <= region[2] and r[3] <= region[3]
        ]
        given_views.append(seen(region, *inside))
    held = [row for row in rows if any(row[:4] in view.found.boxes.tolist() for view in given_views)]
    assert sorted(as_rows(merge_views(given_views, merge))) == sorted(held)


@pytest.mark.parametrize("merge", ["nmm-ios", "nms-ios"])
@given(st.floats(0, WIDTH - 34), st.floats(0, HEIGHT - 28), st.floats(4, 34), st.floats(4, 28), st.booleans())
def test_an_object_cut_by_seams_is_one_box(merge, left, top, width, height, full):
    """No larger than the overlap, it is whole in a tile; all its pieces in other tiles join that box."""
    row = [left, top, left + width, top + height, 0.9, 0]
    parts = [seen(region, row) for region in [*REGIONS, *([WHOLE] if full else [])]]
    # a piece is less certain than the whole
    for number, (region, found) in enumerate(parts):
        shares = np.prod(found.boxes[:, 2:] - found.boxes[:, :2], axis=1) / (width * height)
        parts[number] = View(region, Detections(found.boxes, 0.9 * shares, found.classes))
    (found,) = as_rows(merge_views(parts, merge))
    assert found[:4] == pytest.approx(row[:4])


@pytest.mark.parametrize("best", ["left", "right", "whole"])
def test_an_object_larger_than_the_overlap_joins_through_the_whole_picture(best):
    """Its two pieces overlap too little for each other; the box of the whole picture holds both."""
    row = [20, 20, 200, 90]
    scores = {"left": 0.6, "right": 0.5, "whole": 0.7} | {best: 0.9}
    left, right = (0, 0, 120, 100), (90, 0, 210, 100)
    given_views = [seen(left, [*row, scores["left"], 0]), seen(right, [*row, scores["right"], 0])]
    assert len(merge_views(given_views, "nmm-ios")) == 2
    given_views.append(seen(WHOLE, [*row, scores["whole"], 0]))
    (found,) = as_rows(merge_views(given_views, "nmm-ios"))
    assert found == [*map(float, row), 0.9, 0.0]


def test_iou_keeps_a_small_piece_that_ios_merges_and_suppression_does_not_grow():
    one, other = (0, 0, 120, 100), (84, 0, 204, 100)
    given_views = [seen(one, [60, 10, 140, 60, 0.9, 0]), seen(other, [60, 10, 140, 60, 0.8, 0])]
    assert as_rows(merge_views(given_views, "nmm-ios")) == [[60, 10, 140, 60, 0.9, 0]]
    assert as_rows(merge_views(given_views, "nms-ios")) == [[60, 10, 120, 60, 0.9, 0]]
    assert len(merge_views(given_views, "nmm-iou")) == len(merge_views(given_views, "nms-iou")) == 2


def test_objects_that_one_view_tells_apart_stay_apart_and_classes_are_not_mixed():
    near = [[10, 10, 50, 50, 0.9, 0], [14, 10, 54, 50, 0.8, 0], [10, 10, 50, 50, 0.7, 1]]
    given_views = [seen(REGIONS[0], *near), seen(WHOLE, *near)]
    assert as_rows(merge_views(given_views, "nmm-ios")) == [list(map(float, row)) for row in near]


def test_a_weak_box_does_not_make_a_good_one_larger():
    piece = seen(REGIONS[0], [60, 10, 150, 60, 0.9, 0])  # cut at 120
    for score, right in ((0.4, 120), (0.5, 200)):
        whole = seen(WHOLE, [60, 10, 200, 60, score, 0])
        assert as_rows(merge_views([piece, whole], "nmm-ios")) == [[60, 10, right, 60, 0.9, 0]]


def test_a_box_grows_only_over_the_edge_that_cuts_it():
    """Its other sides are those of its own view, which saw them; a box that nothing cuts stays as it is."""
    whole = seen(WHOLE, [50, 2, 200, 80, 0.8, 0])
    assert as_rows(merge_views([seen(REGIONS[0], [60, 10, 150, 60, 0.9, 0]), whole], "nmm-ios")) == [
        [60, 10, 200, 60, 0.9, 0]
    ]
    uncut = seen(REGIONS[0], [60, 10, 110, 60, 0.9, 0])
    assert as_rows(merge_views([uncut, whole], "nmm-ios")) == [[60, 10, 110, 60, 0.9, 0]]
    at_the_border = seen(REGIONS[0], [0, 10, 50, 60, 0.9, 0])  # the picture's own edge cuts nothing
    assert as_rows(merge_views([at_the_border, seen(WHOLE, [0, 0, 60, 70, 0.8, 0])], "nmm-ios")) == [
        [0, 10, 50, 60, 0.9, 0]
    ]


def test_what_lies_beyond_its_view_is_cut_or_dropped():
    found = view_of((100, 50, 200, 150), detections([-5, 10, 30, 120, 0.9, 0], [110, 0, 130, 50, 0.8, 0]))
    assert as_rows(found.found) == [[100, 60, 130, 150, 0.9, 0]]
    assert len(merge_views([View(WHOLE, detections())], "nmm-ios")) == 0
