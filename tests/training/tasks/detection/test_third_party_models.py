"""Detectors of transformers in our training: their classes by name, their processors, and what loads without us."""

import json
import os
import shutil
import subprocess
import sys

import processes
import pytest
import torch
import transformers
from datasets import ClassLabel, Features, Image, List, Value
from patience import LONG
from pictures import save_blank
from safetensors.torch import load_file, save_file
from tiny_detectors import FIELDS, SIDE, tiny_detector, tiny_processor
from transformers import AutoModelForObjectDetection, pipeline
from vithub.data.boxes.augmentation_settings import BoxAugmentation
from vithub.hub.checkpoints import CheckpointError
from vithub.training.recipe.presets import preset
from vithub.training.recipe.recipe import RecipeError
from vithub.training.tasks.detection.fixed_size import FixedSizeTransform, step_size
from vithub.training.tasks.detection.loading import load_detector, read_outputs
from vithub.training.tasks.detection.third_party_models import size_multiple, third_party_detector, with_labels
from vithub.training.tasks.registry import build_task

import vithub

VALUES = {
    "data.workers": 0, "data.validation_fraction": 0.25, "data.test_fraction": 0.25, "training.epochs": 2,
    "training.batch_size": 4, "training.warmup": 0, "training.precision": "fp32", "training.trackers": [],
    "evaluation.batch_size": 2,
}  # fmt: skip


def saved(folder, model_type, names=("blue", "cat"), **fields):
    """A folder with a tiny detector, which knows the class "blue" of the squares and lacks "red"."""
    tiny_detector(model_type, names, **fields).save_pretrained(folder)
    tiny_processor(model_type).save_pretrained(folder)
    return folder


def train(model, out, data, resume=False, **values):
    return vithub.finetune(
        model=str(model), data=data, output=out, preset="detr-pretrained",
        values=VALUES | values, resume=resume,
    )  # fmt: skip


@pytest.fixture(scope="module")
def blank():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("matplotlib.figure.Figure.savefig", save_blank)
        yield


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("models") / "rt_detr", "rt_detr")


@pytest.fixture(scope="module")
def data(detector_data):
    return detector_data.select(range(8))


@pytest.fixture(scope="module")
def run(start, data, blank, tmp_path_factory):
    return train(start, tmp_path_factory.mktemp("runs") / "run", data)


def test_the_run_is_of_transformers_class_and_says_what_began_anew(run):
    assert type(run.model) is transformers.RTDetrForObjectDetection
    assert run.metrics["start"]["kept_classes"] == ["blue"]
    assert run.metrics["start"]["new_classes"] == ["red"]
    assert "model.enc_score_head.weight" in run.metrics["start"]["class_rows"]
    assert run.metrics["start"]["reinitialised"] == []
    assert run.metrics["test"]["loss"] > 0
    config = json.loads((run.folder / "config.json").read_text())
    assert config["architectures"] == ["RTDetrForObjectDetection"]
    assert "auto_map" not in config
    assert set(run.metrics["history"][0]) >= {"validation_loss", "train_loss"}


def test_pipeline_gives_the_boxes_that_were_evaluated(run, data):
    image = data[1]["image"]
    model, processor = load_detector(run.folder)
    pixels = processor(image, return_tensors="pt")["pixel_values"]
    assert pixels.shape[-2:] == (SIDE, SIDE)
    with torch.no_grad():
        (mine,) = read_outputs(processor, model(pixels), torch.tensor([[image.height, image.width]]), 2)
    threshold = float(mine.scores[3])
    served = pipeline("object-detection", model=str(run.folder), threshold=threshold - 1e-6)(image)
    assert len(served) >= 4
    assert [round(one["score"], 4) for one in served[:4]] == [round(float(score), 4) for score in mine.scores[:4]]
    boxes = [[one["box"][edge] for edge in ("xmin", "ymin", "xmax", "ymax")] for one in served[:4]]
    assert boxes == [[int(value) for value in box] for box in mine.boxes[:4]]


CLEAN = """
import sys
class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "vithub":
            raise ImportError("this process has no vithub")
sys.meta_path.insert(0, Refused())
from PIL import Image
from transformers import pipeline
served = pipeline("object-detection", model=sys.argv[1], threshold=0.0, trust_remote_code=False)
found = served(Image.new("RGB", (80, 64)))
assert "vithub" not in sys.modules
print("FOUND", type(found).__name__, len(found))
"""


def test_the_run_loads_in_a_process_without_this_package(run, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", CLEAN, str(run.folder)],
        capture_output=True, text=True, cwd=tmp_path, env=dict(os.environ), check=False,
    )  # fmt: skip
    assert "FOUND list" in done.stdout, done.stderr[-2000:]
    assert not [file.name for file in run.folder.glob("*.py")]


