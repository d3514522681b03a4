import contextlib
import copy
import io
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from vithub.data.boxes.tables import ImageBoxes
from vithub.training.tasks.detection.building import build_detection
from vithub.training.tasks.detection.detections import RECALLS, Detections, intersection_over_union
from vithub.training.tasks.detection.error_kinds import best_threshold, count_errors, match_boxes
from vithub.training.tasks.detection.metrics import (
    COCO_METRICS,
    DetectionMetrics,
    EvaluatorMissingError,
    coco_metrics,
)
from vithub.training.tasks.detection.saved_evaluation import SavedDetector


def truth(boxes=(), classes=(), crowd=None, area=None, image_id="1", size=(200, 200)):
    boxes = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    own = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return ImageBoxes(
        image_id, *size, boxes, np.array(classes, dtype=np.int64),
        np.zeros(len(boxes), dtype=bool) if crowd is None else np.array(crowd, dtype=bool),
        own if area is None else np.array(area, dtype=np.float64),
    )  # fmt: skip


def reference(pairs, num_labels):
    """pycocotools by its own way in: a data set's JSON, and results that it loads."""
    images, annotations, results = [], [], []
    for number, (found, true) in enumerate(pairs):
        images.append({"id": 1000 + number, "width": true.width, "height": true.height, "file_name": f"{number}.jpg"})
        for box, category, crowd, area in zip(true.boxes, true.classes, true.crowd, true.area, strict=True):
            annotations.append({"id": len(annotations) + 1, "image_id": 1000 + number, "category_id": int(category) * 3,
                                "bbox": [*box[:2], *(box[2:] - box[:2])], "area": float(area),
                                "iscrowd": int(crowd)})  # fmt: skip
        for box, category, score in zip(found.boxes, found.classes, found.scores, strict=True):
            results.append({"image_id": 1000 + number, "category_id": int(category) * 3, "score": float(score),
                            "bbox": [*box[:2], *(box[2:] - box[:2])]})  # fmt: skip
    content = {"images": images, "annotations": annotations, "info": {},
               "categories": [{"id": 3 * n, "name": str(n)} for n in range(num_labels)]}  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = content
        coco.createIndex()
        if results:
            loaded = coco.loadRes(copy.deepcopy(results))
        else:  # it cannot load none
            loaded = COCO()
            loaded.dataset = {**content, "annotations": []}
            loaded.createIndex()
        evaluation = COCOeval(coco, loaded, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


CORNER = st.integers(0, 14).map(lambda value: 10.0 * value)
SIDE = st.sampled_from([4.0, 10.0, 30.0, 33.3, 60.0])
LABELS = 3


@st.composite
def boxes(draw, most):
    count = draw(st.integers(0, most))
    rows = []
    for _ in range(count):
        left, top = draw(CORNER), draw(CORNER)
        rows.append([left, top, left + draw(SIDE), top + draw(SIDE)])
    return np.array(rows).reshape(-1, 4), draw(st.lists(st.integers(0, LABELS - 1), min_size=count, max_size=count))


@st.composite
def scene(draw):
    """Found and true boxes: empty images, crowds, areas of their own, equal scores, found boxes near true ones."""
    true, classes = draw(boxes(5))
    count = len(true)
    crowd = draw(st.lists(st.sampled_from([False, False, False, True]), min_size=count, max_size=count))
    part = draw(st.lists(st.sampled_from([1.0, 0.5]), min_size=count, max_size=count))
    area = (true[:, 2:] - true[:, :2]).prod(axis=1) * part
    extra, others = draw(boxes(4))
    near = [row for row in range(count) if draw(st.booleans())]
    shift = np.array([[draw(st.sampled_from([0.0, 1.0, 5.0])) for _ in range(4)] for _ in near]).reshape(-1, 4)
    found = np.concatenate([true[near] + np.abs(shift) * [1, 1, 1, 1], extra])
    found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 1)
    numbers = [*(classes[row] for row in near), *others]
    scores = draw(st.lists(st.sampled_from([0.1, 0.5, 0.5000001, 0.9]), min_size=len(found), max_size=len(found)))
    return Detections.best(found, scores, numbers), truth(true, classes, crowd, area)


