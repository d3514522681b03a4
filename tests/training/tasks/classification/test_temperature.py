"""Temperature scaling: the fit from sums against a search over all logits, and what a run stores of it."""

import json
import math

import pytest
import torch
from scipy.optimize import minimize_scalar
from vithub.hub.calibration import calibration_of, calibration_to_export, read_calibration
from vithub.hub.checkpoints import CheckpointError
from vithub.training.tasks.classification.metrics.multi_label import MultiLabelMetrics
from vithub.training.tasks.classification.metrics.single_label import ClassificationMetrics
from vithub.training.tasks.classification.metrics.temperature import SigmoidTemperatureSums, TemperatureSums
from vithub.training.tasks.classification.metrics.temperature_facts import calibration_facts


def drawn(scale, count=400, classes=5, seed=0):
    """Logits whose labels are drawn from softmax(logits), multiplied by `scale`, which is what should be found."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(count, classes, generator=generator)
    labels = torch.multinomial(logits.softmax(dim=-1), 1, generator=generator)[:, 0]
    return scale * logits, labels


def drawn_labels(scale, count=400, classes=5, seed=0):
    """The same for any number of labels per image, each drawn from the sigmoid of its logit."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(count, classes, generator=generator) - 1
    return scale * logits, (torch.rand(count, classes, generator=generator) < logits.sigmoid()).float()


def loss_at(temperature, logits, labels):
    scaled = logits.double() / temperature
    if labels.ndim == 2:
        return float(torch.nn.functional.binary_cross_entropy_with_logits(scaled, labels.double()))
    return float(torch.nn.functional.cross_entropy(scaled, labels))


KINDS = {
    "one label": (TemperatureSums, ClassificationMetrics, drawn),
    "any number": (SigmoidTemperatureSums, MultiLabelMetrics, drawn_labels),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [0.2, 1.0, 3.7])
def test_the_fit_is_that_of_a_search_over_all_logits(kind, scale):
    made, _, draw = KINDS[kind]
    logits, labels = draw(scale)
    sums = made()
    sums.update(logits, labels)
    best = minimize_scalar(lambda t: loss_at(t, logits, labels), bounds=(0.05, 20), options={"xatol": 1e-9}).x
    assert sums.fitted() == pytest.approx(best, rel=1e-3)
    assert sums.fitted() == pytest.approx(scale, rel=0.15)
    for temperature in (0.07, 0.5, 1.0, best, 12.3):
        assert sums.loss(temperature, labels.numel()) == pytest.approx(loss_at(temperature, logits, labels), rel=2e-4)
    assert sums.loss(0.04, labels.numel()) is None


def test_no_temperature_is_best_where_all_is_right_or_nothing_is_known():
    for made, labels in ((TemperatureSums, torch.tensor([0, 1, 2])), (SigmoidTemperatureSums, torch.eye(3))):
        for logits in (16 * torch.eye(3) - 8, torch.zeros(3, 3), 8 - 16 * torch.eye(3)):
            sums = made()
            sums.update(logits, labels)
            assert sums.fitted() is None, logits


@pytest.mark.parametrize("kind", KINDS)
def test_the_sums_do_not_depend_on_the_batches_and_survive_a_merge(kind):
    _, made, draw = KINDS[kind]
    logits, labels = draw(2.0, count=50)
    whole, first, second, merged = (made(5) for _ in range(4))
    whole.update(logits, labels)
    first.update(logits[:13], labels[:13])
    second.update(logits[13:], labels[13:])
    merged.load([a + b for a, b in zip(first.tensors(), second.tensors(), strict=True)])
    assert torch.equal(merged.temperature.sums, whole.temperature.sums)
    assert merged.temperature.loss(1.0, labels.numel()) == pytest.approx(whole.compute()["loss"], rel=2e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_facts_of_a_run(kind):
    _, made, draw = KINDS[kind]
    splits = {"validation": draw(3.0, seed=1), "test": draw(3.0, seed=2)}
    metrics = {name: made(5) for name in splits}
    for name, (logits, labels) in splits.items():
        metrics[name].update(logits, labels)
    facts = calibration_facts(metrics)
    assert (facts["fitted_on"], facts["images"]) == ("validation", 400)
    assert facts["temperature"] == metrics["validation"].temperature.fitted()
    for name, (logits, labels) in splits.items():
        assert facts["loss"][name]["before"] == pytest.approx(loss_at(1.0, logits, labels), rel=2e-4)
        assert facts["loss"][name]["after"] == pytest.approx(loss_at(facts["temperature"], logits, labels), rel=2e-4)
        assert facts["loss"][name]["after"] < facts["loss"][name]["before"]


@pytest.mark.parametrize("run", ["finished_run", "multi_label_run"])
def test_a_run_stores_what_the_page_reads(run, request):
    finished_run = request.getfixturevalue(run)
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


def test_an_exported_form_has_the_temperature_of_the_weights_where_its_scores_are_theirs(tmp_path):
    found = {"temperature": 1.5, "fitted_on": "validation", "images": 3}
    assert calibration_to_export(tmp_path, "fp32", 0)["why_not"] == "no temperature was measured for this model"
    (tmp_path / "metrics.json").write_text(json.dumps({"calibration": found | {"loss": {}}}))
    for precision in ("fp32", "bf16", "fp16"):
        assert calibration_to_export(tmp_path, precision, 0) == found
    for precision, merged, what in (("int8", 0, "int8"), ("fp32", 2, "token merging")):
        stated = calibration_to_export(tmp_path, precision, merged)
        assert stated["temperature"] is None
        assert stated["why_not"] == f"the temperature is that of the weights, and {what} changes the scores"
    assert calibration_of(torch.nn.Identity(), tmp_path) == found


def test_a_model_without_a_temperature_has_none(tmp_path):
    assert read_calibration(tmp_path) is None
    for content in ({}, {"calibration": None}, {"calibration": {"temperature": None, "fitted_on": "validation"}}):
        (tmp_path / "metrics.json").write_text(json.dumps(content))
        assert read_calibration(tmp_path) is None
