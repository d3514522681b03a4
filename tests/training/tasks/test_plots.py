import json
import math

import numpy as np
import pytest
import torch
from matplotlib.text import Text
from PIL import Image
from vithub.training.tasks import plots as figures
from vithub.training.tasks.classification.metrics.choice import ClassificationMetrics, MultiLabelMetrics
from vithub.training.tasks.plots import save_confusion_matrix, save_learning_curves, save_reliability


@pytest.fixture(autouse=True)
def blank_pictures():
    """Here they are looked at."""


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved, to look at what is in them."""
    seen, make = [], figures.new_figure

    def keep(*size):
        seen.append(make(*size))
        return seen[-1]

    monkeypatch.setattr(figures, "new_figure", keep)
    return seen


def history(epochs, headline="accuracy"):
    return [
        {
            "epoch": number,
            "train_loss": 2 * math.exp(-number / 8),
            "validation_loss": 2.1 * math.exp(-number / 8) + 0.2,
            f"validation_{headline}": 1 - math.exp(-number / 5) - 0.004 * number,
            "lr": 1e-3 / number,
            "images_per_second": 400.0 + number,
            "peak_memory_mb": 12_345.6 + number,
        }
        for number in range(1, epochs + 1)
    ]


def assert_nothing_is_cut_off(figure):
    """All that is drawn, texts and ticks included, lies within the picture."""
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()  # inches
    assert box.x0 >= 0
    assert box.y0 >= 0
    assert box.x1 <= width
    assert box.y1 <= height


@pytest.mark.parametrize("epochs", [1, 2, 30, 300])
@pytest.mark.parametrize("headline", ["accuracy", "mean_average_precision"])
def test_learning_curves_show_the_history(epochs, headline, drawn, tmp_path):
    entries = history(epochs, headline)
    save_learning_curves(entries, tmp_path / "curves.png", headline)
    panels = {axes.get_ylabel(): axes for axes in drawn[0].axes if axes.lines}
    expected = {
        "loss (nats)": [("train_loss", 1), ("validation_loss", 1)],
        f"{headline.replace('_', ' ')} (%)": [(f"validation_{headline}", 100)],
        "learning rate": [("lr", 1)],
        "training images per second": [("images_per_second", 1)],
        "peak memory (MB)": [("peak_memory_mb", 1)],
    }
    assert set(panels) == set(expected)
    for label, keys in expected.items():
        for line, (key, factor) in zip(panels[label].lines, keys, strict=False):
            assert list(line.get_xdata()) == list(range(1, epochs + 1))
            assert list(line.get_ydata()) == pytest.approx([factor * entry[key] for entry in entries])
        low, high = panels[label].get_ylim()
        assert all(low <= y <= high for line in panels[label].lines for y in line.get_ydata())
    assert_nothing_is_cut_off(drawn[0])
    with Image.open(tmp_path / "curves.png") as image:
        assert image.size == (1650, 900)


def test_learning_curves_mark_the_best_epoch_and_of_equal_ones_that_of_the_lowest_loss(drawn, tmp_path):
    entries = history(4)
    for entry, accuracy, loss in zip(entries, [0.5, 0.75, 0.75, 0.6], [1.0, 0.9, 0.8, 0.7], strict=True):
        entry |= {"validation_accuracy": accuracy, "validation_loss": loss}
    save_learning_curves(entries, tmp_path / "curves.png")
    legend = [text.get_text() for text in drawn[0].findobj(Text)]
    assert "best epoch: 3 (75.0 %)" in legend


def test_the_legend_does_not_lie_on_the_curves(drawn, tmp_path):
    save_learning_curves(history(30), tmp_path / "curves.png")
    counts = ClassificationMetrics(3)
    counts.update(torch.randn(90, 3, generator=torch.Generator().manual_seed(0)), torch.arange(90) % 3)
    save_reliability(counts.reliability(), tmp_path / "reliability.png")
    for figure in drawn:
        figure.draw_without_rendering()
        legends = [axes.get_legend() for axes in figure.axes if axes.get_legend()] + figure.legends
        assert len(legends) == 1
        box = legends[0].get_window_extent()
        data = [axes.get_window_extent() for axes in figure.axes if axes.lines or axes.patches]
        assert len(data) >= 2
        assert not any(box.overlaps(panel) for panel in data)


@pytest.mark.parametrize("multi_label", [False, True])
def test_the_reliability_diagram_shows_the_bins(multi_label, drawn, tmp_path):
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(300, 4, generator=generator)
    counts = (MultiLabelMetrics if multi_label else ClassificationMetrics)(4)
    counts.update(logits, (logits > 1).long() if multi_label else torch.randint(4, (300,), generator=generator))
    bins = json.loads(json.dumps(counts.reliability()))  # as metrics.json holds them
    save_reliability(bins, tmp_path / "reliability.png")
    filled = [entry for entry in bins if entry["images"]]
    assert 0 < len(filled) < len(bins)
    above, below = drawn[0].axes
    assert [bar.get_x() for bar in above.patches] == pytest.approx([100 * entry["low"] for entry in filled])
    assert [bar.get_height() for bar in above.patches] == pytest.approx([100 * entry["accuracy"] for entry in filled])
    assert sum(bar.get_height() for bar in below.patches) == pytest.approx(100)
    error = counts.compute()["expected_calibration_error"]
    assert drawn[0].get_suptitle() == f"expected calibration error {100 * error:.1f} %"
    assert_nothing_is_cut_off(drawn[0])


@pytest.mark.parametrize("count", [2, 10, 20, 60, 61])
@pytest.mark.parametrize("length", [1, 80])
def test_a_confusion_matrix_of_any_size_has_all_its_names(count, length, drawn, tmp_path):
    names = [f"{number}{'x' * length}" for number in range(count)]
    confusion = np.random.default_rng(0).poisson(2, (count, count))
    save_confusion_matrix(confusion, names, tmp_path / "confusion.png")
    axes = drawn[0].axes[0]
    shown = [label.get_text() for label in axes.get_yticklabels()]
    if count <= 60:
        assert len(shown) == count
        assert all(name.startswith(label.rstrip("…")) for name, label in zip(names, shown, strict=True))
    cells = [text.get_text() for text in axes.texts]
    assert cells == ([str(value) for value in confusion.ravel() if value] if count <= 20 else [])
    assert_nothing_is_cut_off(drawn[0])
    with Image.open(tmp_path / "confusion.png") as image:
        assert max(image.size) < 4000


def test_names_that_matplotlib_would_take_for_formulas_or_cannot_draw_do_no_harm(drawn, tmp_path):
    # A warning would be an error here.
    names = ["$5_bill$", "50 % off", "日本語", "a\nb", r"back\slash", "x^2_y", "$", ""]
    save_confusion_matrix(np.eye(8), names, tmp_path / "confusion.png")
    shown = [label.get_text() for label in drawn[0].axes[0].get_xticklabels()]
    assert shown == [r"\$5_bill\$", "50 % off", "class 2", "a b", r"back\slash", "x^2_y", r"\$", ""]


def test_a_class_without_images_leaves_a_row_of_zeros(drawn, tmp_path):
    save_confusion_matrix(np.array([[3, 1], [0, 0]]), ["a", "b"], tmp_path / "confusion.png")
    assert drawn[0].axes[0].images[0].get_array().tolist() == [[75, 25], [0, 0]]
