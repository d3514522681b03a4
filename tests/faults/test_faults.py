"""The short form of the faults and hostile inputs; `run.py --all` runs the rest."""

import pytest

from faults.case import KINDS
from faults.run import all_cases, run


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """What came of every case of the short form."""
    return run(short=True, seed=0, only=None, root=tmp_path_factory.mktemp("faults"))


def test_nothing_is_silently_wrong_lost_or_a_traceback(outcomes):
    bad = [f"{row['kind']}: {row['call']}: {row['detail']}" for row in outcomes if row["kind"] not in KINDS[:2]]
    assert not bad, "\n".join(bad)


def test_the_short_form_has_cases_of_every_area(outcomes):
    assert {row["area"] for row in outcomes} == {case.area for case in all_cases(0)}
