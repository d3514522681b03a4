"""The check of a card runs to its end on a CPU in its tiny form, so that it is whole when a card is at hand."""

import importlib
import importlib.util
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from patience import PATIENCE

FOLDER = Path(__file__).parents[2] / "benchmarks/gpu"
PHASES = (
    "models",
    "training",
    "options",
    "processes",
    "use",
    "throughput",
    "detr",
    "end_to_end",
    "profile",
    "compiled",
)


def loaded(name):
    """A program of the folder as a module; its name is taken by other programs too."""
    spec = importlib.util.spec_from_file_location(f"gpu_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def program(monkeypatch):
    """`benchmarks/gpu/run.py` as a module; the modules beside it are forgotten afterwards."""
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    yield loaded("run")
    for name, module in list(sys.modules.items()):
        if str(FOLDER) in str(getattr(module, "__file__", "")):
            del sys.modules[name]


def test_the_phases_fit_the_time_of_a_card(program):
    assert tuple(program.PHASES) == PHASES
    assert {file.stem for file in FOLDER.glob("phase_*.py")} == {f"phase_{name}" for name in PHASES}
    cut_last = sum(program.PHASES.values()) - program.PHASES["compiled"]
    assert cut_last <= program.BUDGET <= 480


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore:The .grad attribute:UserWarning")  # of dynamo
@pytest.mark.parametrize("phase", PHASES)
def test_a_phase_runs_to_its_end_on_a_cpu(phase, program, tmp_path):
    records = list(program.phase_records(phase, "cpu", True, tmp_path, None))
    assert [record for record in records if record["status"] not in ("passed", "measured", "not available")] == []
    assert {record["status"] for record in records} != {"not available"}
    for record in records:
        json.dumps(record)
        assert record["check"] in program.shown(record)


def test_a_model_that_computes_something_else_on_the_card_is_found(program, tmp_path, monkeypatch):
    models = importlib.import_module("phase_models")

    class Drifting(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.calls = torch.nn.Parameter(torch.ones(3)), 0

        def forward(self, pixel_values):
            self.calls += 1
            return {"logits": pixel_values * self.weight * (1 + 1e-3 * (self.calls > 1))}

    monkeypatch.setattr(models, "_cases", lambda tiny: {"drifting": (Drifting(), {"pixel_values": torch.ones(2, 3)})})
    monkeypatch.setattr(models, "STEPS", (models.same_as_on_the_cpu,))
    (record,) = program.phase_records("models", "cpu", True, tmp_path, None)
    assert record["status"] == "failed"
    assert record["outputs_differ"] == pytest.approx(1e-3, rel=0.1)


def test_a_step_that_raises_is_told_and_the_next_goes_on(program, tmp_path):
    check = importlib.import_module("check")

    def broken(_):
        yield check.measured(first=1)
        raise ValueError("the second part")

    def whole(_):
        return check.verdict(True)

    found = list(check.records("some", (broken, whole), check.Check("cpu", True, tmp_path)))
    assert [(record["check"], record["status"]) for record in found] == [
        ("broken", "measured"), ("broken", "failed"), ("whole", "passed"),
    ]  # fmt: skip
    assert found[1]["error"] == "ValueError: the second part"


def test_each_record_is_written_at_once_and_a_cut_phase_is_named(program, tmp_path):
    output = tmp_path / "results.jsonl"
    output.write_text('{"from": "before"}\n')
    command = [sys.executable, FOLDER / "run.py", "--device", "cpu", "--tiny", "--output", output]
    done = subprocess.run(
        [*command, "--phases", "profile"], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    before, written = map(json.loads, output.read_text().splitlines())
    assert before == {"from": "before"}
    assert (written["phase"], written["status"]) == ("profile", "measured")
    assert "aten::" in done.stdout
    assert "1 measured" in done.stdout
    options = program.parse(["--device", "cpu", "--tiny"])
    (cut,) = program.run_phase("models", options, limit=0.2)
    assert (cut["status"], cut["phase"]) == ("cut", "models")


def test_a_phase_that_there_is_not_is_refused(program, capsys):
    with pytest.raises(SystemExit):
        program.parse(["--phases", "models,speed"])
    assert "got speed" in capsys.readouterr().err


def test_the_folder_for_a_machine_without_a_network_is_whole(tmp_path, capsys):
    prepare, installing = loaded("prepare"), loaded("installing")
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "one.jpg").write_bytes(b"\xff\xd8 one")
    folder = tmp_path / "card"
    prepare.prepare(
        prepare.parse([str(folder), "--packages", "--photos", str(tmp_path / "some")])  # no package: no network
    )
    assert "carry it to the machine" in capsys.readouterr().out
    (ours,) = (folder / "wheels").glob("*.whl")
    names = zipfile.ZipFile(ours).namelist()
    assert {"vithub/__init__.py", "vithub/training/recipe/presets/finetune.yaml", "vithub/py.typed"} <= set(names)
    assert not [name for name in names if name.startswith(("tests", "benchmarks"))]
    for name in ("not_there-1.0-py3-none-any.whl", "torch-9.9-cp312-cp312-linux_x86_64.whl"):
        (folder / "wheels" / name).touch()
    assert [wheel.name.split("-")[0] for wheel in installing.wanted(folder / "wheels")] == ["not_there", "vithub"]
    assert (folder / "photos" / "00000.jpg").read_bytes() == b"\xff\xd8 one"
    carried = {file.name for file in (folder / "check").iterdir()}
    assert carried == {file.name for file in FOLDER.glob("*.py")} - {"prepare.py"}
    with pytest.raises(SystemExit, match="there already"):
        prepare.prepare(prepare.parse([str(folder)]))
