import json

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers import pipeline
from vithub.data.boxes.dataset import BoxEvaluationTransform, BoxImages, build_box_processor, collate_boxes
from vithub.data.boxes.tables import BOX_TABLE
from vithub.data.images import BadImageError
from vithub.hub.checkpoints import CheckpointError
from vithub.modeling.detr_matcher import NonFiniteCostError
from vithub.training.tasks.detection.evaluation import BoxEvaluator, batches_of_one_shape
from vithub.training.tasks.detection.loading import load_detector
from vithub.training.tasks.evaluation import evaluate_split
from vithub.training.tasks.partial_counts import PartialCounts
from vithub.training.tasks.registry import task_of

import vithub

SIZES = [(64, 48), (48, 64), (80, 40), (60, 60), (70, 50), (40, 80), (64, 48), (96, 32), (50, 70)]


def table_of(folder, boxes=None):
    """Images of noise of many shapes; boxes and classes of each as [(corners, class)]."""
    rows = []
    for number, (width, height) in enumerate(SIZES):
        file = folder / f"{number}.png"
        if not file.is_file():
            pixels = np.random.default_rng(number).integers(0, 255, (height // 4, width // 4, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((width, height)).save(file)
        own = boxes[number] if boxes is not None else [([4.0, 4.0, width - 4.0, height - 4.0], number % 3)]
        rows.append({"image": str(file), "image_id": str(number), "width": width, "height": height,
                     "boxes": [box for box, _ in own], "classes": [label for _, label in own],
                     "crowd": [False] * len(own),
                     "area": [(box[2] - box[0]) * (box[3] - box[1]) for box, _ in own]})  # fmt: skip
    return Dataset.from_list(rows, features=BOX_TABLE)


@pytest.fixture
def detector(tiny_detr, randomised):
    """A tiny random DETR whose answers differ from image to image, its processor, and a way to read images."""

    def make(**fields):
        torch.manual_seed(0)
        model = randomised(vithub.HubDetrForObjectDetection(tiny_detr(num_labels=3, **fields)))
        processor = build_box_processor(48, 96, focal=bool(fields.get("focal_loss")))
        return model, processor

    return make


def evaluated(model, processor, table, size, skip_bad=False, **options):
    images = BoxImages(table, BoxEvaluationTransform(processor), name="test", skip_bad=skip_bad)
    of_model = {name: options.pop(name) for name in ("to_data", "autocast") if name in options}
    return evaluate_split(BoxEvaluator(model, images, processor, 3, **of_model), batch_size=size, **options)


@pytest.mark.parametrize("fields", [{}, {"focal_loss": True, "anchor_queries": True}], ids=["plain", "focal"])
def test_figures_and_loss_at_batch_1_and_batch_8_are_the_same(fields, detector, tmp_path):
    model, processor = detector(**fields)
    first = evaluated(model, processor, table_of(tmp_path), 1)
    own = []
    for (found, _), (width, height) in zip(first.metrics.pairs(), SIZES, strict=True):
        inside = found.boxes.clip(0, [width, height, width, height])
        rows = [n for n in range(0, len(found), 2) if (inside[n, 2:] - inside[n, :2] > 2).all()][:4]
        own.append([(inside[n].tolist(), int(found.classes[n])) for n in rows])
    table = table_of(tmp_path, own)
    alone, together = (evaluated(model, processor, table, size) for size in (1, 8))
    assert alone.metrics.compute()["map"] > 0.2
    for name, value in alone.metrics.compute().items():
        assert together.metrics.compute()[name] == pytest.approx(value, abs=1e-3), name
    assert together.loss == pytest.approx(alone.loss, rel=1e-4)
    same = table.select([0, 6])  # two images of one size, whose loss is that of their batch
    images = BoxImages(same, BoxEvaluationTransform(processor))
    batch = images.finish(collate_boxes([images[row] for row in range(2)]))
    with torch.inference_mode():
        whole = model(batch["pixel_values"], batch["pixel_mask"], labels=batch["labels"]).loss
    assert evaluated(model, processor, same, 1).loss == pytest.approx(float(whole), rel=1e-4)


@given(
    shapes=st.lists(st.sampled_from([(4, 3), (3, 4), (5, 5)]), min_size=1, max_size=30), size=st.integers(1, 5),
    processes=st.integers(1, 4),
)  # fmt: skip
def test_batches_hold_each_image_once_and_one_shape_only(shapes, size, processes):
    parts = [batches_of_one_shape(shapes, size, process, processes) for process in range(processes)]
    assert len({len(part) for part in parts}) == 1
    counted = [row for part in parts for rows, count in part for row in rows[:count]]
    assert sorted(counted) == list(range(len(shapes)))
    assert all(1 <= len(rows) <= size and len({shapes[row] for row in rows}) == 1 for part in parts for rows, _ in part)


def test_what_is_found_is_what_the_pipeline_finds(detector, tmp_path):
    model, processor = detector()
    found = evaluated(model, processor, table_of(tmp_path), 4).metrics.pairs()
    model.save_pretrained(tmp_path / "run")
    processor.save_pretrained(tmp_path / "run")
    assert task_of(tmp_path / "run").name == "detection"
    detect = pipeline("object-detection", str(tmp_path / "run"), device="cpu")
    for number in (1, 7):
        answers = detect(str(tmp_path / f"{number}.png"), threshold=0.0)
        answers.sort(key=lambda answer: -answer["score"])
        ours, _ = found[number]
        assert len(answers) == len(ours)
        assert [a["score"] for a in answers] == pytest.approx(ours.scores.tolist(), abs=1e-5)
        best = answers[0]["box"]
        assert [best[side] for side in ("xmin", "ymin", "xmax", "ymax")] == pytest.approx(ours.boxes[0], abs=1.01)
        assert answers[0]["label"] == model.config.id2label[int(ours.classes[0])]


def test_a_processor_that_would_read_the_scores_wrongly_is_refused(detector, tmp_path):
    model, _ = detector(focal_loss=True)
    with pytest.raises(ValueError, match=r"3 scores per query for 3 classes, which DetrImageProcessor.* wrongly"):
        evaluated(model, build_box_processor(48, 96), table_of(tmp_path), 4)
    model, _ = detector()
    with pytest.raises(ValueError, match=r"4 scores per query for 3 classes.*row 0 of split 'test'"):
        evaluated(model, build_box_processor(48, 96, focal=True), table_of(tmp_path), 4)


def test_answers_that_are_no_numbers_name_their_images(detector, tmp_path):
    model, processor = detector()
    with torch.no_grad():
        model.class_labels_classifier.bias[0] = float("nan")
    with pytest.raises(NonFiniteCostError, match="infinite or not a number for the images 0, 6"):
        evaluated(model, processor, table_of(tmp_path), 2)
    with pytest.raises(ValueError, match=r"logits are infinite or not a number; the images: .*0\.png \(row 0"):
        evaluated(model, processor, table_of(tmp_path), 2, to_data=[0, 1, 2])


def test_classes_are_renumbered_and_unknown_ones_left_out(detector, tmp_path):
    model, processor = detector()
    table = table_of(tmp_path)
    plain = evaluated(model, processor, table, 4)
    mapped = evaluated(model, processor, table, 4, to_data=[2, -1, 0])
    assert mapped.loss is None
    for (one, _), (other, _) in zip(plain.metrics.pairs(), mapped.metrics.pairs(), strict=True):
        known = one.classes != 1
        assert np.array_equal(np.array([2, -1, 0])[one.classes[known]], other.classes)
        assert np.array_equal(one.scores[known], other.scores)


def test_an_evaluation_that_was_cut_short_goes_on(detector, tmp_path, monkeypatch):
    model, processor = detector()
    table = table_of(tmp_path)
    whole = evaluated(model, processor, table, 2)
    whole_batches = len(batches_of_one_shape(SIZES, 2))
    monkeypatch.setattr("vithub.training.tasks.partial_counts.EVERY", 1)
    about = {"model": "a"}
    calls = []

    def stop(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt

    class Stopping(PartialCounts):
        def save(self, *arguments):
            super().save(*arguments)
            stop(*arguments)

    with pytest.raises(KeyboardInterrupt):
        evaluated(
            model,
            processor,
            table,
            2,
            partial=Stopping(tmp_path / "partial", about, {"weights": "1"}, 0, 1, resume=False),
        )
    seen = []
    handle = model.register_forward_pre_hook(lambda *_: seen.append(1))
    again = evaluated(
        model,
        processor,
        table,
        2,
        partial=PartialCounts(tmp_path / "partial", about, {"weights": "1"}, 0, 1, resume=True),
    )
    handle.remove()
    assert len(seen) == whole_batches - 3
    assert again.metrics.figures().stats.tolist() == whole.metrics.figures().stats.tolist()
    assert again.loss == pytest.approx(whole.loss, rel=1e-9)


@pytest.mark.parametrize("fields", [{}, {"focal_loss": True}], ids=["plain", "focal"])
def test_images_that_cannot_be_decoded_count_for_nothing_and_are_listed(fields, detector, tmp_path):
    model, processor = detector(**fields)
    table = table_of(tmp_path)
    whole = evaluated(model, processor, table, 2)
    for row in (0, 3):  # row 0 shares its batch with row 6, row 3 has one of its own
        file = tmp_path / f"{row}.png"
        file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(BadImageError, match=r"0\.png: image file is truncated"):
        evaluated(model, processor, table, 2)
    with pytest.raises(BadImageError, match=r"2 of 9 images of split 'test' could not be decoded, more than .* 0\.2"):
        evaluated(model, processor, table, 2, skip_bad=True, max_bad_share=0.2)
    left = evaluated(model, processor, table, 2, skip_bad=True, max_bad_share=0.3)
    assert [name.split(" (")[0] for name in left.bad_images] == [str(tmp_path / "0.png"), str(tmp_path / "3.png")]
    assert sorted(left.metrics.true) == [1, 2, 4, 5, 6, 7, 8]
    only = evaluated(model, processor, table.select([1, 2, 4, 5, 6, 7, 8]), 2)
    assert left.metrics.figures().stats.tolist() == pytest.approx(only.metrics.figures().stats.tolist(), abs=1e-9)
    assert left.loss == pytest.approx(only.loss, rel=1e-5)
    assert abs(left.loss - whole.loss) > 1e-3


def test_folders_without_a_detector_are_told(tmp_path):
    with pytest.raises(CheckpointError):
        load_detector(tmp_path / "nothing")
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["HubViTForImageClassification"]}))
    with pytest.raises(
        CheckpointError, match=r"must be an object detector, and its config\.json is of .* classification"
    ):
        load_detector(tmp_path)
    assert task_of(tmp_path).name == "classification"
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json is no readable JSON"):
        task_of(tmp_path)
