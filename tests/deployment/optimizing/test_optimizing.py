"""`optimize` chooses by measuring, gives the answers of the weights, and survives candidates that fail."""

import contextlib
import dataclasses
import json
import shutil
import sys
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch
from patience import PATIENCE
from transformers import AutoImageProcessor, ViTImageProcessor, pipeline
from vithub.deployment.optimizing import candidates, kept_choice
from vithub.deployment.optimizing.answers import compare_answers
from vithub.deployment.optimizing.candidates import REFERENCE, Candidate, candidates_for
from vithub.deployment.optimizing.measuring import Measurement, MeasuringProcess, Optimization
from vithub.deployment.optimizing.measuring_process import _trials
from vithub.deployment.optimizing.optimized_model import FixedBatches, open_candidate
from vithub.deployment.optimizing.optimizing import _choice, optimize
from vithub.hub.checkpoints import CheckpointError
from vithub.hub.push.files import select_files

import vithub

SECONDS = 120  # ample on a busy machine; a measurement of these models takes less than one


@pytest.fixture(scope="module")
def optimized(run_folder, photos):
    return optimize(run_folder, images=photos, seconds=SECONDS, expected_images=10)


def test_the_choice_is_the_fastest_of_those_that_answer_as_the_weights_do(optimized, run_folder, photos):
    found = optimized.optimization
    rows = {row.candidate.name: row for row in found.measurements}
    assert set(rows) >= {"torch fp32", "torch bf16", "onnx fp32", "openvino fp32", "torch fp32, compiled"} - (
        {"torch fp32, compiled"} if candidates.computes_bf16() else set()
    )
    assert found.compared_on == "8 given images"
    for name in ("onnx fp32", "openvino fp32"):
        row = rows[name]
        assert row.refused is None or "as long as the best so far" in row.refused
        assert row.refused or (row.images == 8 and row.difference < 1e-4 and row.agreement == 1.0)
    usable = [row for row in found.measurements if row.refused is None]
    assert found.chosen in usable
    assert all(found.chosen.seconds <= 1.05 * row.seconds for row in usable)
    compiled = next(row for row in found.measurements if row.candidate.compiled)
    assert compiled.refused == "compiling cannot pay within 10 images"
    text = "\n".join(found.lines())
    assert all(row.candidate.name in text for row in found.measurements)
    assert text.splitlines()[-1].startswith(f"chosen: {found.chosen.candidate.name}: ")


