"""Figures of resampled images are those that COCO's own code gives of the same images."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vithub.comparison.detection.resampled_figures import class_matches, resampled, resampling
from vithub.data.boxes.tables import ImageBoxes
from vithub.training.tasks.detection.detections import Detections
from vithub.training.tasks.detection.metrics import coco_metrics

CLASSES = 2
SIDE = 300


def random_pairs(seed, images, scores=None):
    """True boxes of every size with some crowds, and found ones near them, of the wrong class, twice, and nowhere."""
    draws = np.random.default_rng(seed)
    pairs = []
    for number in range(images):
        count = int(draws.integers(0, 6))
        corners = draws.uniform(0, 120, (count, 2))
        true = np.concatenate([corners, corners + draws.uniform(8, 150, (count, 2))], axis=1)
        classes, crowd = draws.integers(0, CLASSES, count), draws.random(count) < 0.2
        near = np.repeat(true, 2, axis=0) + draws.normal(0, 5, (2 * count, 4))
        stray = draws.uniform(0, 100, (3, 4)) + np.array([0, 0, 100, 100])
        boxes = np.concatenate([near, stray])
        labels = np.concatenate([np.repeat(classes, 2), draws.integers(0, CLASSES, 3)])
        labels = np.where(draws.random(len(labels)) < 0.15, 1 - labels, labels)
        own = draws.random(len(boxes)) if scores is None else draws.choice(scores, len(boxes))
        area = (true[:, 2:] - true[:, :2]).prod(axis=1) * draws.uniform(0.6, 1, count)
        pairs.append((
            Detections.best(boxes, own, labels), ImageBoxes(str(number), SIDE, SIDE, true, classes, crowd, area),
        ))  # fmt: skip
    return pairs


def of_coco(pairs):
    found = coco_metrics(pairs, CLASSES)
    precision = found.precision[:, :, :, 0, 2]
    classes = [precision[:, :, c][precision[:, :, c] > -1] for c in range(CLASSES)]
    return found.stats, [values.mean() if values.size else -1 for values in classes]


def assert_same(mine, theirs):
    for ours, coco in zip(mine, theirs, strict=True):
        assert np.nan_to_num(ours, nan=-1.0) == pytest.approx(coco, abs=1e-9)


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.integers(1, 8), st.sampled_from([None, [0.2, 0.5, 0.9]]))
def test_all_figures_are_cocos(seed, images, scores):
    pairs = random_pairs(seed, images, scores)
    assert_same(resampled(class_matches(pairs, CLASSES), np.ones(images)), of_coco(pairs))


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.integers(2, 8))
def test_a_resample_is_the_same_images_again(seed, images):
    """Weights of a bootstrap draw against a data set in which images are repeated or absent."""
    pairs = random_pairs(seed, images)
    (weights,) = resampling(images, 1, seed)
    assert weights.sum() == images
    repeated = [pair for pair, times in zip(pairs, weights.astype(int), strict=True) for _ in range(times)]
    assert_same(resampled(class_matches(pairs, CLASSES), weights), of_coco(repeated))


def test_a_perfect_detector_has_everything_and_no_detector_nothing():
    pairs = random_pairs(3, 6)
    perfect = [(Detections.best(t.boxes, np.ones(len(t)), t.classes), t) for _, t in pairs]
    whole, classes = resampled(class_matches(perfect, CLASSES), np.ones(6))
    assert whole[:3].tolist() == pytest.approx([1, 1, 1])
    assert classes.tolist() == pytest.approx([1, 1])
    blind = [(Detections.best([], [], []), t) for _, t in pairs]
    assert resampled(class_matches(blind, CLASSES), np.ones(6))[0][:3].tolist() == [0, 0, 0]