@pytest.mark.parametrize("model_type", FIELDS)
def test_classes_are_kept_by_name_and_all_else_as_it_was(model_type):
    stored = tiny_detector(model_type, ("a", "b", "c"))
    model, start = with_labels(stored, ["new", "c", "a"], {})
    assert (start.kept, start.new, start.whole) == (("c", "a"), ("new",), ())
    before, after = stored.state_dict(), model.state_dict()
    assert start.rows
    for name, tensor in after.items():
        if name not in start.rows:
            assert torch.equal(tensor, before[name]), name
        else:
            assert torch.equal(tensor[1], before[name][2])
            assert torch.equal(tensor[2], before[name][0])
            assert torch.equal(tensor[3:], before[name][3:])  # no object
    assert model.config.id2label == {0: "new", 1: "c", 2: "a"}
    pixels = torch.randn(1, 3, SIDE, SIDE)
    same, _ = with_labels(stored, ["a", "b", "c"], {})
    with torch.no_grad():
        assert torch.equal(same(pixels).logits, stored(pixels).logits)


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"model.fields.num_querys": 5}, r"model\.fields\.num_querys: RTDetrConfig has no such field, got 5; did you"),
        ({"model.image_size": 72}, r"model\.image_size: RTDetrForObjectDetection cannot be run on images of 72 x 72"),
        ({"boxes.sides": (640,)}, r"boxes\.sides \(640,\) has no effect: the model's images are all 64 x 64 pixels"),
        ({"model.fields.num_queries": 1}, r"model\.fields\.num_queries: must be at least 2, the boxes of the fullest"),
    ],
)
def test_what_does_not_suit_the_model_is_an_error_that_names_it(start, detector_data, tmp_path, values, error):
    crowded = detector_data.select(range(1, 17, 2))  # two boxes in each
    with pytest.raises(RecipeError, match=error):
        train(start, tmp_path / "run", crowded, **values)
    assert not (tmp_path / "run").exists()


def test_a_model_without_a_loss_is_refused(tmp_path):
    config = transformers.AutoConfig.for_model("pp_ocrv6_small_det")
    AutoModelForObjectDetection.from_config(config).save_pretrained(tmp_path / "m")
    tiny_processor("rt_detr").save_pretrained(tmp_path / "m")
    with pytest.raises(CheckpointError, match="computes no loss, so that it can be evaluated but not trained"):
        third_party_detector(tmp_path / "m", ["a"], {}, None)


def test_incomplete_weights_are_refused(start, data, tmp_path):
    folder = shutil.copytree(start, tmp_path / "m")
    state = load_file(folder / "model.safetensors")
    state.pop("model.enc_score_head.bias")
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"needs model\.enc_score_head\.bias, which it lacks"):
        train(folder, tmp_path / "run", data)


def test_a_size_of_all_images_is_drawn_for_each_step():
    sizes = [step_size((64, 96), (0.5, 1.5), 32, seed=3, step=step) for step in range(40)]
    assert sizes == [step_size((64, 96), (0.5, 1.5), 32, seed=3, step=step) for step in range(40)]
    assert {side % 32 for size in sizes for side in size} == {0}
    assert len(set(sizes)) > 3
    assert min(sizes) >= (32, 32)
    assert max(sizes) <= (96, 160)
    assert {step_size((64, 96), (1.0, 1.0), 32, seed=3, step=step) for step in range(9)} == {(64, 96)}


@pytest.mark.parametrize(("model_type", "multiple"), [("d_fine", 32), ("lw_detr", 16), ("rf_detr", 16), ("yolos", 8)])
def test_sizes_that_are_drawn_suit_the_model(model_type, multiple):
    model = tiny_detector(model_type)
    assert size_multiple(model.config) == multiple
    with torch.no_grad():
        for size in ((SIDE + multiple, SIDE), (SIDE, 2 * SIDE - multiple)):
            assert model(torch.randn(1, 3, *size)).logits.shape[0] == 1


def test_training_images_have_the_one_size_and_their_boxes_with_them(data):
    transform = FixedSizeTransform(BoxAugmentation(crop=0.0, horizontal_flip=0.0), (32, 96), [0.0] * 3, [1.0] * 3)
    seen = transform(data[1]["image"], torch.tensor([[8.0, 16.0, 40.0, 32.0]]))
    assert seen.pixels.shape == (3, 32, 96)
    width, height = data[1]["image"].size
    expected = torch.tensor([[8 * 96 / width, 16 * 32 / height, 40 * 96 / width, 32 * 32 / height]])
    assert torch.allclose(seen.boxes, expected)


