"""A detector's evaluation and its predictions on two processes of this machine, over gloo, against one."""

import json

import processes
import pytest

import vithub

WORKER = """
import json, sys
import torch
import vithub
from vithub.training.runtime.processes import process_state

torch.set_num_threads(1)
folder, data, out = json.loads(sys.argv[1])
result = vithub.evaluate(folder, data, "train", on_bad_image="skip", batch_size=4, output=out, workers=0)
assert process_state().num_processes == 2
print("RESULT " + json.dumps(result), flush=True)
"""


def launch(task):
    done = processes.launch(WORKER, [json.dumps(task)])
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line[7:]) for line in done.stdout.splitlines() if line.startswith("RESULT ")]


def test_two_processes_measure_what_one_does(detector_run, damaged_squares, tmp_path):
    results = launch([str(detector_run.folder), str(damaged_squares), str(tmp_path / "both")])
    alone = vithub.evaluate(detector_run.folder, damaged_squares, "train", on_bad_image="skip", batch_size=4, workers=0)
    assert len(results) == 2
    assert len(alone["bad_images"]) == 2
    assert alone["metrics"]["map"] > 0.02
    for result in results:
        for name, value in alone["metrics"].items():
            wanted = value if value is None else pytest.approx(value, abs=1e-6, rel=1e-5)
            assert result["metrics"][name] == wanted, name
        assert {name: result[name] for name in ("images", "boxes", "bad_images")} == {
            name: alone[name] for name in ("images", "boxes", "bad_images")
        }
        assert result["errors"]["counts"] == alone["errors"]["counts"]
    written = json.loads((tmp_path / "both" / "metrics.json").read_text())
    assert written["metrics"]["map"] == results[0]["metrics"]["map"]