@settings(max_examples=150)
@given(pairs=st.lists(scene(), min_size=1, max_size=5))
def test_the_twelve_figures_are_pycocotools(pairs):
    counts = DetectionMetrics(LABELS)
    counts.update(range(len(pairs)), *zip(*pairs, strict=True))
    expected = reference(pairs, LABELS)
    np.testing.assert_allclose(counts.figures().stats, expected.stats, rtol=0, atol=1e-6)
    np.testing.assert_allclose(counts.figures().precision, expected.eval["precision"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(counts.figures().recall, expected.eval["recall"], rtol=0, atol=1e-6)
    for name, value, wanted in zip(COCO_METRICS, counts.compute().values(), expected.stats, strict=True):
        assert value is None if wanted == -1 else value == pytest.approx(wanted, abs=1e-6), name


def many(images=40, labels=3, seed=0, most=100):
    """Scenes like those of a detector that is right most of the time."""
    draws = np.random.default_rng(seed)
    pairs = []
    for number in range(images):
        count = int(draws.integers(0, 20))
        first = draws.uniform(0, 150, (count, 2))
        true = np.concatenate([first, first + draws.uniform(3, 50, (count, 2))], axis=1)
        classes = draws.integers(0, labels, count)
        found = np.concatenate([true + draws.normal(0, 1, true.shape), draws.uniform(0, 100, (150, 4))])
        found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 1)
        guessed = np.where(draws.random(count) < 0.8, classes, draws.integers(0, labels, count))
        scores = np.concatenate([draws.uniform(0.3, 1, count), draws.uniform(0, 0.6, 150)])
        numbers = np.concatenate([guessed, draws.choice(labels, 150, p=[0.9, *[0.1 / (labels - 1)] * (labels - 1)])])
        detections = Detections.best(found, scores, numbers, most=most)
        pairs.append((detections, truth(true, classes, draws.random(count) < 0.1, image_id=f"é {number}")))
    return pairs


def counted(pairs, size=1, labels=3):
    counts = DetectionMetrics(labels)
    for start in range(0, len(pairs), size):
        part = pairs[start : start + size]
        counts.update(range(start, start + len(part)), *zip(*part, strict=True))
    return counts


def test_many_boxes_and_both_evaluators_agree(monkeypatch):
    pairs = many()
    counts = counted(pairs)
    expected = reference(many(most=None), 3)
    assert max(len(found) for found, _ in many(most=None)) > max(len(found) for found, _ in pairs) > 100
    np.testing.assert_allclose(counts.figures().stats, expected.stats, rtol=0, atol=1e-6)
    assert 0.2 < counts.compute()["map"] < 0.9
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    np.testing.assert_allclose(coco_metrics(pairs, 3).stats, expected.stats, rtol=0, atol=1e-6)
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(EvaluatorMissingError, match="pip install 'vithub\\[detection\\]'"):
        coco_metrics(pairs, 3)
    with pytest.raises(EvaluatorMissingError):  # before the data is read and anything is trained
        build_detection(None, "gone")
    with pytest.raises(EvaluatorMissingError):
        SavedDetector(Path("gone"), None, None, None, False)


def test_perfect_boxes_score_1_whatever_the_source_called_them():
    # the first annotation of a file whose ids count from 0 must not count as unmatched
    true = truth([[10, 10, 60, 60]], [0])
    found = Detections.best(true.boxes, [0.9], [0])
    figures = counted([(found, true)], labels=1).compute()
    assert figures["map"] == figures["mar_1"] == 1
    assert figures["map_small"] is None


@pytest.mark.parametrize("size", [1, 8])
def test_the_size_of_batches_and_their_order_change_nothing(size):
    pairs = many()
    wanted, counts = counted(pairs, 40), DetectionMetrics(3)
    for start in reversed(range(0, 40, size)):
        counts.update(range(start, start + size), *zip(*pairs[start : start + size], strict=True))
    assert counts.figures().stats.tolist() == wanted.figures().stats.tolist()


def test_parts_of_several_processes_are_put_together():
    pairs = many(11)
    whole = counted(pairs)
    parts = [DetectionMetrics(3), DetectionMetrics(3)]
    for row, (found, true) in enumerate(pairs):
        parts[row % 2].update([row], [found], [true])
        parts[row % 2].loss_sum += row
    joined = DetectionMetrics(3)
    for part in parts:
        joined.add(part.tensors())
    again = DetectionMetrics(3)
    again.load(joined.tensors())
    for other in (joined, again):
        assert other.loss_sum == sum(range(11))
        assert other.figures().stats.tolist() == whole.figures().stats.tolist()
        for (one, mine), (two, theirs) in zip(whole.pairs(), other.pairs(), strict=True):
            assert mine.image_id == theirs.image_id
            assert np.array_equal(one.boxes, two.boxes)
            assert np.array_equal(mine.crowd, theirs.crowd)
    empty = DetectionMetrics(3)
    empty.load(DetectionMetrics(3).tensors())
    assert empty.images == 0


def test_memory_grows_with_boxes_not_with_queries():
    logits = torch.rand(300 * 91)
    kept = Detections.best(torch.rand(300, 4), logits[:300], torch.zeros(300))
    assert len(kept) == 100
    assert kept.boxes.base is None or kept.boxes.base.nbytes <= 100 * 4 * 8
    few = Detections.best(np.zeros((2, 4)), [0.1, 0.9], [0, 1])
    assert few.scores.tolist() == [0.9, 0.1]


@pytest.mark.parametrize(
    ("boxes", "scores", "classes", "message"),
    [
        ([[0, 0, 1, 1]], [0.5, 0.5], [0], "1 boxes, 2 scores and 1 classes"),
        ([[0, 0, 1, float("nan")]], [0.5], [0], "infinite or not a number"),
        ([[0, 0, 1, 1]], [float("inf")], [0], "infinite or not a number"),
    ],
)
def test_broken_detections_are_told(boxes, scores, classes, message):
    with pytest.raises(ValueError, match=message):
        Detections.best(boxes, scores, classes)


def test_wrong_classes_repeated_images_and_no_images_are_told():
    counts = DetectionMetrics(2)
    with pytest.raises(ValueError, match="no image was counted"):
        counts.compute()
    none = Detections.best(np.empty((0, 4)), [], [])
    with pytest.raises(ValueError, match=r"row 0 \(image 1\): true classes must lie in 0 to 1, got 2 to 2"):
        counts.update([0], [none], [truth([[0, 0, 9, 9]], [2])])
    counts.update([0], [none], [truth()])
    with pytest.raises(ValueError, match=r"row 0 \(image 1\) was counted already"):
        counts.update([0], [none], [truth()])
    assert counts.compute()["map"] is None


def test_figures_per_class_and_curves_average_to_those_of_all():
    counts = counted(many())
    rows, figures = counts.per_class(["a", "b", "c"]), counts.compute()
    assert sum(row["boxes"] for row in rows) == sum(int((~true.crowd).sum()) for _, true in counts.pairs())
    for name in ("map", "map_50", "map_75", "mar_100"):
        assert np.mean([row[name] for row in rows]) == pytest.approx(figures[name], abs=1e-12)
    curves = counts.curves()
    assert curves.shape == (3, len(RECALLS))
    assert curves.mean() == pytest.approx(figures["map_50"], abs=1e-12)
    assert (np.diff(curves, axis=1) <= 0).all()
    with pytest.raises(ValueError, match=r"0\.5 to 0\.95 in steps"):
        counts.curves(0.42)
    without = counted([(Detections.best(np.empty((0, 4)), [], []), truth([[0, 0, 9, 9]], [0]))])
    assert without.per_class(["a", "b", "c"])[1]["map"] is None
    assert np.isnan(without.curves()[1]).all()


BOX = [10, 10, 60, 60]
WRONG = {
    "correct": ([[12, 10, 60, 60]], [0]),
    "classification": ([BOX], [1]),
    "localisation": ([[40, 10, 90, 60]], [0]),
    "both": ([[40, 10, 90, 60]], [1]),
    "background": ([[100, 100, 150, 150]], [0]),
}


@pytest.mark.parametrize("kind", WRONG)
def test_each_error_is_told_apart(kind):
    boxes, classes = WRONG[kind]
    found = Detections.best(boxes, [0.9], classes)
    errors = count_errors([(found, truth([BOX], [0]))], 2, threshold=0.5)
    missed = int(kind in ("both", "background"))
    assert errors.counts == {**dict.fromkeys(errors.counts, 0), kind: 1, "missed": missed}
    assert errors.precision == float(kind == "correct")
    below = count_errors([(found, truth([BOX], [0]))], 2, threshold=0.95)
    assert below.counts == {**dict.fromkeys(errors.counts, 0), "missed": 1}
    assert below.precision is None


def test_duplicates_crowds_and_confusion():
    true = truth([BOX, [100, 100, 190, 190], [70, 10, 99, 40]], [0, 1, 1], [False, True, False])
    found = Detections.best(
        [BOX, [11, 10, 60, 60], [110, 110, 140, 140], [70, 10, 99, 40]], [0.9, 0.8, 0.7, 0.6], [0, 0, 1, 0]
    )
    errors = count_errors([(found, true)], 2, 0.5)
    expected = {"correct": 1, "duplicate": 1, "classification": 1}
    assert {kind: count for kind, count in errors.counts.items() if count} == expected
    assert errors.confusion.tolist() == [[1, 0, 0], [1, 0, 0], [1, 0, 0]]
    assert errors.to_dict(["a", "b"])["per_class"][0]["correct"] == 1
    assert match_boxes(found, true)[1].tolist() == [False, False, True, False]


@given(pairs=st.lists(scene(), min_size=1, max_size=5))
def test_every_found_and_every_true_box_is_counted_once(pairs):
    errors = count_errors(pairs, LABELS, 0.0)
    found = sum(len(one) for one, _ in pairs)
    objects = np.bincount(
        np.concatenate([true.classes[~true.crowd] for _, true in pairs]).astype(int), minlength=LABELS
    )
    on_crowds = sum(int(match_boxes(one, true)[1].sum()) for one, true in pairs)
    counts = errors.counts
    assert sum(counts.values()) - counts["missed"] == found - on_crowds
    assert errors.confusion[:LABELS].sum(axis=1).tolist() == objects.tolist()
    assert counts["correct"] + counts["missed"] <= objects.sum()


@given(pairs=st.lists(scene(), min_size=1, max_size=4))
def test_the_best_threshold_is_the_best_of_all(pairs):
    def f1(threshold):
        right = wrong = 0
        for found, true in pairs:
            matched, ignored = match_boxes(found.above(threshold), true)
            right += int((matched >= 0).sum())
            wrong += int(((matched < 0) & ~ignored).sum())
        total = sum(int((~true.crowd).sum()) for _, true in pairs)
        return 2 * right / max(1, right + wrong + total)

    best = best_threshold(pairs)
    assert f1(best) == pytest.approx(max(f1(score) for score in (0.1, 0.5, 0.5000001, 0.9)))


@given(one=boxes(5), other=boxes(5))
def test_overlaps_are_those_of_painted_pixels(one, other):
    found, true = np.round(one[0]), np.round(other[0])
    for (row, column), value in np.ndenumerate(intersection_over_union(found, true)):
        masks = np.zeros((2, 220, 220), dtype=bool)
        for mask, (left, top, right, bottom) in zip(
            masks, (found[row].astype(int), true[column].astype(int)), strict=True
        ):
            mask[top:bottom, left:right] = True
        assert value == pytest.approx((masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum())