def test_the_optimized_model_gives_what_the_weights_give(optimized, run_folder, photos, digit_folders):
    pixels = torch.randn(3, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = vithub.load(run_folder).eval()(pixel_values=pixels)
    found = optimized(pixel_values=pixels)
    assert found.logits.dtype == torch.float32
    torch.testing.assert_close(found.logits, wanted.logits, atol=0.05, rtol=0)
    labels = [entry["predictions"][0]["label"] for entry in vithub.predict(run_folder, photos)]
    fast = vithub.predict(run_folder, photos, backend=optimized)
    assert [entry["predictions"][0]["label"] for entry in fast] == labels
    classify = pipeline("image-classification", model=optimized, image_processor=optimized.image_processor, top_k=1)
    assert [entry[0]["label"] for entry in classify([str(photo) for photo in photos])] == labels
    one, other = (vithub.evaluate(run_folder, digit_folders, backend=kind) for kind in ("torch", optimized))
    assert other["metrics"]["accuracy"] == pytest.approx(one["metrics"]["accuracy"], abs=0.005)
    with pytest.raises(CheckpointError, match="made of"):
        vithub.predict(shutil.copytree(run_folder, run_folder.parent / "other"), photos, backend=optimized)


def test_a_kept_choice_is_used_again_while_nothing_has_changed(optimized, run_folder, photos, caplog, monkeypatch):
    assert optimized.optimization.kept == run_folder / "fast"
    assert optimized.optimization.seconds > 0
    again = optimize(run_folder, images=photos, expected_images=10)
    assert again.optimization.seconds == 0
    assert again.optimization.chosen == optimized.optimization.chosen
    pixels = torch.randn(2, 3, 12, 12)
    torch.testing.assert_close(again(pixels).logits, optimized(pixels).logits)
    assert not [file.path for file in select_files(run_folder) if file.sent and file.path.startswith("fast/")]
    options = {"batch_sizes": [1, 8, 32], "token_merging": 0, "int8": False}
    key = kept_choice.choice_key(run_folder, options)
    assert kept_choice.read_choice(run_folder, key, True)[0] is not None
    monkeypatch.setattr(kept_choice, "processor_name", lambda: "another")
    other = kept_choice.choice_key(run_folder, options)
    assert kept_choice.read_choice(run_folder, other, True) == (None, "it is of another machine")
    monkeypatch.undo()
    monkeypatch.setattr(kept_choice, "_version", lambda package: "0.0")
    other = kept_choice.choice_key(run_folder, options)
    assert kept_choice.read_choice(run_folder, other, True) == (None, "it is of another versions")
    monkeypatch.undo()
    changed = shutil.copytree(run_folder, run_folder.parent / "changed")
    weights = safetensors.torch.load_file(changed / "model.safetensors")
    weights[sorted(weights)[0]] += 1
    safetensors.torch.save_file(weights, changed / "model.safetensors", metadata={"format": "pt"})
    other = kept_choice.choice_key(changed, options)
    assert kept_choice.read_choice(changed, other, True) == (None, "it is of another model")


def test_a_damaged_choice_is_not_used(optimized, run_folder, tmp_path):
    folder = shutil.copytree(run_folder, tmp_path / "run")
    key = kept_choice.choice_key(folder, {"batch_sizes": [1, 8, 32], "token_merging": 0, "int8": False})
    file = folder / "fast" / "choice.json"
    whole = json.loads(file.read_text())
    for damage in ("{", "[]", "{}", json.dumps({**whole, "chosen": 99}), json.dumps({**whole, "measurements": [1]})):
        file.write_text(damage)
        found, reason = kept_choice.read_choice(folder, key, True)
        assert found is None
        assert reason.startswith("it cannot be used: ")
    file.write_text(json.dumps({**whole, "given_images": False}))
    assert kept_choice.read_choice(folder, key, True)[1] == "its answers were compared on random pixels only"
    assert kept_choice.read_choice(folder, key, False)[0] is not None
    # an exported file that was changed after it was checked
    row = Measurement(Candidate("onnx"), 0.1, 1, 1)
    kept = Optimization((row,), row, "", "", 1.0)
    (folder / "work" / "onnx" / "onnx").mkdir(parents=True)
    shutil.copy(folder / "onnx" / "model.onnx", folder / "work" / "onnx" / "onnx")
    shutil.copy(folder / "export.json", folder / "work" / "onnx")
    kept_choice.keep_choice(folder, folder / "work", key, kept, True)
    assert kept_choice.read_choice(folder, key, True)[0] is not None
    with (folder / "fast" / "onnx" / "onnx" / "model.onnx").open("ab") as content:
        content.write(b"more")
    assert "was changed since it was exported" in kept_choice.read_choice(folder, key, True)[1]


# Faults of engines: packages of the same names, which the measuring process imports in place of the real ones.

WRONG = """
import numpy
class SessionOptions: pass
class _Named:
    def __init__(self, name): self.name = name
class InferenceSession:
    def __init__(self, *arguments, **options): pass
    def get_outputs(self): return [_Named("logits")]
    def get_inputs(self): return [_Named("pixel_values")]
    def run(self, names, inputs):
        return [numpy.eye(10, dtype="float32")[[3] * len(inputs["pixel_values"])] * 9]
"""
HANGS = "import time\nwhile True:\n    time.sleep(1)\n"
CRASHES = "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n"
BROKEN = "raise ImportError('libtbb.so: cannot open shared object file')\n"


def with_packages(folder, monkeypatch, **sources):
    for name, source in sources.items():
        (folder / f"{name}.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", str(folder))


@pytest.mark.skipif(sys.platform != "linux", reason="candidates are forks, which end apart, on Linux alone")
@pytest.mark.parametrize(
    ("onnx", "openvino", "onnx_reason", "openvino_reason"),
    [
        (WRONG, HANGS, "its answers differ by up to", "took longer than"),
        (CRASHES, BROKEN, "its process ended by SIGSEGV", "libtbb.so: cannot open shared object file"),
    ],
)
def test_a_candidate_that_fails_is_left_out_with_the_reason(
    run_folder, tmp_path, monkeypatch, onnx, openvino, onnx_reason, openvino_reason
):
    with_packages(tmp_path, monkeypatch, onnxruntime=onnx, openvino=openvino)
    measure, limits = MeasuringProcess.measure, []

    def measured(self, candidate, limit, *rest):
        if candidate.engine == "openvino" and openvino == HANGS:  # it never answers: 2 seconds show it as well as 60
            limits.append(limit)
            limit = 2
        return measure(self, candidate, limit, *rest)

    monkeypatch.setattr(MeasuringProcess, "measure", measured)
    model = optimize(run_folder, seconds=SECONDS, expected_images=10, keep=False)
    assert bool(limits) == (openvino == HANGS)
    assert all(limit <= SECONDS / 2 for limit in limits)  # one may take half of the time
    rows = {row.candidate.name: row for row in model.optimization.measurements}
    assert onnx_reason in rows["onnx fp32"].refused
    assert openvino_reason in rows["openvino fp32"].refused
    assert model.optimization.chosen.candidate.engine == "torch"
    assert model.optimization.compared_on == "16 images of random pixels"
    pixels = torch.randn(2, 3, 12, 12)
    with torch.no_grad():
        wanted = vithub.load(run_folder).eval()(pixel_values=pixels).logits
    torch.testing.assert_close(model(pixels).logits, wanted, atol=0.05, rtol=0)
    end = time.monotonic() + PATIENCE
    while processes(tmp_path):  # killed ones end when the system comes to it
        assert time.monotonic() < end
        time.sleep(0.05)


def processes(folder):
    """Ids of running measuring processes that were started with this folder in their environment."""
    found = set()
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            if b"measuring_process" in (place / "cmdline").read_bytes():
                found |= {place.name} if str(folder).encode() in (place / "environ").read_bytes() else set()
    return found


def test_a_package_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(candidates, "find_spec", lambda name: None)
    assert Candidate("openvino").missing() == "not installed: openvino; pip install 'vithub[openvino]'"
    assert Candidate("onnx").missing() == "not installed: onnxruntime, onnx, onnxscript; pip install 'vithub[onnx]'"
    assert REFERENCE.missing() is None


def test_a_measuring_process_that_cannot_start_leaves_eager_fp32(run_folder, photos, monkeypatch, tmp_path):
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho 'no memory for python' >&2\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    model = optimize(run_folder, images=photos, keep=False)
    assert model.optimization.chosen.candidate == REFERENCE
    assert "the measuring process ended: no memory for python" in model.optimization.why
    assert model(torch.zeros(1, 3, 12, 12)).logits.shape == (1, 10)


def test_the_choice_counts_compiling_in(tmp_path):
    fp32 = Measurement(REFERENCE, 0.010, 8, 1)
    compiled = Measurement(Candidate("torch", compiled=True), 0.005, 8, 1, first_seconds=10.0)
    assert _choice([fp32, compiled], None)["chosen"] == compiled
    assert _choice([fp32, compiled], 10_000)["chosen"] == compiled
    assert _choice([fp32, compiled], 1_000)["chosen"] == fp32
    little = Measurement(Candidate("onnx"), 0.0098, 8, 1)
    assert _choice([fp32, little], None)["chosen"] == fp32
    refused = dataclasses.replace(compiled, refused="wrong")
    assert _choice([fp32, refused], None)["chosen"] == fp32


def test_a_compiled_model_gets_batches_of_one_size(tiny, randomised, monkeypatch):
    model, shapes = randomised(vithub.HubViTForImageClassification(tiny())), []

    def noted(module, **_):
        def call(pixel_values):
            shapes.append(len(pixel_values))
            return module(pixel_values=pixel_values)

        return call

    monkeypatch.setattr(torch, "compile", noted)  # what is tested is the batches; compiling takes half a minute
    pixels = torch.randn(7, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(FixedBatches(model, 3)(pixels).logits, model(pixels).logits)
    assert shapes == [3, 3, 3]


# Comparing answers


def answers(folder, name, **tensors):
    safetensors.torch.save_file(
        {f"{row:04}.{key}": value for key, values in tensors.items() for row, value in enumerate(values)},
        folder / name,
    )
    return folder / name


def test_answers_are_compared_as_probabilities_and_labels(tmp_path):
    logits = torch.randn(200, 4, generator=torch.Generator().manual_seed(0)) * 3
    one = answers(tmp_path, "one", logits=logits)

    def against(values, **options):
        return compare_answers(one, answers(tmp_path, "two", logits=values), options.get("several", False), 4)

    same = against(logits + 5)  # a softmax does not see it
    assert (same.share, same.images, same.reason) == (1.0, 200, None)
    assert same.difference < 1e-6
    assert against(logits + 5, several=True).reason is not None
    swapped = logits.clone()
    swapped[:2] = swapped[:2].flip(1)
    assert "its answers differ by up to" in against(swapped).reason
    near = torch.zeros(200, 4)
    near[:, 0] = 1e-4
    flipped = near.clone()
    flipped[:2] = -near[:2]
    one = answers(tmp_path, "one", logits=near)
    assert against(flipped).reason == "99.0% of its labels are the same, fewer than 99.5%"
    spoiled = logits.clone()
    spoiled[7, 1] = float("nan")
    assert against(spoiled).reason == "its answers are infinite or not a number"
    assert against(logits[:, :3]).reason == "its answers have another shape"
    assert against(logits[:0]).reason == "it gave no answers"


@pytest.mark.parametrize("no_object", [True, False])
def test_boxes_are_compared_where_there_is_something(tmp_path, no_object):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 10, 3 + no_object, generator=generator) - 2
    logits[:, 5:] = -9.0  # nothing there
    if no_object:
        logits[:, 5:, -1] = 9.0
    boxes = torch.rand(6, 10, 4, generator=generator)
    one = answers(tmp_path, "one", logits=logits, pred_boxes=boxes)

    def against(scores, sides):
        return compare_answers(one, answers(tmp_path, "two", logits=scores, pred_boxes=sides), False, 3)

    assert against(logits, boxes).reason is None
    moved = boxes.clone()
    moved[:, 5:] += 0.5  # boxes of queries that found nothing
    assert against(logits, moved).reason is None
    moved[2, 1, 0] += 0.02
    assert "its answers differ by up to 0.02" in against(logits, moved).reason
    appeared = logits.clone()
    appeared[0, 7, 0] = 9.0
    assert "its answers differ" in against(appeared, boxes).reason


# Other models


def test_a_detector_is_optimized_and_its_boxes_compared(exported_detector, detector_data, tmp_path, monkeypatch):
    (tmp_path / "packages").mkdir()
    with_packages(tmp_path / "packages", monkeypatch, openvino=BROKEN)  # one exported form is enough
    folder = exported_detector
    images = [detector_data[row]["image"] for row in range(4)]
    model = optimize(folder, images=images, seconds=SECONDS, keep=False)
    rows = {row.candidate.name: row for row in model.optimization.measurements}
    assert rows["onnx fp32"].refused is None or "as long as" in rows["onnx fp32"].refused
    compiled = next(row for row in model.optimization.measurements if row.candidate.compiled)
    assert compiled.refused == "a detector would be compiled again for each size of image"
    photo = tmp_path / "photo.png"
    images[1].save(photo)
    (wanted,), (found,) = (vithub.predict(folder, photo, threshold=0.2, backend=kind) for kind in (None, model))
    assert [entry["label"] for entry in found["predictions"]] == [entry["label"] for entry in wanted["predictions"]]
    for one, other in zip(wanted["predictions"], found["predictions"], strict=True):
        assert other["box"] == pytest.approx(one["box"], abs=1.0)


def test_a_loaded_model_with_merged_tokens_states_what_they_cost(tiny, randomised, tmp_path, monkeypatch):
    with_packages(tmp_path, monkeypatch, onnxruntime=BROKEN)  # OpenVINO's converter is the faster one
    model = randomised(vithub.HubDeiTForImageClassification(tiny(vithub.HubDeiTConfig)))
    processor = ViTImageProcessor(size={"height": 32, "width": 32})
    with pytest.raises(ValueError, match=r"a loaded model needs .*image_processor"):
        optimize(model)
    options = {"token_merging": 4, "batch_sizes": (8,), "seconds": SECONDS, "expected_images": 10}
    found = optimize(model, image_processor=processor, **options)
    rows = {row.candidate.name: row for row in found.optimization.measurements}
    merged = rows["torch fp32, 4 tokens merged"]
    assert merged.refused is None
    assert 0 < merged.difference <= 1
    assert 0 <= merged.agreement <= 1
    for row in rows.values():  # the others are compared with merged eager fp32
        if row.candidate.engine != "torch" and row.candidate.precision == "fp32" and row.refused is None:
            assert row.difference < 1e-3
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        plain = model(pixels).logits
    changed = not torch.allclose(found(pixels).logits, plain, atol=1e-4)
    assert changed == bool(found.optimization.chosen.candidate.token_merging)
    assert ("merging tokens leaves" in found.optimization.why) == changed


def test_wrong_arguments_are_refused(run_folder, detector_run, tmp_path, tiny):
    for options, message in (
        ({"seconds": 0}, "must be above 0, got 0"),
        ({"expected_images": 0}, "must be at least 1, got 0"),
        ({"batch_sizes": (8, -1)}, "must be at least 1, got -1"),
        ({"token_merging": -1}, "must be at least 0, got -1"),
        ({"data": "digits"}, "needs .*int8"),
        ({"image_processor": object()}, "goes with a loaded model"),
    ):
        with pytest.raises(ValueError, match=message):
            optimize(run_folder, **options)
    with pytest.raises(ValueError, match=r"for the ViT and DeiT classifiers of this package, and .* 'vithub_detr'"):
        optimize(detector_run.folder, token_merging=2)
    vithub.HubViTModel(tiny()).save_pretrained(tmp_path / "backbone")
    with pytest.raises(CheckpointError, match="neither a classifier nor a detector"):
        optimize(tmp_path / "backbone")


def test_candidates_are_those_of_the_options():
    names = [candidate.name for candidate in candidates_for(0, True, True)]
    assert len(names) == len(set(names))
    if not torch.cuda.is_available():
        assert {"openvino int8", "onnx int8"} <= set(names)
    assert not any(candidate.precision == "int8" for candidate in candidates_for(0, False, True))
    assert all(candidate.token_merging == 3 for candidate in candidates_for(3, True, True))


def test_bf16_comes_before_fp32_where_the_processor_multiplies_in_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for fast in (True, False):
        monkeypatch.setattr("vithub.deployment.optimizing.candidates.computes_bf16", lambda fast=fast: fast)
        names = [candidate.name for candidate in candidates_for(0, True, True)]
        if fast:
            assert names[:4] == ["torch bf16", "openvino bf16", "openvino int8", "openvino fp32"]
        else:
            assert names[:2] == ["openvino int8", "openvino fp32"]
            assert "openvino bf16" not in names
            assert names.index("torch bf16") > names.index("onnx int8")


def test_threads_are_swept_at_the_middle_size_and_sizes_with_the_best_number_of_threads():
    best = {"threads": 2}
    trials = _trials([2, 1], [1, 8, 32], best)
    assert [next(trials), next(trials)] == [(2, 8), (1, 8)]
    best["threads"] = 1
    assert list(trials) == [(1, 1), (1, 32)]
    assert list(_trials([4], [8], best)) == [(4, 8)]


def test_bf16_is_run_with_answers_in_fp32(run_folder, tmp_path):
    model = open_candidate(Candidate("torch", "bf16"), run_folder, tmp_path, 1, 1)
    assert model.runner.dtype == torch.bfloat16
    pixels = torch.randn(2, 3, 12, 12)
    found = model(pixels).logits
    with torch.no_grad():
        wanted = vithub.load(run_folder).eval()(pixel_values=pixels).logits
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, wanted, atol=0.1, rtol=0.05)
    assert AutoImageProcessor.from_pretrained(run_folder).to_dict() == model.image_processor.to_dict()


def test_eager_and_compiled_are_measured_against_each_other(tiny, randomised, photos, tmp_path, monkeypatch):
    with_packages(tmp_path, monkeypatch, onnxruntime=BROKEN, openvino=BROKEN)
    model = randomised(vithub.HubViTForImageClassification(tiny(num_hidden_layers=1)))
    processor = ViTImageProcessor(size={"height": 32, "width": 32})
    found = optimize(model, image_processor=processor, images=photos, batch_sizes=(2,), seconds=600).optimization
    row = next(row for row in found.measurements if row.candidate.compiled)
    if candidates.missing_compiler():
        assert row.refused.startswith("not installed: a C++ compiler")
        return
    assert row.seconds is not None, row.refused
    assert row.first_seconds > 0
    if row.refused is None:
        assert row.difference < (0.01 if row.candidate.precision == "bf16" else 1e-5)
        assert row.images == 8
    else:
        assert "as long as the best so far" in row.refused


def test_without_a_compiler_the_table_says_so(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    reason = Candidate("torch", compiled=True).missing()
    assert torch.cuda.is_available() or reason.startswith("not installed: a C++ compiler (no-such-compiler)")
    assert REFERENCE.missing() is None
