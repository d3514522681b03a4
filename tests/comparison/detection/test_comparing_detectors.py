"""Comparisons of detectors: the figures of `evaluate`, with intervals, and a verdict that follows from them."""

import json
import re

import pytest
import torch
from vithub.comparison.comparing import Comparison, compare
from vithub.comparison.cost import CostSettings
from vithub.comparison.detection.detector_verdict import detector_verdict
from vithub.comparison.detection.errors import KINDS
from vithub.comparison.measurement import Measurement, Section
from vithub.data.boxes.dataset import build_box_processor
from vithub.data.sources import DataError
from vithub.scripts.command_line import app, run
from vithub.training.tasks.detection.metrics import COCO_METRICS

import vithub

COST = CostSettings(sides=(32, 64), rounds=2, batch_size=2)


@pytest.fixture(scope="module")
def untrained(tiny_detr, randomised, tmp_path_factory):
    """A folder with a detector of random weights: `untrained(["red", "blue"])`."""

    def make(labels):
        folder = tmp_path_factory.mktemp("untrained") / "model"
        torch.manual_seed(0)
        config = tiny_detr(num_labels=len(labels), id2label=dict(enumerate(labels)))
        randomised(vithub.HubDetrForObjectDetection(config)).save_pretrained(folder)
        build_box_processor(64, 128).save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="module")
def report(detector_run, detector_data, untrained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reports") / "report"
    models = [f"good={detector_run.folder}", f"same={detector_run.folder}", f"bad={untrained(['red', 'blue'])}"]
    return folder, compare(models, detector_data, folder, split="train", quick=True, cost=COST, precision="fp32")


def section(found, name):
    return next(one for one in found.sections if one.name == name)


def test_figures_and_errors_are_those_of_evaluate(report, detector_run, detector_data):
    found = report[1]
    known = vithub.evaluate(detector_run.folder, detector_data, "train", workers=0)
    coco = section(found, "coco")
    for figure in COCO_METRICS:
        (one,) = coco.find("COCO", "good", figure=figure)
        expected = known["metrics"][figure]
        assert one.value == (None if expected is None else pytest.approx(100 * expected, abs=1e-6)), figure
        assert one.value is None or one.interval[0] <= one.value <= one.interval[1]
    for row in known["per_class"]:
        (one,) = coco.find("mAP by class", "good", **{"class": row["label"]})
        assert one.value == pytest.approx(100 * row["map"], abs=1e-6)
    errors = section(found, "errors")
    assert errors.find("score threshold", "good")[0].value == pytest.approx(known["errors"]["threshold"])
    for kind in KINDS:
        (one,) = errors.find("errors", "good", kind=kind)
        assert one.value == pytest.approx(100 * known["errors"]["counts"][kind] / known["boxes"]), kind
    assert re.search(r"(\d+) of \1 images of the train split, .*; fp32; intervals from 200 resamples", coco.notes[0])


def test_a_detector_against_itself_differs_in_nothing_and_a_worse_one_is_told(report):
    found = report[1]
    for one in section(found, "coco").find("COCO difference", "good against same"):
        assert one.value is None or (one.value, one.interval) == (0.0, (0.0, 0.0))
    for name in ("coco", "errors"):
        first, other = (
            [(m.quantity, m.at, m.value, m.interval) for m in section(found, name).measurements if m.contestant == who]
            for who in ("good", "same")
        )
        assert first == other
    assert any("good and same are not told apart here: 0.0 points of mAP (0.0 to 0.0" in line for line in found.verdict)
    (worse,) = section(found, "coco").find("COCO difference", "good against bad", figure="map")
    assert worse.interval[0] > 0
    assert any(sentence.startswith("Take ") or "take" in sentence for sentence in found.verdict)


def test_sizes_add_up_to_all_errors(report):
    errors = section(report[1], "errors")
    for kind in KINDS:
        assert [one.at["size"] for one in errors.find("errors by size", "good", kind=kind)] == [
            "small",
            "medium",
            "large",
        ]
    # the squares are 18 to 29 pixels wide: all are small
    (whole,) = errors.find("errors", "good", kind="missed")
    (small,) = errors.find("errors by size", "good", kind="missed", size="small")
    assert (small.value, small.interval) == (whole.value, whole.interval)
    (none,) = errors.find("errors by size", "good", kind="missed", size="large")
    assert (none.value, none.note) == (None, "no object of this size")


def test_cost_is_of_the_same_model_at_the_same_precision(report, detector_run):
    found = report[1]
    cost = section(found, "cost")
    (weights,) = cost.find("weights", "good")
    assert weights.value == pytest.approx(4 * sum(p.numel() for p in detector_run.model.parameters()) / 1e6)
    (latency,) = cost.find("latency", "good")
    assert latency.value > 0
    assert latency.at["input"] == "64 x 64"
    assert [one.at["pixels"] for one in cost.find("latency by side", "good")] == [32, 64]
    assert all("fp32" in " ".join(section(found, name).notes) for name in ("coco", "cost"))


def test_the_report_is_whole_and_comes_back(report):
    folder, found = report
    content = json.loads((folder / "report.json").read_text())
    assert content == json.loads(json.dumps(found.to_dict()))
    again = Comparison.load(folder)
    assert again.verdict == found.verdict
    pictures = sorted(file.name for file in (folder / "pictures").iterdir())
    assert pictures == ["coco.png", "errors.png", "speed.png"]
    text = (folder / "report.md").read_text()
    assert sorted(re.findall(r"\(pictures/([^)]+)\)", text)) == pictures
    page = (folder / "report.html").read_text()
    assert not re.search(r"""(src|href)=['"](?!data:)""", page)
    for one in content["sections"]:
        for row in one["measurements"]:
            assert row["protocol"] in one["protocols"]
            assert row["value"] is not None or row["note"]


def test_models_and_options_that_do_not_belong_together_are_told(
    detector_run, detector_data, finished_run, untrained, capsys
):
    detector = str(detector_run.folder)
    with pytest.raises(ValueError, match=r"models of one task .* several: .* for detection, .* for classification"):
        compare([detector, str(finished_run.folder)], detector_data)
    with pytest.raises(ValueError, match=r"several: .* for detection, .*timm:test_vit@random for classification"):
        compare([detector, "timm:test_vit@random"])
    with pytest.raises(DataError, match="other: the model does not know the class blue; it knows red, green"):
        compare([detector, f"other={untrained(['red', 'green'])}"], detector_data)
    with pytest.raises(ValueError, match="there is no section robustness for detectors; there are cost, coco, errors"):
        compare([detector], detector_data, sections=["robustness"])
    with pytest.raises(ValueError, match="there is no section coco; there are cost, translation"):
        compare(["timm:test_vit@random"], sections=["coco"])
    with pytest.raises(DataError, match="the sections coco need `data`, images with labels"):
        compare([detector], sections=["coco"])
    assert run(lambda: app(["compare", detector, "--sections", "cost", "--grid", "epochs=1"])) == 1
    assert "--grid has no effect on detectors" in capsys.readouterr().err


def test_without_data_the_command_measures_cost_and_sizes_that_a_model_refuses_are_named(detector_run, capsys):
    assert run(lambda: app(["compare", f"one={detector_run.folder}", "--quick", "--json"])) == 0
    content = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in content["sections"]] == ["cost"]
    assert content["contestants"][0]["family"] == "vithub_detr"
    assert content["verdict"][0].startswith("Latency of one image: one ")


