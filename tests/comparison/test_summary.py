"""The summary on top of a report, and the verdict under its headings."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from pictures import save_blank
from vithub.comparison.comparing import Comparison
from vithub.comparison.detection.plots import DETECTION_PICTURES
from vithub.comparison.measurement import Measurement, Section
from vithub.comparison.report_figures import save_pictures
from vithub.comparison.report_page import markdown, page
from vithub.comparison.summary import summaries

REPORTS = Path(__file__).parents[2] / "docs/reports"


def row(table, measure):
    (found,) = (row for row in table.rows if row.measure.startswith(measure))
    return found


def accuracy(name, value, low, high):
    return Measurement(name, "accuracy", value, "%", "p", 0, (low, high))


@given(st.lists(st.lists(st.integers(0, 100), min_size=3, max_size=3).map(sorted), min_size=1, max_size=4))
def test_the_better_one_is_marked_only_beyond_the_intervals_of_each_other(ends):
    rows = [accuracy(f"net {number}", middle, low, high) for number, (low, middle, high) in enumerate(ends)]
    (table,) = summaries([Section("translation", {}, rows)], {one.contestant: 32 for one in rows})
    best = row(table, "accuracy").best
    clear = [
        one.contestant
        for one in rows
        if len(rows) > 1 and all(one.interval[0] > other.interval[1] for other in rows if other is not one)
    ]
    assert best == (clear[0] if clear else None)


@given(st.lists(st.tuples(st.integers(1, 9), st.floats(1, 99)), min_size=2, max_size=3))
def test_counts_are_exact_and_times_without_an_interval_tell_nothing(numbers):
    names = [f"net {number}" for number in range(len(numbers))]
    counts = [Measurement(name, "parameters", count, "1", "p") for name, (count, _) in zip(names, numbers, strict=True)]
    times = [Measurement(name, "latency", time, "ms", "p", at={"side": 32})
             for name, (_, time) in zip(names, numbers, strict=True)]  # fmt: skip
    (table,) = summaries([Section("cost", {}, counts + times)], dict.fromkeys(names, 32))
    fewest = min(count for count, _ in numbers)
    alone = [name for name, (count, _) in zip(names, numbers, strict=True) if count == fewest]
    assert row(table, "parameters").best == (alone[0] if len(alone) == 1 else None)
    assert row(table, "latency").best is None


def test_costs_are_those_of_each_contestants_own_size():
    cost = Section("cost", {})
    for name in ("vit", "cnn"):
        cost.measurements += [
            Measurement(name, "latency", float(side), "ms", "p", 0, (side - 1.0, side + 1.0), {"side": side})
            for side in (96, 128, 224)
        ]
    (table,) = summaries([cost], {"vit": 224, "cnn": 120})
    found = row(table, "latency of one image, each at its own size")
    assert {name: one.value for name, one in found.cells.items()} == {"vit": 224, "cnn": 128}
    assert found.best == "cnn"


@pytest.mark.parametrize(("interval", "best"), [((4, 16), "a"), ((-3, 16), None)])
def test_detectors_are_told_apart_by_their_paired_difference(interval, best):
    coco, at = Section("coco", {}), {"figure": "map"}
    for name, value in (("a", 40), ("b", 30)):
        coco.measurements.append(Measurement(name, "COCO", value, "%", "p", 0, (value - 20, value + 20), at))
    coco.measurements.append(Measurement("a against b", "COCO difference", 10, "points", "p", 0, interval, at))
    (table,) = summaries([coco], {"a": 64, "b": 64})
    assert row(table, "mAP").best == best


@pytest.fixture(scope="module", params=["flowers5", "cifar10"])
def committed(request):
    return REPORTS / request.param, Comparison.load(REPORTS / request.param)


def test_every_sentence_is_under_one_heading_and_no_two_have_the_same_words_about_different_measures(committed):
    _, found = committed
    groups = found.verdict_by_heading
    assert found.verdict == [line for lines in groups.values() for line in lines]
    assert len(found.verdict) == len(set(found.verdict))
    names = sorted({name for section in found.sections for one in section.measurements
                    for name in one.contestant.split(" against ")}, key=len, reverse=True)  # fmt: skip
    seen = {}
    for heading, lines in groups.items():
        for line in lines:
            words = re.sub(r"[-+]?\d[\d.,]*", "#", re.sub("|".join(map(re.escape, names)), "NAME", line))
            assert seen.setdefault(words, heading) == heading
    apart = [line for line in found.verdict if "told apart" in line or " is more " in line]
    assert all(re.search(r"points of \w+", line) for line in apart)


def test_the_committed_report_is_what_its_numbers_give(committed, monkeypatch, tmp_path):
    folder, found = committed
    monkeypatch.setattr(Figure, "savefig", save_blank)
    names = [one["name"] for one in found.contestants]
    drawn = save_pictures(found.sections, names, tmp_path)
    drawn += save_pictures(found.sections, names, tmp_path, DETECTION_PICTURES)
    text = markdown(found, drawn)
    assert (folder / "report.md").read_text() == text
    top, _, rest = text.partition("## Verdict")
    assert top.count("| measure |") == 1
    assert rest.count("<details>") == rest.count("</details>") == len(found.sections)
    written = page(found, drawn, tmp_path)
    for table in summaries(found.sections, {one["name"]: one["image_hw"][0] for one in found.contestants}):
        marked = [row for row in table.rows if row.best is not None]
        assert written.count("<strong>") == len(marked) == top.count("| **")
    if found.contestants:
        assert written.index("<h3>Which to take</h3>") < written.index("<h3>Accuracy</h3>")
