import json
import time

import numpy as np
import processes
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset, Features
from datasets import Image as ImageFeature
from PIL import Image
from transformers import pipeline
from vithub.data.images import BadImageError
from vithub.hub.folders import TargetError
from vithub.training.dataset_prediction import predict_dataset
from vithub.training.runtime.progress import QuietReporter

WORKER = """
import json, sys
import torch
from vithub.training.dataset_prediction import predict_dataset
torch.set_num_threads(1)
folder, data, out = json.loads(sys.argv[1])
predict_dataset(folder, data, out, rows_per_file=32, batch_size=10, embeddings=True)
"""


@pytest.fixture(scope="module")
def predicted(finished_run, digit_folders, tmp_path_factory):
    out = tmp_path_factory.mktemp("predicted") / "all"
    return predict_dataset(finished_run.folder, digit_folders, out, rows_per_file=96, embeddings=True, workers=0)


def rows(folder):
    return pq.read_table(sorted(folder.glob("part-*.parquet")))  # in the order of their names


def test_every_image_has_one_row_in_order_and_the_answer_of_the_pipeline(predicted, finished_run):
    table = rows(predicted)
    assert table["row"].to_pylist() == list(range(400))
    assert [len(pq.read_table(file)) for file in sorted(predicted.glob("part-*"))] == [96, 96, 96, 96, 16]
    classify = pipeline("image-classification", str(finished_run.folder))
    for number in (0, 17, 399):
        row = table.slice(number, 1).to_pylist()[0]
        (best, *_) = classify(Image.open(row["image"]).convert("RGB"))
        assert row["label"] == best["label"]
        assert row["score"] == pytest.approx(best["score"], abs=1e-6)
        assert sum(row["probabilities"]) == pytest.approx(1, abs=1e-5)
    about = json.loads((predicted / "about.json").read_text())
    assert about["labels"][int(np.argmax(table["logits"][5].as_py()))] == table["label"][5].as_py()


def test_embeddings_are_what_the_classifier_is_given(predicted, finished_run):
    table, model = rows(predicted), finished_run.model
    features = torch.tensor(table["embedding"].to_pylist())
    assert features.shape == (400, 32)
    image = Image.open(table["image"][3].as_py()).convert("RGB")
    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained(finished_run.folder)
    with torch.no_grad():
        states = model.deit(processor(image, return_tensors="pt")["pixel_values"]).last_hidden_state
    torch.testing.assert_close(features[3], states[0, 0], atol=1e-5, rtol=1e-4)


class Breaking(QuietReporter):
    def __init__(self, after):
        self.after = after

    def advance(self, amount=1, **figures):
        self.after -= 1
        if self.after == 0:
            raise KeyboardInterrupt


def test_a_prediction_broken_off_goes_on_without_doing_anything_twice(predicted, finished_run, digit_folders, tmp_path):
    options = {"rows_per_file": 96, "embeddings": True, "workers": 0, "batch_size": 64}
    with pytest.raises(KeyboardInterrupt):
        predict_dataset(finished_run.folder, digit_folders, tmp_path / "out", reporter=Breaking(5), **options)
    first = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "out").glob("part-*")}
    assert sorted(first) == ["part-000000.parquet", "part-000001.parquet"]
    with pytest.raises(TargetError, match="holds files already"):
        predict_dataset(finished_run.folder, digit_folders, tmp_path / "out", **options)
    other = options | {"rows_per_file": 10}
    with pytest.raises(TargetError, match=r"rows_per_file 96 \(now 10\)"):
        predict_dataset(finished_run.folder, digit_folders, tmp_path / "out", resume=True, **other)
    predict_dataset(finished_run.folder, digit_folders, tmp_path / "out", resume=True, **options)
    assert {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in first} == first
    assert rows(tmp_path / "out").equals(rows(predicted))


def test_two_processes_one_of_them_killed_leave_the_files_of_one(predicted, finished_run, digit_folders, tmp_path):
    """The second launch resumes what the first, killed as a whole, has left."""
    task = json.dumps([str(finished_run.folder), str(digit_folders), str(tmp_path / "out")])
    with processes.Launch(WORKER, [task]) as first:
        while first.poll() is None and len(list((tmp_path / "out").glob("part-*.parquet"))) < 2:
            time.sleep(0.01)
        first.kill()
    done = processes.launch(WORKER.replace("embeddings=True", "embeddings=True, resume=True"), [task])
    assert done.returncode == 0, done.stderr[-3000:]
    both, one = rows(tmp_path / "out"), rows(predicted)
    assert both["row"].equals(one["row"])
    assert both["label"].equals(one["label"])
    np.testing.assert_allclose(both["score"].to_numpy(), one["score"].to_numpy(), atol=1e-5)


def test_an_image_that_cannot_be_decoded_is_an_error_or_an_empty_row(finished_run, digit_folders, tmp_path):
    files = sorted(digit_folders.rglob("*.png"))[:5]
    images = [{"bytes": file.read_bytes(), "path": file.name} for file in files]
    images[2]["bytes"] = images[2]["bytes"][:40]
    data = Dataset.from_dict({"image": images}, features=Features({"image": ImageFeature(decode=False)}))
    with pytest.raises(BadImageError, match="row 2"):
        predict_dataset(finished_run.folder, data, tmp_path / "stops", workers=0)
    out = predict_dataset(finished_run.folder, data, tmp_path / "goes on", workers=0, on_bad_image="skip")
    table = rows(out)
    assert [label is None for label in table["label"].to_pylist()] == [False, False, True, False, False]
    assert table["error"].to_pylist() == [None, None, "could not be decoded", None, None]
    assert table["probabilities"][2].as_py() is None


def test_a_threshold_is_refused_for_a_classifier(finished_run, digit_folders, tmp_path):
    with pytest.raises(ValueError, match=r"`threshold` 0\.3 has no effect on a classifier"):
        predict_dataset(finished_run.folder, digit_folders, tmp_path / "labels", threshold=0.3)
    assert not (tmp_path / "labels").exists()