def test_a_killed_run_goes_on_to_the_same_bits(start, data, run, listener, tmp_path):
    """After each of its first steps; multi-scale, denoising and the average of the weights included."""
    changes = {"training.batch_size": 2, "training.checkpoint_steps": 1, "training.epochs": 6 if LONG else 2}
    whole = train(start, tmp_path / "whole", data, **changes)
    expected = load_file(whole.folder / "model.safetensors")
    for steps in range(1, 1 + (10 if LONG else 2)):
        out = tmp_path / f"after {steps}"
        with pytest.raises(KeyboardInterrupt):
            vithub.finetune(
                model=str(start), data=data, output=out, preset="detr-pretrained", reporter=listener(steps),
                values=VALUES | changes,
            )  # fmt: skip
        again = train(start, out, data, resume=True, **changes)
        assert whole.losses[-len(again.losses) :] == again.losses
        found = load_file(again.folder / "model.safetensors")
        assert all(torch.equal(found[name], expected[name]) for name in expected), steps


@pytest.mark.parametrize("convert", [True, False])
def test_a_detr_trains_in_either_class(convert, data, tmp_path):
    model = saved(tmp_path / "m", "detr")
    recipe = preset("detr-pretrained").with_values(VALUES | {"model.source": str(model), "model.convert": convert})
    task = build_task(recipe, data)
    expected = vithub.HubDetrForObjectDetection if convert else transformers.DetrForObjectDetection
    assert type(task.model) is expected
    notes = task.model_facts().get("model_notes", [])
    assert any("normalised queries" in note for note in notes) == (not convert)
    assert any("freezes the whole ResNet" in note for note in notes) == (not convert)
    learns = {
        name for name, parameter in task.model.named_parameters() if parameter.requires_grad and "stages." in name
    }
    assert {name.partition("stages.")[2][0] for name in learns} == {"1", "2", "3"}
    groups = task.optimizer().param_groups
    assert sorted({group["lr"] for group in groups}) == pytest.approx([1e-5, 1e-4])


def test_the_card_says_what_began_anew(run):
    card = (run.folder / "README.md").read_text()
    assert "Begin anew: the rows of 1 class (red) in" in card
    assert "64 x 64 pixels (height x width)" in card
    assert "saved as `RTDetrForObjectDetection` of transformers" in card


@pytest.mark.parametrize("model_type", FIELDS)
def test_a_query_is_explained_or_it_is_said_that_it_cannot_be(model_type):
    model, pixels = tiny_detector(model_type), torch.randn(1, 3, SIDE, SIDE)
    if model_type == "yolos":
        with pytest.raises(ValueError, match="methods for it: integrated_gradients, occlusion, random"):
            vithub.explain(model, pixels, query=3)
    else:
        found = vithub.explain(model, pixels, query=3)
        attends = model_type in ("detr", "table-transformer", "conditional_detr", "dab-detr")
        assert found.method == ("relevance" if attends else "grad_cam")
        assert found.queries == (3,)
        assert float(found.maps.abs().sum()) > 0
    found = vithub.explain(model, pixels, "integrated_gradients", query=3, steps=2)
    assert found.maps.shape == (1, SIDE, SIDE)


def test_predict_takes_the_run(run, data, tmp_path):
    data[1]["image"].save(tmp_path / "photo.png")
    (found,) = vithub.predict(run.folder, tmp_path / "photo.png", threshold=0.0)
    assert {row["label"] for row in found["predictions"]} <= {"red", "blue"}
    assert found["predictions"]


WORKER = """
import json, sys
import torch
import vithub
from vithub.training.runtime.processes import process_state

torch.set_num_threads(1)
run = vithub.finetune(**json.loads(sys.argv[1]))
assert process_state().num_processes == 2
print("RESULT " + json.dumps([run.losses, run.metrics["model_notes"], run.metrics["test"]["loss"]]), flush=True)
"""


def test_two_processes_train_as_one_does_with_a_class_that_has_no_box(detector_data, tmp_path):
    names = {"bbox": List(List(Value("float64"))), "category": List(ClassLabel(names=["red", "blue", "green"]))}
    few = detector_data.select(range(0, 16, 2))  # of one shape, so that no image sees another by its padding
    few.cast(Features({"image": Image(), "objects": names})).to_parquet(tmp_path / "squares.parquet")
    model = saved(tmp_path / "m", "deformable_detr")
    changes = {"boxes.sides": [800], "training.backbone_lr": 1e-3, "training.lr": 1e-3}
    options = {
        "model": str(model), "data": str(tmp_path / "squares.parquet"), "preset": "detr-pretrained",
        "values": VALUES | changes,
    }  # fmt: skip
    alone = vithub.finetune(output=tmp_path / "alone", **options)
    assert alone.metrics["start"]["new_classes"] == ["red", "green"]
    assert alone.metrics["test"]["loss"] > 0
    done = processes.launch(WORKER, [json.dumps(options | {"output": str(tmp_path / "both")})])
    assert done.returncode == 0, done.stderr[-3000:]
    results = [json.loads(line[7:]) for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert len(results) == 2
    for losses, notes, loss in results:
        assert losses == pytest.approx(alone.losses, rel=1e-4)
        assert loss == pytest.approx(alone.metrics["test"]["loss"], rel=1e-4)
        assert any(note.startswith("corrected: DeformableDetrForObjectDetectionLoss divides") for note in notes)
