import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sklearn_metrics
from vithub.data.intervals import percentile_interval, share_interval
from vithub.training.tasks.classification.metrics.multi_label import MultiLabelMetrics
from vithub.training.tasks.classification.metrics.single_label import ClassificationMetrics

SAMPLES = 1000
SHARES = ("accuracy", "top5_accuracy")  # whose intervals are Wilson's


def draw_single(images, classes=8, seed=0, hard=1.5):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (images,), generator=generator)
    logits = torch.randn(images, classes, generator=generator)
    logits[torch.arange(images), labels] += hard
    return logits, labels


def draw_multi(images, classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(images, classes, generator=generator) + torch.randn(images, 1, generator=generator)
    labels = (torch.rand(images, classes, generator=generator) < (2 * hidden).sigmoid()).long()
    return 2 * (hidden + torch.randn(images, classes, generator=generator)), labels


def counted(logits, labels):
    counts = (ClassificationMetrics if labels.ndim == 1 else MultiLabelMetrics)(logits.shape[1])
    counts.update(logits, labels)
    return counts


def single_figures(logits, labels):
    """By scikit-learn."""
    predicted = logits.argmax(-1)
    top5 = sklearn_metrics.top_k_accuracy_score(labels, logits, k=5, labels=range(logits.shape[1]))
    f1 = {"y_true": labels, "y_pred": predicted, "zero_division": 0.0}
    return {
        "accuracy": (predicted == labels).mean(),
        "top5_accuracy": top5,
        "macro_f1": sklearn_metrics.f1_score(**f1, average="macro", labels=np.unique(labels)),
        "weighted_f1": sklearn_metrics.f1_score(**f1, average="weighted"),
    }


def multi_figures(logits, labels):
    """By scikit-learn, all classes occur."""
    precision = [sklearn_metrics.average_precision_score(labels[:, c], logits[:, c]) for c in range(labels.shape[1])]
    f1 = {"y_true": labels, "y_pred": (logits > 0).astype(int), "zero_division": 0.0}
    return {
        "mean_average_precision": np.mean(precision),
        "accuracy": sklearn_metrics.accuracy_score(f1["y_true"], f1["y_pred"]),
        "micro_f1": sklearn_metrics.f1_score(**f1, average="micro"),
        "macro_f1": sklearn_metrics.f1_score(**f1, average="macro"),
    }


def slow_bootstrap(figures, logits, labels, samples):
    """Draws images with replacement, and computes everything anew."""
    generator = np.random.default_rng(1)
    logits, labels = logits.numpy(), labels.numpy()
    rows = []
    for _ in range(samples):
        drawn = generator.integers(len(labels), size=len(labels))
        rows.append(figures(logits[drawn], labels[drawn]))
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def assert_same_interval(found, values, extra=0.0):
    """An end that is resampled from n values lies within about 5 standard errors of the other's."""
    low, high = np.quantile(values, [0.025, 0.975])
    slack = 5 * 2.7 * values.std() * np.sqrt(1 / len(values) + 1 / SAMPLES) + extra  # 2.7: of a 2.5 % quantile
    assert found[0] == pytest.approx(low, abs=slack)
    assert found[1] == pytest.approx(high, abs=slack)
    assert slack < 0.45 * (high - low), "such a test would show nothing"


def test_resampling_the_confusion_is_resampling_the_images():
    logits, labels = draw_single(150)
    found = counted(logits, labels).intervals(samples=SAMPLES)
    values = slow_bootstrap(single_figures, logits, labels, 500)
    assert set(found) == set(values)
    figures = single_figures(logits.numpy(), labels.numpy())
    for name, interval in found.items():
        if name in SHARES:
            assert interval == pytest.approx(share_interval(round(150 * figures[name]), 150))
        else:
            assert_same_interval(interval, values[name])


@pytest.mark.parametrize("images", [50, 400])
def test_resampling_groups_spreads_as_resampling_images_does(images):
    # Up to 50 images each is a group of its own; beyond that the spread is estimated from 50 groups, to about 10 %.
    logits, labels = draw_multi(images)
    found = counted(logits, labels).intervals(samples=SAMPLES)
    values = slow_bootstrap(multi_figures, logits, labels, 300)
    assert set(found) == set(values)
    shares = multi_figures(logits.numpy(), labels.numpy())
    assert found.pop("accuracy") == pytest.approx(share_interval(round(images * shares["accuracy"]), images))
    for name, interval in found.items():
        width = np.quantile(values[name], 0.975) - np.quantile(values[name], 0.025)
        bias = abs(values[name].mean() - multi_figures(logits.numpy(), labels.numpy())[name])
        assert_same_interval(interval, values[name], 0 if images == 50 else 0.15 * width + bias)
        assert interval[1] - interval[0] == pytest.approx(width, rel=0.3)


def test_labels_of_one_image_go_together():
    # Nothing is learned from seeing the same label three times, so that the interval must not shrink.
    logits, labels = draw_multi(200, classes=1)
    once, thrice = counted(logits, labels), counted(logits.repeat(1, 3), labels.repeat(1, 3))
    alone, together = once.intervals(samples=200), thrice.intervals(samples=200)
    for name, interval in alone.items():
        assert interval == pytest.approx(together[name]), name


@pytest.mark.parametrize("draw", [draw_single, draw_multi])
@given(images=st.integers(60, 300), seed=st.integers(0, 99))
def test_intervals_hold_the_figure_that_they_are_of(draw, images, seed):
    counts = counted(*draw(images, seed=seed))
    figures = counts.compute()
    for name, (low, high) in counts.intervals(samples=200).items():
        assert 0 <= low <= figures[name] <= high <= 1, name


@pytest.mark.parametrize("draw", [draw_single, draw_multi])
def test_four_times_the_images_halve_the_interval(draw):
    def width(images, seed):
        return {n: high - low for n, (low, high) in counted(*draw(images, seed=seed)).intervals(samples=300).items()}

    few, many = ([width(images, seed) for seed in range(6)] for images in (500, 2000))
    for name in few[0]:
        ratio = sum(row[name] for row in many) / sum(row[name] for row in few)
        assert ratio == pytest.approx(0.5, abs=0.1), name


@pytest.mark.parametrize("draw", [draw_single, draw_multi])
def test_intervals_hold_the_truth_about_as_often_as_they_say(draw):
    truth = counted(*draw(100_000, seed=12345)).compute()
    hits = {name: [] for name in truth}
    for seed in range(60):
        for name, (low, high) in counted(*draw(200, seed=seed)).intervals(level=0.8, samples=150).items():
            hits[name].append(low <= truth[name] <= high)
    for name, held in hits.items():
        if held:  # of 60 with a chance of 0.8: the standard deviation is 3.1
            assert 36 <= sum(held) <= 58, name


@pytest.mark.parametrize("draw", [draw_single, draw_multi])
def test_the_seed_decides_and_a_higher_level_is_wider(draw):
    counts = counted(*draw(200))
    assert counts.intervals(samples=50, seed=3) == counts.intervals(samples=50, seed=3)
    assert counts.intervals(samples=50, seed=3) != counts.intervals(samples=50, seed=4)
    narrow, wide = counts.intervals(level=0.5), counts.intervals(level=0.99)
    assert set(narrow) == set(wide)
    for name in narrow:
        assert wide[name][0] < narrow[name][0] < narrow[name][1] < wide[name][1], name


def test_where_all_is_right_a_share_has_a_width_and_other_figures_have_no_interval():
    for images in (4, 100):
        found = counted(10 * torch.eye(4).repeat(images // 4, 1), torch.arange(4).repeat(images // 4)).intervals()
        assert set(found) == {"accuracy", "top5_accuracy"}
        # 4 right of 4 are no proof of a classifier without fault
        assert found["accuracy"] == pytest.approx((images / (images + 1.959964**2), 1.0), abs=1e-6)
        assert found["accuracy"][1] == 1.0


def test_a_ranking_without_fault_has_no_interval_however_close_the_logits_are():
    labels = (torch.arange(120) % 3 == 0).long()[:, None]
    counts = counted(1.1 + 0.2 * labels, labels)
    assert counts.compute()["mean_average_precision"] == 1
    assert "mean_average_precision" not in counts.intervals(samples=50)


def test_classes_that_a_sample_lacks_do_not_count_as_failures():
    # One image per class and all of them right: a sample lacks a third of the classes, and F1 is 1 all the same.
    multi = counted(20 * torch.eye(8) - 10, torch.eye(8, dtype=torch.int64))
    assert set(multi.intervals(samples=50)) == {"accuracy"}


@given(whole=st.integers(1, 10_000), share=st.floats(0, 1), level=st.floats(0.5, 0.999))
def test_the_interval_of_a_share_is_wilsons_as_scipy_has_it(whole, share, level):
    part = round(share * whole)
    expected = stats.binomtest(part, whole).proportion_ci(level, method="wilson")
    assert share_interval(part, whole, level) == pytest.approx((expected.low, expected.high), abs=1e-9)


@pytest.mark.parametrize("images", [10, 50, 200])
def test_a_share_lies_in_its_interval_as_often_as_it_says_near_the_edge_too(images):
    """Exact: the chance of each count, summed where its interval holds the share. The bootstrap's is 40 % at 10."""
    counts = np.arange(images + 1)
    ends = np.array([share_interval(int(part), images) for part in counts])
    shares = np.linspace(0.5, 1 - 0.5 / images, 60)
    chances = np.array(
        [
            stats.binom.pmf(counts, images, share)[(ends[:, 0] <= share) & (share <= ends[:, 1])].sum()
            for share in shares
        ]
    )
    assert chances.mean() == pytest.approx(0.95, abs=0.015)
    assert chances.min() > 0.83


@pytest.mark.parametrize("level", [0, 1, 95, -0.1])
def test_a_level_that_is_no_part_of_one_is_refused(level):
    with pytest.raises(ValueError, match="between 0 and 1"):
        percentile_interval(np.arange(5.0), level)


def test_no_image_has_no_interval():
    for counts in (ClassificationMetrics(3), MultiLabelMetrics(3)):
        with pytest.raises(ValueError, match="no image"):
            counts.intervals()
