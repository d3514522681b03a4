import os
from pathlib import Path

import processes

SCRIPT = Path(__file__).parents[2] / "faults" / "kills.py"
# What seed 78 draws: both front ends, best and last, two by SIGKILL, and every kind of moment that was lost before.
PLACES = [
    "after an epoch's last step", "before a last evaluation", "before an evaluation", "in a checkpoint",
    "in a last evaluation", "in an evaluation", "in step 1 of 4", "in step 2 of 4", "in step 3 of 4",
    "in step 4 of 4",
]  # fmt: skip


def test_runs_interrupted_at_any_moment_and_resumed_are_equal_to_the_unbroken_one(tmp_path):
    arguments = ["--kills", "12", "--hard", "2", "--seed", "78"]
    done = processes.run(SCRIPT, arguments, cwd=tmp_path, env=os.environ | {"TMPDIR": str(tmp_path)})
    assert done.returncode == 0, done.stderr + done.stdout
    rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("|")]
    assert [row[0] for row in rows[2 : 2 + len(PLACES)]] == PLACES
    assert ["all", "12", "12"] in rows  # and so none is anything but equal
    assert not list(tmp_path.glob("kills-*"))
