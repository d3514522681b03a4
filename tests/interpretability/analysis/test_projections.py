"""Projections against known geometry, and figures of separation against their definitions."""

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from vithub.interpretability.analysis.projections import class_separation, knn_accuracy, principal_components

import vithub


def clusters(classes=3, each=12, width=8, spread=0.1, seed=0):
    draws = np.random.default_rng(seed)
    centres = np.eye(width)[:classes]
    labels = np.repeat(np.arange(classes), each)
    return centres[labels] + spread * draws.normal(size=(len(labels), width)), labels


def test_points_in_a_plane_come_back_rotated():
    draws = np.random.default_rng(0)
    flat = draws.normal(size=(30, 2)) * [5, 1]
    basis = np.linalg.qr(draws.normal(size=(7, 7)))[0][:2]
    points, shares = principal_components(flat @ basis + 3)
    distances = [np.linalg.norm(each[:, None] - each[None], axis=-1) for each in (flat, points)]
    np.testing.assert_allclose(*distances, atol=1e-9)
    assert sum(shares) == pytest.approx(1)
    assert shares[0] > shares[1]
    np.testing.assert_allclose(points.mean(axis=0), 0, atol=1e-9)


@given(seed=st.integers(0, 99), images=st.integers(3, 9), width=st.integers(1, 9))
def test_no_other_plane_holds_more_variance(seed, images, width):
    draws = np.random.default_rng(seed)
    features = draws.normal(size=(images, width))
    points, shares = principal_components(features)
    assert points.shape == (images, 2)
    plane = np.linalg.qr(draws.normal(size=(width, 2)))[0]
    centred = features - features.mean(axis=0)
    assert (points**2).sum() >= ((centred @ plane) ** 2).sum() - 1e-9
    assert sum(shares) == pytest.approx((points**2).sum() / (centred**2).sum())


def test_classes_apart_score_high_and_mixed_ones_low():
    features, labels = clusters()
    shuffled = np.random.default_rng(1).permutation(labels)
    assert class_separation(features, labels) > 0.8
    assert class_separation(features, shuffled) < 0.05
    assert knn_accuracy(features, labels, 5) == 1.0
    assert knn_accuracy(features, shuffled, 5) < 0.65
    assert np.isnan(class_separation(features, np.zeros(len(labels), dtype=int)))


@given(seed=st.integers(0, 99), neighbours=st.integers(1, 6))
def test_neighbours_are_those_of_the_definition(seed, neighbours):
    features, labels = clusters(each=5, spread=0.8, seed=seed)
    directions = features / np.linalg.norm(features, axis=1, keepdims=True)
    right = 0
    for image in range(len(labels)):
        order = [other for other in np.argsort(-(directions @ directions[image])) if other != image][:neighbours]
        votes = labels[order]
        most = max(np.bincount(votes))
        winner = next(label for label in votes if (votes == label).sum() == most) if neighbours < 3 else None
        if winner is None:  # among equals the one with the larger sum of 2^-rank
            weights = {
                label: sum(2.0**-rank for rank, vote in enumerate(votes) if vote == label) for label in set(votes)
            }
            winner = max((label for label in weights if (votes == label).sum() == most), key=weights.get)
        right += winner == labels[image]
    assert knn_accuracy(features, labels, neighbours) == right / len(labels)


def test_an_image_never_votes_for_itself():
    features = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])  # pairs that are the same
    assert knn_accuracy(features, np.array([0, 1, 0, 1]), 1) == 0.0
    assert knn_accuracy(features, np.array([0, 0, 1, 1]), 1) == 1.0


def test_before_and_after(tmp_path):
    after, labels = clusters(spread=0.1)
    before, _ = clusters(spread=2.0)
    found = vithub.project({"before": before, "after": after}, labels, ["daisy", "rose", "tulip"])
    assert found.silhouettes["before"] < 0.1 < 0.8 < found.silhouettes["after"]
    assert found.knn_accuracies["after"] == 1
    table = found.to_dataframe()
    assert len(table) == 72
    assert set(table.label) == {"daisy", "rose", "tulip"}
    np.testing.assert_array_equal(table[table.features == "after"][["x", "y"]], found.points["after"])
    found.save(tmp_path / "both.svg")
    text = (tmp_path / "both.svg").read_text(encoding="utf-8")
    assert "of the variance" in text
    assert "tulip" in text
    vithub.project(after).save(tmp_path / "plain.png", theme="dark")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "tsne"}, r"`method` must be one of \['pca', 'umap'\], got 'tsne'"),
        ({"features": np.zeros((2, 4)), "labels": None}, "at least 3 images"),
        ({"features": np.full((36, 2), np.nan)}, "not finite, the first in row 0"),
        ({"labels": np.zeros(5, dtype=int)}, "must be of the same images"),
        ({"labels": np.full(36, 0.5)}, "numbers of classes"),
        ({"label_names": ["one"]}, "1 names, and there is a label 2"),
        ({"neighbours": 36}, "between 1 and 35"),
    ],
)
def test_what_cannot_be_projected_is_said(arguments, message):
    features, labels = clusters()
    with pytest.raises(ValueError, match=message):
        vithub.project(**{"features": features, "labels": labels, **arguments})


def test_umap_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    features, labels = clusters(each=20)
    with pytest.raises(ImportError, match=r"vithub\[umap\]"):
        vithub.project(features, labels, method="umap")


@pytest.mark.filterwarnings("ignore:Tensorflow not installed:ImportWarning")
def test_umap_keeps_clusters_apart_and_repeats_itself():
    features, labels = clusters(each=20)
    found = vithub.project(features, labels, method="umap", seed=3)
    again = vithub.project(features, labels, method="umap", seed=3)
    np.testing.assert_array_equal(found.points["features"], again.points["features"])
    points = found.points["features"]
    centres = np.stack([points[labels == label].mean(axis=0) for label in range(3)])
    own = np.linalg.norm(points - centres[labels], axis=1)
    assert own.max() < np.linalg.norm(centres[0] - centres[1])
