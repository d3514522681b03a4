"""The short form of the faults and hostile inputs; `run.py --all` runs the rest."""

import json
from pathlib import Path

import pytest

from faults.case import BAD, KINDS
from faults.report import markdown
from faults.run import all_cases, run

RESULTS = Path(__file__).parent / "results"
DOCUMENT = Path(__file__).parents[2] / "docs" / "robustness.md"


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """What came of every case of the short form."""
    return run(short=True, seed=0, only=None, root=tmp_path_factory.mktemp("faults"))


def test_nothing_is_silently_wrong_lost_or_a_traceback(outcomes):
    bad = [f"{row['kind']}: {row['call']}: {row['detail']}" for row in outcomes if row["kind"] not in KINDS[:2]]
    assert not bad, "\n".join(bad)


def test_the_short_form_has_cases_of_every_area(outcomes):
    assert {row["area"] for row in outcomes} == {case.area for case in all_cases(0)}


def test_the_document_shows_the_counts_that_were_kept():
    before, after = (json.loads((RESULTS / f"{name}.json").read_text()) for name in ("before", "after"))
    assert markdown(before, after) in DOCUMENT.read_text(encoding="utf-8")
    assert not any(row[kind] for row in after["by_area"].values() for kind in BAD)
    assert set(after["by_area"]) == {case.area for case in all_cases(0)}
