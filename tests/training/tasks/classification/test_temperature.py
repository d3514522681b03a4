"""Temperature scaling: the fit from sums against a search over all logits, and what a run stores of it."""

import json
import math

import pytest
import torch
from scipy.optimize import minimize_scalar
from vithub.hub.calibration import read_calibration
from vithub.hub.checkpoints import CheckpointError
from vithub.training.tasks.classification.metrics.multi_label import MultiLabelMetrics
from vithub.training.tasks.classification.metrics.single_label import ClassificationMetrics
from vithub.training.tasks.classification.metrics.temperature import TemperatureSums
from vithub.training.tasks.classification.metrics.temperature_facts import calibration_facts


def drawn(scale, count=400, classes=5, seed=0):
    """Logits whose labels are drawn from softmax(logits), multiplied by `scale`, which is what should be found."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(count, classes, generator=generator)
    labels = torch.multinomial(logits.softmax(dim=-1), 1, generator=generator)[:, 0]
    return scale * logits, labels


def loss_at(temperature, logits, labels):
    return float(torch.nn.functional.cross_entropy(logits.double() / temperature, labels))


@pytest.mark.parametrize("scale", [0.2, 1.0, 3.7])
def test_the_fit_is_that_of_a_search_over_all_logits(scale):
    logits, labels = drawn(scale)
    sums = TemperatureSums()
    sums.update(logits, labels)
    best = minimize_scalar(lambda t: loss_at(t, logits, labels), bounds=(0.05, 20), options={"xatol": 1e-9}).x
    assert sums.fitted() == pytest.approx(best, rel=1e-3)
    assert sums.fitted() == pytest.approx(scale, rel=0.15)
    for temperature in (0.07, 0.5, 1.0, best, 12.3):
        assert sums.loss(temperature, len(labels)) == pytest.approx(loss_at(temperature, logits, labels), rel=2e-4)
    assert sums.loss(0.04, len(labels)) is None


def test_no_temperature_is_best_where_all_is_right_or_nothing_is_known():
    labels = torch.tensor([0, 1, 2])
    for logits in (8 * torch.eye(3), torch.zeros(3, 3), -8 * torch.eye(3)):
        sums = TemperatureSums()
        sums.update(logits, labels)
        assert sums.fitted() is None, logits


def test_the_sums_do_not_depend_on_the_batches_and_survive_a_merge():
    logits, labels = drawn(2.0, count=50)
    whole, first, second = (ClassificationMetrics(5) for _ in range(3))
    whole.update(logits, labels)
    first.update(logits[:13], labels[:13])
    second.update(logits[13:], labels[13:])
    merged = ClassificationMetrics(5)
    merged.load([a + b for a, b in zip(first.tensors(), second.tensors(), strict=True)])
    assert torch.equal(merged.temperature.sums, whole.temperature.sums)
    assert merged.temperature.loss(1.0, 50) == pytest.approx(whole.compute()["loss"], rel=2e-4)


def test_facts_of_a_run():
    splits = {"validation": drawn(3.0, seed=1), "test": drawn(3.0, seed=2)}
    metrics = {name: ClassificationMetrics(5) for name in splits}
    for name, (logits, labels) in splits.items():
        metrics[name].update(logits, labels)
    facts = calibration_facts(metrics)
    assert (facts["fitted_on"], facts["images"]) == ("validation", 400)
    assert facts["temperature"] == metrics["validation"].temperature.fitted()
    for name, (logits, labels) in splits.items():
        assert facts["loss"][name]["before"] == pytest.approx(loss_at(1.0, logits, labels), rel=2e-4)
        assert facts["loss"][name]["after"] == pytest.approx(loss_at(facts["temperature"], logits, labels), rel=2e-4)
        assert facts["loss"][name]["after"] < facts["loss"][name]["before"]
    assert calibration_facts({"validation": MultiLabelMetrics(3)}) is None


def test_a_run_stores_what_the_page_reads(finished_run):
    metrics = json.loads((finished_run.folder / "metrics.json").read_text())
    stored, validation = metrics["calibration"], metrics["validation"]
    assert stored["images"] == metrics["data"]["sizes"]["validation"]
    assert 0.05 < stored["temperature"] < 20
    assert set(stored["loss"]) == {"validation", "test"}
    assert stored["loss"]["validation"]["before"] == pytest.approx(validation["loss"], rel=2e-4)
    assert stored["loss"]["validation"]["after"] <= stored["loss"]["validation"]["before"]
    wanted = {name: stored[name] for name in ("temperature", "fitted_on", "images")}
    assert read_calibration(finished_run.folder) == wanted


BAD = {
    "list": ([1.0], "calibration must be an object, got list"),
    "text": ({"temperature": "1.5", "fitted_on": "validation", "images": 3}, "a number above 0, got '1.5'"),
    "zero": ({"temperature": 0, "fitted_on": "validation", "images": 3}, "a number above 0, got 0"),
    "infinite": ({"temperature": math.inf, "fitted_on": "validation", "images": 3}, "a number above 0, got inf"),
    "split": ({"temperature": 1.5, "fitted_on": 3, "images": 3}, "must name the split"),
    "images": ({"temperature": 1.5, "fitted_on": "validation"}, "must name the split"),
}


@pytest.mark.parametrize(("content", "message"), BAD.values(), ids=BAD)
def test_a_damaged_temperature_is_named(content, message, tmp_path):
    (tmp_path / "metrics.json").write_text(json.dumps({"calibration": content}))
    with pytest.raises(CheckpointError, match=f"metrics.json.*{message}"):
        read_calibration(tmp_path)


def test_a_model_without_a_temperature_has_none(tmp_path):
    assert read_calibration(tmp_path) is None
    for content in ({}, {"calibration": None}, {"calibration": {"temperature": None, "fitted_on": "validation"}}):
        (tmp_path / "metrics.json").write_text(json.dumps(content))
        assert read_calibration(tmp_path) is None
