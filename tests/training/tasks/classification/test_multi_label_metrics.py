import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics
from vithub.training.tasks.classification.metrics.choice import metrics_for
from vithub.training.tasks.classification.metrics.multi_label import MultiLabelMetrics
from vithub.training.tasks.classification.metrics.single_label import ClassificationMetrics

WIDTH = 40 / 8192  # of a bin


def draw(images, classes, seed=0, spread=1.5):
    """Logits that rank images well but not perfectly, and labels that go together; some classes may be empty."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(images, classes, generator=generator) + torch.randn(images, 1, generator=generator) - 1
    labels = (torch.rand(images, classes, generator=generator) < (2 * hidden).sigmoid()).float()
    return spread * (hidden + torch.randn(images, classes, generator=generator)), labels


def counted(logits, labels, *sizes, counts=None):
    counts = counts or MultiLabelMetrics(logits.shape[1])
    start = 0
    for size in [*sizes, len(labels)]:
        counts.update(logits[start : start + size], labels[start : start + size])
        start += size
    return counts


def mean_average_precision(logits, labels):
    present = [c for c in range(labels.shape[1]) if labels[:, c].any()]
    return np.mean([sklearn_metrics.average_precision_score(labels[:, c], logits[:, c]) for c in present])


cases = st.tuples(st.integers(1, 60), st.integers(1, 8), st.integers(0, 1000))


@given(case=cases, levels=st.integers(2, 2000))
def test_figures_are_those_of_scikit_learn(case, levels):
    logits, labels = draw(*case)
    assume(labels.any())
    # Scores in the middle of bins: equal ones share a bin, different ones do not, and none is 0.
    logits = ((logits * levels / 10).round() * round(2000 / levels) + 0.5) * WIDTH
    assert logits.abs().max() < 20
    found = counted(logits, labels).compute()
    predicted, true = (logits > 0).int().numpy(), labels.int().numpy()
    present = [c for c in range(true.shape[1]) if true[:, c].any()]
    f1 = {"y_true": true, "y_pred": predicted, "zero_division": 0.0}
    if true.shape[1] == 1:
        f1 = {name: value.ravel() if name != "zero_division" else value for name, value in f1.items()}
        expected = {"macro_f1": sklearn_metrics.f1_score(**f1), "micro_f1": sklearn_metrics.f1_score(**f1)}
    else:
        expected = {
            "macro_f1": sklearn_metrics.f1_score(**f1, average="macro", labels=present),
            "micro_f1": sklearn_metrics.f1_score(**f1, average="micro"),
        }
    expected |= {
        "mean_average_precision": mean_average_precision(logits, labels),
        "accuracy": sklearn_metrics.accuracy_score(true, predicted),
        "loss": np.mean([_log_loss(true[:, c], logits[:, c]) for c in range(true.shape[1])]),
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-6), name


def _log_loss(true, logits):
    return sklearn_metrics.log_loss(true, logits.double().sigmoid().numpy(), labels=[0, 1])


@given(case=cases)
def test_figures_of_each_class_are_those_of_scikit_learn(case):
    logits, labels = draw(*case)
    logits = ((logits * 50).round() * 4 + 0.5) * WIDTH
    names = [f"label {number}" for number in range(labels.shape[1])]
    rows = counted(logits, labels).per_class(names)
    assert [row["label"] for row in rows] == names
    for c, row in enumerate(rows):
        true, predicted = labels[:, c].numpy(), (logits[:, c] > 0).float().numpy()
        precision, recall, f1, _ = sklearn_metrics.precision_recall_fscore_support(
            true, predicted, average="binary", pos_label=1, zero_division=0.0
        )
        assert (row["precision"], row["recall"], row["f1"]) == pytest.approx((precision, recall, f1))
        assert row["images"] == true.sum()
        if true.any():
            score = sklearn_metrics.average_precision_score(true, logits[:, c])
            assert row["average_precision"] == pytest.approx(score)
        else:
            assert row["average_precision"] is None


@given(case=cases, center=st.floats(-30, 30), spread=st.sampled_from([1e-9, 1e-4, 1e-3, 0.01, 0.1, 1.5, 20.0]))
def test_small_sets_are_exact_however_close_the_logits_are(case, center, spread):
    logits, labels = draw(*case)
    assume(labels.any())
    logits = center + spread * logits.double()
    counts = counted(logits, labels)
    assert counts.compute()["mean_average_precision"] == pytest.approx(mean_average_precision(logits, labels), abs=1e-9)
    assert counts.precision_error() == 0


@given(
    case=st.tuples(st.integers(1, 200), st.integers(1, 5), st.integers(0, 1000)), center=st.floats(-25, 25),
    spread=st.sampled_from([1e-4, 1e-3, 0.01, 0.05, 0.5, 1.5, 20.0]), rounding=st.integers(0, 3),
)  # fmt: skip
def test_beyond_the_logits_that_are_kept_the_stated_bound_holds(case, center, spread, rounding):
    logits, labels = draw(*case)
    assume(labels.any())
    logits = (center + spread * logits.double()).round(decimals=rounding + 1) if rounding else center + spread * logits
    counts = counted(logits, labels, counts=MultiLabelMetrics(labels.shape[1], exact_scores=0))
    error = abs(counts.compute()["mean_average_precision"] - mean_average_precision(logits, labels))
    assert error <= counts.precision_error() + 1e-9


@pytest.mark.parametrize("spread", [0.5, 1.5, 5.0])
@pytest.mark.parametrize("images", [200, 5000])
def test_the_bound_is_about_a_thousandth_of_logits_that_spread(images, spread):
    logits, labels = draw(images, 6, spread=spread)
    counts = counted(logits, labels, counts=MultiLabelMetrics(6, exact_scores=0))
    found = counts.compute()["mean_average_precision"]
    assert found == pytest.approx(mean_average_precision(logits, labels), abs=1e-3)
    assert 0 < counts.precision_error() < 0.02


def test_the_bound_is_reached_by_images_of_one_bin():
    # 3 of 6 images have the label, all logits in one bin: at best 1, counted as 1 / 2
    logits, labels = torch.linspace(0.0001, 0.0010, 6)[:, None], torch.tensor([[0], [0], [0], [1], [1], [1]])
    counts = counted(logits, labels, counts=MultiLabelMetrics(1, exact_scores=0))
    assert counts.compute()["mean_average_precision"] == 0.5
    assert counts.precision_error() == pytest.approx(0.5)
    assert counted(logits, labels).compute()["mean_average_precision"] == 1


def test_one_image_too_many_and_the_histogram_takes_over():
    logits, labels = draw(31, 4)
    counts = MultiLabelMetrics(4, exact_scores=4 * 30)
    exact = MultiLabelMetrics(4)
    for rows in (slice(0, 30), slice(30, 31)):
        counts.update(0.01 * logits[rows], labels[rows])
        exact.update(0.01 * logits[rows], labels[rows])
        kept = counts.precision_error() == 0
        assert kept == (rows.stop == 30)
        gap = abs(counts.compute()["mean_average_precision"] - exact.compute()["mean_average_precision"])
        assert gap <= counts.precision_error()


@pytest.mark.parametrize("sizes", [(7, 7), (9, 5), (3, 11)])
def test_processes_that_counted_unequal_numbers_of_images_are_exact_together(sizes):
    """As where one of them could not decode some of its images."""
    logits, labels = draw(sum(sizes), 5)
    first, second = (MultiLabelMetrics(5, p, 2) for p in (0, 1))
    counted(0.01 * logits[: sizes[0]], labels[: sizes[0]], counts=first)
    counted(0.01 * logits[sizes[0] :], labels[sizes[0] :], counts=second)
    total = MultiLabelMetrics(5)
    total.load([a + b for a, b in zip(first.tensors(), second.tensors(), strict=True)])
    expected = mean_average_precision(0.01 * logits, labels)
    assert total.compute()["mean_average_precision"] == pytest.approx(expected, abs=1e-9)
    # what is counted after it may find its place taken: then the bound holds
    total.update(0.01 * logits, labels)
    twice = mean_average_precision(0.01 * logits.repeat(2, 1), labels.repeat(2, 1))
    assert abs(total.compute()["mean_average_precision"] - twice) <= total.precision_error() + 1e-9


def test_neighbouring_bins_are_told_apart_from_end_to_end():
    # Class by class one image in a bin and, with the label, one in the next.
    middles = (torch.arange(8192, dtype=torch.float64) - 4096 + 0.5) * WIDTH
    for start in range(0, 8191, 819):
        lower, upper = middles[start : start + 819], middles[start + 1 : start + 820]
        logits = torch.stack([lower[: len(upper)], upper])
        counts = MultiLabelMetrics(len(upper), exact_scores=0)
        found = counted(logits, torch.tensor([[0], [1]]).expand(2, len(upper)), counts=counts)
        assert found.compute()["mean_average_precision"] == 1


def test_the_headline_is_what_compute_gives():
    single, multi = metrics_for(3, False), metrics_for(3, True)
    assert isinstance(single, ClassificationMetrics)
    assert isinstance(multi, MultiLabelMetrics)
    single.update(torch.eye(3), torch.arange(3))
    multi.update(torch.eye(3) - 0.5, torch.eye(3))
    assert single.headline == "accuracy"
    assert multi.headline == "mean_average_precision"
    assert single.compute()[single.headline] == multi.compute()[multi.headline] == 1
    assert single.images == multi.images == 3
    assert multi.confusion is None


@given(case=cases, sizes=st.lists(st.integers(0, 30), max_size=8))
def test_the_size_of_batches_changes_nothing(case, sizes):
    logits, labels = draw(*case)
    assume(labels.any())
    whole, parts = counted(logits, labels), counted(logits, labels, *sizes)
    assert whole.compute() == parts.compute()
    assert all(torch.equal(a, b) for a, b in zip(whole.tensors(), parts.tensors(), strict=True))


@given(processes=st.integers(1, 5), images=st.integers(5, 70), seed=st.integers(0, 99), multi_label=st.booleans())
def test_the_sum_over_processes_is_the_whole(processes, images, seed, multi_label):
    logits, labels = draw(images, 6, seed)
    labels = labels if multi_label else labels.argmax(dim=-1)
    assume(labels.any())
    whole = counted(logits, labels, counts=metrics_for(6, multi_label))
    shards = [
        counted(logits[p::processes], labels[p::processes], 7, counts=metrics_for(6, multi_label, p, processes))
        for p in range(processes)
    ]
    total = metrics_for(6, multi_label)
    total.load([torch.stack(tensors).sum(dim=0) for tensors in zip(*(s.tensors() for s in shards), strict=True)])
    assert total.images == images
    assert total.compute() == whole.compute()  # the very same bits
    assert total.reliability() == whole.reliability()
    assert total.per_class(list("abcdef")) == whole.per_class(list("abcdef"))
    assert total.intervals(samples=20) == whole.intervals(samples=20)


@pytest.mark.parametrize("multi_label", [False, True])
def test_loaded_counts_go_on_counting_and_leave_what_they_came_from_alone(multi_label):
    logits, labels = draw(20, 6)
    labels = labels if multi_label else labels.argmax(dim=-1)
    first = counted(logits, labels, counts=metrics_for(6, multi_label))
    before = first.compute()
    second = metrics_for(6, multi_label)
    second.load(first.tensors())
    counted(logits, labels, counts=second)
    assert first.compute() == before
    assert second.images == 40
    assert second.compute()["accuracy"] == before["accuracy"]


def test_memory_does_not_grow_with_the_number_of_images():
    few, many = counted(*draw(2, 4)), counted(*draw(3000, 4))
    assert [t.shape for t in few.tensors()] == [t.shape for t in many.tensors()]


def test_a_class_that_never_occurs_is_left_out_of_the_means():
    logits, labels = draw(80, 3)
    without = counted(logits, labels).compute()
    logits = torch.cat([logits, torch.full((80, 1), -3.0)], dim=1)
    with_empty = counted(logits, torch.cat([labels, torch.zeros(80, 1)], dim=1)).compute()
    for name in ("mean_average_precision", "macro_f1", "micro_f1", "accuracy"):
        assert with_empty[name] == without[name], name
    assert with_empty["loss"] < without["loss"]


def test_a_probability_of_one_half_is_no_yes():
    counts = counted(torch.zeros(4, 2), torch.tensor([[1, 0]] * 4))
    assert counts.compute()["micro_f1"] == 0
    assert counts.compute()["accuracy"] == 0
    assert counts.compute()["mean_average_precision"] == 1  # of the one class that occurs, always


def test_logits_beyond_the_histogram_are_counted_at_its_ends():
    logits = torch.tensor([[1e30], [25.0], [-30.0], [-1e30]])
    found = counted(logits, torch.tensor([[1], [1], [0], [0]])).compute()
    assert found["mean_average_precision"] == found["micro_f1"] == found["accuracy"] == 1
    assert found["loss"] == pytest.approx(0, abs=1e-6)
    wrong = counted(torch.tensor([[100.0], [-100.0]]), torch.tensor([[0], [1]])).compute()
    assert wrong["loss"] == pytest.approx(100)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float32, torch.bfloat16])
def test_labels_of_any_type_are_counted_alike(dtype):
    logits, labels = draw(30, 4)
    assert counted(logits, labels.to(dtype)).compute() == counted(logits, labels).compute()


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
def test_logits_that_cannot_be_ranked_are_refused(multi_label, wrong):
    logits = torch.zeros(5, 3)
    logits[3, 1] = wrong
    labels = torch.zeros(5, 3) if multi_label else torch.zeros(5, dtype=torch.int64)
    with pytest.raises(ValueError, match="logits of 1 of 5 images are infinite or not a number"):
        metrics_for(3, multi_label).update(logits, labels)


def test_labels_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="0 or 1"):
        MultiLabelMetrics(2).update(torch.zeros(1, 2), torch.tensor([[0.0, 0.3]]))
    with pytest.raises(ValueError, match=r"must be \(B, 2\), got \(1, 2\) and \(1, 3\)"):
        MultiLabelMetrics(2).update(torch.zeros(1, 2), torch.zeros(1, 3))
    with pytest.raises(ValueError, match=r"must be \(B, 2\), got \(1, 3\)"):
        MultiLabelMetrics(2).update(torch.zeros(1, 3), torch.zeros(1, 3))
    with pytest.raises(ValueError, match="0 to 1, got 0 to 2"):
        ClassificationMetrics(2).update(torch.zeros(2, 2), torch.tensor([0, 2]))
    with pytest.raises(ValueError, match="0 to 1, got -1 to 0"):
        ClassificationMetrics(2).update(torch.zeros(2, 2), torch.tensor([-1, 0]))
    with pytest.raises(ValueError, match=r"got \(2, 3\) and \(2,\)"):
        ClassificationMetrics(2).update(torch.zeros(2, 3), torch.tensor([0, 1]))


def test_nothing_to_rank_gives_an_error_and_not_a_nan():
    with pytest.raises(ValueError, match="no image"):
        MultiLabelMetrics(2).compute()
    with pytest.raises(ValueError, match="none of the 3 images has a label"):
        counted(torch.zeros(3, 2), torch.zeros(3, 2)).compute()
