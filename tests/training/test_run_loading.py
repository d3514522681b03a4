import json
import shutil
import subprocess
import sys

import pytest
from patience import PATIENCE
from safetensors.torch import load_file
from vithub.data.labelled.tables import load_image_data

import vithub

# What a person does who was handed the folder.
OTHER_PROCESS = """
import json, sys
import vithub
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification, pipeline

folder, files = json.loads(sys.argv[1])
model, loading = AutoModelForImageClassification.from_pretrained(folder, output_loading_info=True)
processor = AutoImageProcessor.from_pretrained(folder)
classify = pipeline("image-classification", folder)
told = {
    "class": type(model).__name__,
    "loading": {name: sorted(map(str, keys)) for name, keys in loading.items()},
    "pixels": list(processor(Image.open(files[0]).convert("RGB"), return_tensors="pt")["pixel_values"].shape),
    "training": model.training,
    "scores": [classify(Image.open(file), top_k=10) for file in files],
    "scores of paths": [classify(file, top_k=10) for file in files[:5]],
}
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def tested_images(digit_folders, quick):
    """Files and labels of the test split that the run drew."""
    data = load_image_data(str(digit_folders), test_fraction=quick()["data.test_fraction"])
    return [row["image"]["path"] for row in data.test], [data.labels.names[number] for number in data.test["label"]]


@pytest.fixture(scope="module")
def elsewhere(finished_run, tested_images, tmp_path_factory):
    """What another process sees of the run's folder, which was moved; its errors and warnings are errors here."""
    folder = shutil.copytree(finished_run.folder, tmp_path_factory.mktemp("handed over") / "my model")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", OTHER_PROCESS,
         json.dumps([str(folder), tested_images[0]])],
        capture_output=True, text=True, timeout=PATIENCE, cwd=folder.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def test_a_run_loads_in_another_process_without_a_warning(elsewhere):
    told, errors = elsewhere
    lines = [line for line in errors.replace("\r", "\n").splitlines() if line.strip() and "%|" not in line]
    assert lines == []  # but for progress bars
    assert told["class"] == "HubDeiTForImageClassification"
    assert not any(told["loading"].values()), told["loading"]
    assert told["pixels"] == [1, 3, 12, 12]
    assert told["training"] is False


def test_what_the_pipeline_answers_is_what_was_reported(elsewhere, finished_run, tested_images):
    numbers = finished_run.model.config.label2id
    confusion = [[0] * 10 for _ in range(10)]
    for scores, label in zip(elsewhere[0]["scores"], tested_images[1], strict=True):
        confusion[numbers[label]][numbers[scores[0]["label"]]] += 1
    right = sum(confusion[number][number] for number in range(10))
    assert right / len(tested_images[1]) == finished_run.metrics["test"]["accuracy"]
    assert len(tested_images[1]) == finished_run.metrics["data"]["sizes"]["test"]
    assert confusion == finished_run.metrics["confusion"]
    assert elsewhere[0]["scores of paths"] == elsewhere[0]["scores"][:5]


def test_predict_gives_the_scores_of_the_pipeline(elsewhere, finished_run, tested_images):
    for batch_size in (1, 32):
        predictions = vithub.predict(finished_run.folder, tested_images[0], top=10, batch_size=batch_size)
        assert [prediction["image"] for prediction in predictions] == tested_images[0]
        for prediction, scores in zip(predictions, elsewhere[0]["scores"], strict=True):
            assert prediction["predictions"][0]["label"] == scores[0]["label"]
            expected = {entry["label"]: entry["score"] for entry in scores}
            assert {e["label"]: e["score"] for e in prediction["predictions"]} == pytest.approx(expected, rel=1e-5)


def test_evaluate_gives_the_numbers_that_were_reported(finished_run):
    """Every count to the bit; means of probabilities within fp32's rounding, as machines differ."""
    result = vithub.evaluate(finished_run.folder)
    _same(result["metrics"], finished_run.metrics["test"])
    assert result["confusion"] == finished_run.metrics["confusion"]
    assert result["per_class"] == finished_run.metrics["per_class"]
    validation = vithub.evaluate(finished_run.folder, split="validation")
    _same(validation["metrics"], finished_run.metrics["validation"])


def _same(found, reported):
    assert found.keys() == reported.keys()
    for name, value in reported.items():
        rounding = 1e-7 if name in ("loss", "expected_calibration_error") else 0
        assert found[name] == pytest.approx(value, rel=rounding, abs=0), name


def test_the_published_weights_are_the_best_ones_in_fp32(finished_run):
    stored = load_file(finished_run.folder / "model.safetensors")
    assert {str(tensor.dtype) for tensor in stored.values()} == {"torch.float32"}
    assert not [name for name in stored if "teacher" in name or "ema" in name or "module" in name]