def made(figures, times, difference):
    """Sections of two detectors a and b: mAP, latency, and the interval of the difference of a from b."""
    coco, cost = Section("coco", {}), Section("cost", {})
    for name, value in figures.items():
        for figure in ("map", "map_50"):
            at = {"figure": figure}
            coco.measurements.append(Measurement(name, "COCO", value, "%", "p", 0, (value - 5, value + 5), at))
    gap, at = figures["a"] - figures["b"], {"figure": "map"}
    coco.measurements.append(Measurement("a against b", "COCO difference", gap, "points", "p", 0, difference, at))
    cost.measurements += [Measurement(name, "latency", value, "ms", "p", 0) for name, value in times.items()]
    return [cost, coco]


def test_the_verdict_goes_by_the_paired_difference():
    clear = detector_verdict(made({"a": 40, "b": 30}, {"a": 30, "b": 10}, (4, 16)))
    assert "a is better than b by 10.0 points of mAP (4.0 to 16.0, paired over images), beyond chance." in clear
    assert clear[-1].startswith("With time to spare take a: to take b instead costs 10.0 points of mAP, beyond chance.")
    assert clear[-1].endswith("to take a there costs 3.0 times the time.")
    turned = detector_verdict(made({"a": 30, "b": 40}, {"a": 30, "b": 10}, (-16, -4)))
    assert "b is better than a by 10.0 points of mAP (4.0 to 16.0, paired over images), beyond chance." in turned
    assert turned[-1].startswith("Take b: it is the fastest and has the highest mAP measured.")
    close = detector_verdict(made({"a": 40, "b": 38}, {"a": 30, "b": 10}, (-3, 7)))
    assert close[-1].startswith("Take b unless the 2.0 points of mAP that a is ahead, which chance could have made")
    equal = detector_verdict(made({"a": 30, "b": 30}, {"a": 10, "b": 10}, (-3, 3)))
    assert equal[-1].startswith("Nothing here speaks for a or b: 0.0 points of mAP and 1.0 times the time")
    blind = detector_verdict(made({"a": 0.1, "b": 0.0}, {"a": 30, "b": 10}, (0.05, 0.2)))
    assert blind[-1].startswith("None of them finds the objects: the highest mAP is 0.1 %")
    assert detector_verdict([]) == []
