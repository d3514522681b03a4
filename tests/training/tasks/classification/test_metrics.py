import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics
from vithub.training.tasks.classification.metrics.single_label import ClassificationMetrics


def draw(images, classes, seed=0, hard=2.0):
    """Logits that are often right, and labels; not every class need occur."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (images,), generator=generator)
    logits = torch.randn(images, classes, generator=generator)
    logits[torch.arange(images), labels] += hard
    return logits, labels


def counted(logits, labels, *sizes):
    counts = ClassificationMetrics(logits.shape[1])
    start = 0
    for size in [*sizes, len(labels)]:
        counts.update(logits[start : start + size], labels[start : start + size])
        start += size
        if start >= len(labels):
            break
    return counts


cases = st.tuples(st.integers(1, 80), st.integers(2, 12), st.integers(0, 1000), st.sampled_from([0.0, 1.0, 3.0]))


@given(case=cases)
def test_figures_are_those_of_scikit_learn(case):
    logits, labels = draw(*case)
    classes = range(logits.shape[1])
    true, predicted = labels.numpy(), logits.argmax(-1).numpy()
    found = counted(logits, labels).compute()
    present = sorted(set(true.tolist()))
    f1 = {"zero_division": 0.0, "y_true": true, "y_pred": predicted}
    expected = {
        "accuracy": sklearn_metrics.accuracy_score(true, predicted),
        "macro_f1": sklearn_metrics.f1_score(**f1, average="macro", labels=present),
        "weighted_f1": sklearn_metrics.f1_score(**f1, average="weighted", labels=classes),
        "loss": sklearn_metrics.log_loss(true, logits.double().softmax(-1).numpy(), labels=classes),
    }
    if len(classes) > 2:
        scores = logits.numpy()
        expected["top5_accuracy"] = (
            sklearn_metrics.top_k_accuracy_score(true, scores, k=5, labels=classes) if len(classes) > 5 else 1.0
        )
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-5, abs=1e-9), name


@given(case=cases)
def test_figures_of_each_class_and_the_confusion_are_those_of_scikit_learn(case):
    logits, labels = draw(*case)
    classes = list(range(logits.shape[1]))
    true, predicted = labels.numpy(), logits.argmax(-1).numpy()
    counts = counted(logits, labels)
    expected = sklearn_metrics.precision_recall_fscore_support(true, predicted, labels=classes, zero_division=0.0)
    rows = counts.per_class([f"class {number}" for number in classes])
    assert [row["label"] for row in rows] == [f"class {number}" for number in classes]
    for name, values in zip(("precision", "recall", "f1", "images"), expected, strict=True):
        assert [row[name] for row in rows] == pytest.approx(values.tolist()), name
    confusion = sklearn_metrics.confusion_matrix(true, predicted, labels=classes)
    assert np.array_equal(np.asarray(counts.confusion), confusion)


@given(case=cases, sizes=st.lists(st.integers(1, 30), max_size=8))
def test_the_size_of_batches_changes_nothing(case, sizes):
    logits, labels = draw(*case)
    whole, parts = counted(logits, labels).compute(), counted(logits, labels, *sizes).compute()
    assert whole.pop("loss") == pytest.approx(parts.pop("loss"), rel=1e-6)
    assert whole == parts


def test_half_precision_logits_are_counted_as_they_are():
    logits, labels = draw(50, 7)
    half = logits.bfloat16()
    assert counted(half, labels).compute() == counted(half.float(), labels).compute()


def test_names_must_be_as_many_as_classes():
    with pytest.raises(ValueError, match="argument"):
        counted(*draw(5, 3)).per_class(["a", "b"])


def test_no_image_gives_an_error_and_not_a_division_by_zero():
    with pytest.raises(ValueError, match="no image"):
        ClassificationMetrics(3).compute()
