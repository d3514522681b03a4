"""Wrong labels that were put in are found among the first, by a ranking that no image's own label helps."""

import json
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vithub.data.checking.content import PhotoInspection
from vithub.data.checking.photos import Photos, PhotoSplit
from vithub.scripts.command_line import app, run
from vithub.training import label_check
from vithub.training.label_check import find_doubtful_labels, rank_labels

import vithub


def inspected(labels, embeddings, digests=None):
    """What an inspection of such images would have found."""
    split = PhotoSplit(lambda: iter(()), len(labels), lambda row: (None, None))
    split.place = lambda row, image=None: f"row {row}"
    checked = PhotoInspection(Photos("made", "table", {"train": split}, None))
    checked.label_sets = [(f"class {number}",) for number in range(max(labels) + 1)]
    for number, label in enumerate(labels):
        checked.rows.split.append(0)
        checked.rows.row.append(number)
        checked.rows.label.append(int(label))
        checked.rows.digests.extend((digests[number] if digests is not None else number, 0))
    checked.embeddings = embeddings.astype(np.float16)
    return checked


def planted(seed, count=300, classes=3, share=0.05):
    """Embeddings around one centre per class, with labels of which some are flipped, and which ones."""
    draws = np.random.default_rng(seed)
    true = draws.integers(0, classes, count)
    embeddings = draws.normal(size=(classes, 16))[true] * 2 + draws.normal(size=(count, 16))
    flipped = draws.choice(count, round(share * count), replace=False)
    labels = true.copy()
    labels[flipped] = (true[flipped] + draws.integers(1, classes, len(flipped))) % classes
    return labels, embeddings, set(flipped.tolist()), true


@settings(max_examples=5)
@given(st.integers(0, 2**32))
def test_planted_errors_come_first_with_the_class_that_is_right(seed):
    labels, embeddings, flipped, true = planted(seed)
    checked = inspected(labels, embeddings)
    ranking = find_doubtful_labels(checked)
    assert sorted(one.number for one in ranking) == list(range(300))
    first = {one.number for one in ranking[:30]}
    assert len(first & flipped) >= 0.9 * len(flipped)
    right = [one for one in ranking if one.number in flipped and one.number in first]
    assert np.mean([one.suggested == f"class {true[one.number]}" for one in right]) >= 0.9
    doubtful = [one.number for one in ranking if one.doubtful]
    assert checked.faults.counts["likely wrong label"] == len(doubtful)
    assert doubtful == [one.number for one in ranking[: len(doubtful)]]


def test_a_copy_does_not_vouch_for_its_label():
    labels, embeddings, flipped, _ = planted(0)
    wrong = sorted(flipped)[0]
    copies = 20  # enough to teach the probe the wrong class, were they in it
    labels, embeddings = np.r_[labels, [labels[wrong]] * copies], np.r_[embeddings, embeddings[[wrong] * copies]]
    digests = [*range(300), *[wrong] * copies]
    ranking = find_doubtful_labels(inspected(labels, embeddings, digests))
    assert len(ranking) == 300
    assert wrong in {one.number for one in ranking[:30]}


def test_what_cannot_be_judged_is_left_out_and_said():
    labels, embeddings, _, _ = planted(0)
    labels[labels == 2] = 0
    labels[:3] = 2  # a class of three images
    labels[5] = -1
    checked = inspected(labels, embeddings)
    numbers = {one.number for one in find_doubtful_labels(checked)}
    assert numbers == set(range(300)) - {0, 1, 2, 5}
    assert checked.source.notes == ["wrong labels are not looked for in classes of fewer than 5 images: class 2"]
    several = inspected(labels, embeddings)
    several.source.multi_label = True
    assert find_doubtful_labels(several) == []
    assert find_doubtful_labels(inspected([0] * 20, embeddings[:20])) == []


def test_the_ranking_is_by_margin_within_both_parts():
    draws = np.random.default_rng(0)
    probabilities = draws.dirichlet([0.3] * 4, 200)
    labels = np.array([draws.choice(4, p=row) for row in probabilities])
    order, wrong = rank_labels(labels, probabilities)
    rivals = probabilities.copy()
    rivals[np.arange(200), labels] = -1
    margin = probabilities[np.arange(200), labels] - rivals.max(axis=1)
    assert sorted(order) == list(range(200))
    count = int(wrong.sum())
    assert 0 < count < 200
    assert wrong[order[:count]].all()
    for part in (order[:count], order[count:]):
        assert (np.diff(margin[part]) >= -1e-9).all()


@pytest.fixture(scope="module")
def checked_digits(digit_folders, finished_run, tmp_path_factory):
    """Output of the command on digits of which three are in the folder of another class."""
    root = tmp_path_factory.mktemp("digits")
    data = shutil.copytree(digit_folders, root / "data")
    for number in range(3):
        file = sorted((data / "one").iterdir())[number]
        file.rename(data / "seven" / f"moved-{number}.png")
    arguments = ["check-data", str(data), "--model", str(finished_run.folder), "--output", str(root / "report")]
    assert run(lambda: app(arguments)) == 0
    return root / "report"


def test_a_classifier_of_digits_doubts_those_that_were_moved(checked_digits):
    report = json.loads((checked_digits / "report.json").read_text())
    places = [one["place"] for one in report["labels_by_doubt"]]
    assert len(places) == 400
    moved = [place for place in places[:40] if "moved" in place]
    assert len(moved) >= 2, places[:40]
    page = (checked_digits / "report.html").read_text()
    assert page.count("data:image/jpeg") >= report["doubtful_labels"] > 0
    assert "the classifier says" in page


def test_without_cleanlab_the_option_is_refused_before_any_work(monkeypatch, tmp_path):
    monkeypatch.setattr(label_check, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'vithub\[labels\]'"):
        vithub.check_data(tmp_path, model=tmp_path, task="classification")
