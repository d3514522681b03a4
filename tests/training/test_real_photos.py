"""The main job on real photos with real weights, small enough for every run of the suite."""

import pytest
import torch
from datasets import DatasetDict, load_dataset
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification, pipeline
from vithub.data.image_processing import PixelFormat
from vithub.training.finetuning import finetune
from vithub.training.recipe.sections import DistillationSettings
from vithub.training.tasks.classification.teachers import Teacher


@pytest.fixture(scope="module")
def flowers(real_files):
    """150 photos of flowers to train on, 50 to choose the epoch, 50 to judge."""
    sizes = {"train": 150, "validation": 50, "test": 50}
    splits = load_dataset(str(real_files / "data" / "flowers5"))
    return DatasetDict({name: splits[name].shuffle(seed=0).select(range(size)) for name, size in sizes.items()})


def test_a_pretrained_vit_learns_flowers_from_its_features(real_files, flowers, tmp_path):
    run = finetune(
        str(real_files / "weights" / "vit_small_patch14"), flowers, tmp_path / "run", preset="linear-probe",
        epochs=30, values={"model.image_size": 98, "training.trackers": []},
    )  # fmt: skip
    assert run.metrics["test"]["accuracy"] > 0.5  # chance is 0.2
    classify = pipeline("image-classification", str(run.folder))
    photos = flowers["test"].select(range(8))
    names = flowers["test"].features["label"].names
    answers = [classify(photo.convert("RGB"))[0]["label"] for photo in photos["image"]]
    right = sum(answer == names[label] for answer, label in zip(answers, photos["label"], strict=True))
    assert right >= 3


def test_a_real_cnn_teaches_through_pixels_normalised_for_the_student(real_files, flowers):
    """The teacher's answers through our pixels are those through its own."""
    folder = str(real_files / "weights" / "tf_efficientnet_lite0")
    native = AutoModelForImageClassification.from_pretrained(folder).eval()
    processor = AutoImageProcessor.from_pretrained(folder)
    photos = [
        photo.convert("RGB").resize((224, 224), Image.Resampling.BICUBIC) for photo in flowers["test"][:4]["image"]
    ]
    scaled = torch.stack(
        [torch.frombuffer(bytearray(p.tobytes()), dtype=torch.uint8).view(224, 224, 3) for p in photos]
    )
    scaled = scaled.permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    student = PixelFormat((224, 224), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    labels = list(native.config.id2label.values())
    chosen = [labels[number] for number in (985, 1, 281)]
    teacher = Teacher.load(DistillationSettings(teacher=folder, precision="fp32"), student, chosen)
    answers = teacher.logits((scaled - mean) / std)
    with torch.no_grad():
        expected = native((scaled - 0.5) / 0.5).logits[:, [985, 1, 281]]
    torch.testing.assert_close(answers, expected, atol=1e-3, rtol=1e-3)
    assert processor.data_config["mean"] == (0.5, 0.5, 0.5)
