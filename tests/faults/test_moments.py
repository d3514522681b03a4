"""The short form of faults at drawn moments of running commands; `moments/run.py` runs any number of them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from patience import LONG, PATIENCE

from faults.moments.run import kinds_of, markdown, together

HERE = Path(__file__).parent
COUNT = 2000 if LONG else 200
RESULTS = HERE / "results" / "moments.json"
DOCUMENT = HERE.parents[1] / "docs" / "reliability.md"
PARTS = ("reading", "step", "evaluation", "checkpoint", "card", "finished model")


@pytest.fixture(scope="module")
def counts(tmp_path_factory):
    """Counts of a run of the script, in a fresh interpreter: the address of its Hub is read at import."""
    folder = tmp_path_factory.mktemp("moments")
    done = subprocess.run(
        [sys.executable, HERE / "moments" / "run.py", "--count", str(COUNT), "--json", folder / "counts.json"],
        capture_output=True, text=True, timeout=PATIENCE, check=False,
        env={name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"} | {"TMPDIR": str(folder)},
    )  # fmt: skip
    assert (folder / "counts.json").is_file(), done.stderr[-3000:]
    assert not list(folder.glob("moments-*"))
    return json.loads((folder / "counts.json").read_text())


def test_after_each_fault_all_is_as_without_it(counts):
    assert counts["wrong"] == []
    assert sum(count for count, _ in counts["kinds"].values()) >= COUNT


def test_faults_of_each_kind_struck_each_part_of_the_work(counts):
    kinds = {kind for job in ("finetune", "predict") for kind in kinds_of(job)}
    assert kinds - counts["kinds"].keys() <= {"small disk"}  # which needs the right to mount one
    assert {f"finetune: {part}" for part in PARTS} | {"export", "publish"} <= counts["places"].keys()


def test_the_document_shows_the_counts_that_were_measured():
    measured = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert f"\n{markdown(measured)}\n" in DOCUMENT.read_text(encoding="utf-8")
    assert measured["wrong"] == []
    for table in ("kinds", "places"):
        assert all(count == equal for count, equal in measured[table].values())


def test_counts_of_pieces_add_up():
    piece = {"kinds": {"SIGKILL": [2, 1]}, "places": {"publish": [2, 1]}, "wrong": ["one"]}
    other = {"kinds": {"SIGINT": [3, 3]}, "places": {"publish": [3, 3]}, "wrong": []}
    total = together([piece, other])
    assert total == {"kinds": {"SIGKILL": [2, 1], "SIGINT": [3, 3]}, "places": {"publish": [5, 4]}, "wrong": ["one"]}
    assert "| publish | 5 | 4 |\n" in markdown(total)
    assert "| **all** | 5 | 4 |\n" in markdown(total)
