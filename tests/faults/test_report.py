"""The document of the faults shows the counts that were measured and the cases that were not answered well."""

import json
from collections import Counter
from pathlib import Path

import pytest

from faults.case import KINDS
from faults.report import markdown
from faults.run import all_cases, summary

RESULTS = Path(__file__).with_name("results")
DOCUMENT = Path(__file__).parents[2] / "docs" / "robustness.md"


@pytest.fixture(scope="module")
def counts():
    """Counts of version 0.1 and of today."""
    return [json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8")) for name in ("before", "after")]


def test_the_document_shows_the_counts_of_the_two_files(counts):
    assert f"\n{markdown(*counts)}\n" in DOCUMENT.read_text(encoding="utf-8")


@pytest.mark.parametrize("number", [0, 1])
def test_the_counts_of_a_file_agree_with_each_other(number, counts):
    found = counts[number]
    by_kind = [Counter(), Counter()]
    for total, table in zip(by_kind, (found["by_area"], found["by_sort"]), strict=True):
        for row in table.values():
            total.update(row)
    assert +by_kind[0] == +by_kind[1]
    assert by_kind[0].total() == found["cases"]
    assert {kind: len(names) for kind, names in found["not_right_or_clear"].items()} == {
        kind: count for kind, count in by_kind[0].items() if count and kind not in KINDS[:2]
    }


def test_the_counts_of_today_are_of_areas_and_cases_that_there_are(counts):
    cases = all_cases(0)
    assert {case.area for case in cases} == counts[1]["by_area"].keys()
    assert {name for names in counts[1]["not_right_or_clear"].values() for name in names} <= {c.key for c in cases}


def test_the_document_names_every_case_that_was_not_answered_well(counts):
    text = DOCUMENT.read_text(encoding="utf-8")
    names = [name for listed in counts[1]["not_right_or_clear"].values() for name in listed]
    assert [name for name in names if name not in text] == []


def test_counts_add_up_and_a_table_shows_both_numbers_where_they_differ():
    row = {"area": "images", "name": "a", "fault": True, "kind": "lost"}
    before = summary([row, row | {"name": "b", "kind": "right"}])
    after = summary([row | {"kind": "right"}, row | {"name": "b", "kind": "right"}])
    assert before["not_right_or_clear"] == {"lost": ["images: a"]}
    assert "| images | 2 | 1 -> 2 | 0 | 0 | 0 | 1 -> 0 |\n" in markdown(before, after)
