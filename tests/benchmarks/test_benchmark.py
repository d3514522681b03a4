"""The benchmark runs to its end in its tiny form; what docs/speed.md shows of it is drawn from its results."""

import importlib
import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "benchmarks"


@pytest.fixture(scope="module")
def program():
    """`benchmarks/run.py` as a module; the modules of the suite are forgotten afterwards."""
    before = list(sys.path)
    spec = importlib.util.spec_from_file_location("benchmark_run", FOLDER / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.path[:] = before
    for name, known in list(sys.modules.items()):
        if str(FOLDER / "suite") in str(getattr(known, "__file__", "")):
            del sys.modules[name]


STEPS = (
    "inference-1", "training-step", "detr-step", "matcher", "predict-folder", "explanation", "conversion", "finetuning",
    "resolution-448", "depth-24",
)  # fmt: skip


@pytest.mark.parametrize("case", STEPS)
def test_a_step_of_each_contender_can_be_made(case, program, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    libraries, build, _ = program.CASES[case]
    assert libraries[0] == "vithub"
    for library in libraries:
        build(library, "tiny", tmp_path)()


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_inference_computes_in_the_precision_that_is_stated(precision, program, tmp_path, monkeypatch):
    monkeypatch.setenv("BENCHMARK_PRECISION", precision)
    libraries, build, _ = program.CASES["inference-1"]
    for library in libraries:
        outputs = build(library, "tiny", tmp_path)()
        logits = outputs if isinstance(outputs, torch.Tensor) else outputs.logits
        assert logits.dtype == {"bf16": torch.bfloat16, "fp32": torch.float32}[precision]


def test_every_case_is_tried(program):
    other = {"inference-16", "inference-64", "help", "import"}  # as inference-1; processes, tried below
    assert set(program.CASES) == {*STEPS, *other}


def test_a_case_is_measured_in_processes_written_and_left_out_on_resuming(program, tmp_path, monkeypatch, capsys):
    file = tmp_path / "benchmark.json"
    monkeypatch.setattr(sys, "argv", ["run.py", "--tiny", "--only", "help", "--json", str(file)])
    program.main()
    result = json.loads(file.read_text())
    found = result["cases"]["help"]
    assert found["ours_to"]["hf"] == pytest.approx(
        found["contenders"]["hf"]["seconds"] / found["contenders"]["vithub"]["seconds"]
    )
    assert found["product_gflops"] > 0
    assert "| help | vithub |" in file.with_suffix(".md").read_text()
    assert file.with_suffix(".png").stat().st_size > 1000
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--resume"])
    monkeypatch.setattr(program, "Arm", None)  # nothing is measured again
    program.main()
    assert json.loads(file.read_text())["cases"] == result["cases"]


def test_the_document_shows_what_is_drawn_from_the_results(program):
    drawing = importlib.import_module("drawing")
    text = (ROOT / "docs/speed.md").read_text(encoding="utf-8")
    file = FOLDER / "results/benchmark.json"
    if file.is_file():
        result = json.loads(file.read_text(encoding="utf-8"))
        assert drawing.restored(text, result) == text
        assert file.with_suffix(".md").read_text(encoding="utf-8") == drawing.table(result)
        return
    result = {"date": "2000-01-01", "size": "tiny", "precision": "fp32", "threads": 2,
              "machine": {"processor": "some", "cores": 2}, "versions": {"torch": "2"}, "cases": {}}  # fmt: skip
    once = drawing.restored(text, result)
    assert "2000-01-01, some, 2 cores" in once
    assert drawing.restored(once, result) == once
    assert once.split(drawing.BEGIN)[0] == text.split(drawing.BEGIN)[0]


def test_gradient_checkpointing_saves_activations(program):
    """At least 40 %, and ours keeps no more than transformers'; counted as autograd saves them."""
    found = importlib.import_module("activations").activations("tiny")
    assert found["vithub"]["saved_part"] >= 0.4
    assert found["vithub"]["mb"] <= found["transformers"]["mb"] * 1.001


def test_the_detr_keeps_as_much_as_that_of_transformers(program):
    """They have the same dropout, and no more than that is kept of ours."""
    found = importlib.import_module("activations").detr_activations("tiny")
    assert 0.95 < found["vithub"] / found["transformers"] < 1.001


def test_the_count_of_saved_bytes_is_that_of_a_known_layer(program):
    count = importlib.import_module("activations").saved_bytes
    layer = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Sigmoid())
    images = torch.ones(4, 8)
    assert count(layer, images) == 2 * 4 * 8 * 4  # the layer's input and the sigmoid's output, fp32
