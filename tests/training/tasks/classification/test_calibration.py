from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from vithub.training.tasks.classification.metrics.calibration import BINS, CalibrationBins
from vithub.training.tasks.classification.metrics.choice import ClassificationMetrics, MultiLabelMetrics


def slow_error(confidence, right):
    """Equation 3 of Guo et al., image by image."""
    confidence, right = np.asarray(confidence, dtype=np.float64), np.asarray(right, dtype=np.float64)
    edges = np.linspace(0, 1, BINS + 1)
    error = 0.0
    for low, high in pairwise(edges):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            error += inside.sum() / len(confidence) * abs(right[inside].mean() - confidence[inside].mean())
    return error


@given(st.lists(st.tuples(st.floats(0.001, 1), st.booleans()), min_size=1, max_size=60))
def test_the_error_is_that_of_the_paper(decisions):
    confidence, right = map(torch.tensor, zip(*decisions, strict=True))
    bins = CalibrationBins()
    bins.update(confidence.double(), right)
    assert bins.expected_error() == pytest.approx(slow_error(confidence.double(), right), abs=1e-6)


def test_an_edge_belongs_to_the_bin_below_it():
    bins = CalibrationBins()
    edges = torch.linspace(0, 1, BINS + 1, dtype=torch.float64)
    bins.update(edges[1:], torch.ones(BINS))
    assert [row["images"] for row in bins.rows()] == [1] * BINS
    bins.update(torch.nextafter(edges[1:-1], edges[2:]), torch.ones(BINS - 1))
    assert [row["images"] for row in bins.rows()] == [1] + [2] * (BINS - 1)


def test_the_bins_tell_how_sure_and_how_right_the_decisions_are():
    bins = CalibrationBins()
    bins.update(torch.tensor([0.9, 0.91, 0.3]), torch.tensor([True, False, True]))
    filled = [row for row in bins.rows() if row["images"]]
    assert [row["images"] for row in filled] == [1, 2]
    assert filled[1]["confidence"] == pytest.approx(0.905)
    assert filled[1]["accuracy"] == 0.5
    assert all(row["low"] < row["confidence"] <= row["high"] for row in filled)
    assert {row["confidence"] for row in bins.rows() if not row["images"]} == {None}


@pytest.mark.parametrize("overconfident", [1.0, 4.0])
def test_a_model_that_means_what_it_says_has_no_error_and_a_boastful_one_has(overconfident):
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(40_000, 5, generator=generator)
    labels = torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]
    counts = ClassificationMetrics(5)
    counts.update(overconfident * logits, labels)
    error = counts.compute()["expected_calibration_error"]
    assert error < 0.01 if overconfident == 1 else error > 0.1


def test_one_label_and_many_labels_agree_on_a_question_with_two_answers():
    # A yes or no decided by one logit x is the choice between two classes with the logits x and 0.
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(500, generator=generator)
    labels = (torch.rand(500, generator=generator) < logits.sigmoid()).long()
    two, one = ClassificationMetrics(2), MultiLabelMetrics(1)
    two.update(torch.stack([torch.zeros(500), logits], dim=1), labels)
    one.update(logits[:, None], labels[:, None])
    assert [row["images"] for row in one.reliability()] == [row["images"] for row in two.reliability()]
    for name in ("accuracy", "loss", "expected_calibration_error"):
        assert one.compute()[name] == pytest.approx(two.compute()[name], abs=1e-6), name


@given(seed=st.integers(0, 1000), images=st.integers(1, 50))
def test_confidence_and_error_of_a_classifier_are_those_of_its_softmax(seed, images):
    generator = torch.Generator().manual_seed(seed)
    logits, labels = torch.randn(images, 4, generator=generator), torch.randint(4, (images,), generator=generator)
    counts = ClassificationMetrics(4)
    counts.update(logits, labels)
    confidence, predicted = logits.double().softmax(-1).max(dim=-1)
    expected = slow_error(confidence, predicted == labels)
    assert counts.compute()["expected_calibration_error"] == pytest.approx(expected, abs=1e-6)
