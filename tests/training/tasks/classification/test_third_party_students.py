"""CNNs of transformers and timm as students, and as teachers of ours."""

import json
import shutil

import pytest
import torch
from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    BitImageProcessorPil,
    ResNetConfig,
    ResNetForImageClassification,
    TimmWrapperConfig,
    TimmWrapperForImageClassification,
    pipeline,
)
from vithub.data.image_processing import PixelFormat, build_image_processor, pixel_format
from vithub.training.recipe.recipe import RecipeError
from vithub.training.recipe.sections import DistillationSettings
from vithub.training.tasks.classification.teachers import Teacher

FREE = {"model.image_size": 32, "model.fields": {}, "training.epochs": 1}


@pytest.fixture(scope="module")
def cnns(tmp_path_factory):
    """Folders of a ResNet of transformers and a CNN of timm, for two classes and 32 x 32 pixels."""
    torch.manual_seed(0)
    folder, names = (
        tmp_path_factory.mktemp("cnns"),
        {"id2label": {0: "cat", 1: "dog"}, "label2id": {"cat": 0, "dog": 1}},
    )
    ResNetForImageClassification(
        ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], **names)
    ).save_pretrained(folder / "transformers")
    TimmWrapperForImageClassification(TimmWrapperConfig(architecture="test_resnet", **names)).save_pretrained(
        folder / "timm"
    )
    for name in ("transformers", "timm"):
        build_image_processor((32, 32), mean=(0.5,) * 3, std=(0.5,) * 3).save_pretrained(folder / name)
    return folder


@pytest.mark.parametrize(("library", "front_end"), [("transformers", "trainer"), ("timm", "accelerate")])
def test_a_cnn_is_trained_saved_and_served_as_it_is(train, cnns, digit_folders, tmp_path, library, front_end):
    run = train(tmp_path / "run", FREE | {"model.source": str(cnns / library)}, front_end=front_end)
    assert run.losses[-1] < run.losses[0]
    native = AutoModelForImageClassification.from_pretrained(run.folder)
    assert type(native).__name__ in ("ResNetForImageClassification", "TimmWrapperForImageClassification")
    assert sorted(native.config.id2label.values()) == sorted(path.name for path in digit_folders.iterdir())
    states = native.state_dict(), run.model.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[1])
    classify = pipeline("image-classification", str(run.folder))
    (image,) = list((digit_folders / "seven").glob("*.png"))[:1]
    assert {answer["label"] for answer in classify(str(image), top_k=10)} == set(native.config.id2label.values())
    assert (run.folder / "README.md").is_file()


def test_a_cnn_of_timm_is_served_at_the_size_that_it_was_trained_at(train, cnns, digit_folders, tmp_path):
    kept = tmp_path / "224"
    shutil.copytree(cnns / "timm", kept)
    (kept / "preprocessor_config.json").unlink()  # as timm's own checkpoints are
    content = json.loads((kept / "config.json").read_text())
    content["pretrained_cfg"] = {"input_size": [3, 224, 224], "crop_pct": 0.95, "mean": [0.4] * 3, "std": [0.3] * 3}
    content["model_args"] = {"num_classes": 2}  # as timm 1.0.31 saves them
    (kept / "config.json").write_text(json.dumps(content))
    run = train(tmp_path / "run", FREE | {"model.source": str(kept), "evaluation.crop_ratio": 0.8})
    assert run.metrics["image_hw"] == [32, 32]
    served = AutoImageProcessor.from_pretrained(run.folder)
    assert pixel_format(served) == PixelFormat((32, 32), (0.4,) * 3, (0.3,) * 3)
    (file,) = list((digit_folders / "seven").glob("*.png"))[:1]
    with Image.open(file) as image:
        photo = image.convert("RGB").resize((50, 40))
    judged = BitImageProcessorPil.from_pretrained(run.folder)(photo, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(served(photo)["pixel_values"], judged, atol=0.02, rtol=0)  # one level of 255
    teacher = Teacher.load(
        DistillationSettings(teacher=str(run.folder)), pixel_format(served), list(run.model.config.id2label.values())
    )
    assert teacher.pixels.image_hw == (32, 32)


def test_both_front_ends_train_a_cnn_alike(train, cnns, tmp_path):
    values = FREE | {"model.source": str(cnns / "transformers"), "training.accumulation": 2}
    runs = [train(tmp_path / front_end, values, front_end=front_end) for front_end in ("accelerate", "trainer")]
    assert runs[0].losses == runs[1].losses
    states = [run.model.state_dict() for run in runs]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_cnn_finetuned_here_teaches_a_deit(train, cnns, tmp_path):
    cnn = train(tmp_path / "cnn", FREE | {"model.source": str(cnns / "timm")})
    student = train(tmp_path / "student", {"training.epochs": 1}, teacher=cnn.folder)
    assert student.metrics["teacher"]["through"] == "token"
    assert student.model.config.distillation == "hard"


def test_a_cnn_with_other_labels_is_no_teacher(train, cnns, tmp_path):
    with pytest.raises(
        RecipeError, match=r"has no class named eight, five, .*; it knows cat, dog\. Give it these labels"
    ):
        train(tmp_path / "run", None, teacher=cnns / "timm")
    assert not (tmp_path / "run").exists()


def test_a_frozen_cnn_is_probed_on_its_features(train, cnns, tmp_path):
    source = FREE | {"model.source": str(cnns / "transformers"), "augmentation.crop": "none"}
    run = train(tmp_path / "run", source | {"training.freeze": "backbone"})
    before = AutoModelForImageClassification.from_pretrained(cnns / "transformers").state_dict()
    for name, tensor in run.model.state_dict().items():
        assert name.startswith("classifier") or torch.equal(tensor, before[name]), name


def test_a_cnn_has_no_patches(train, cnns, tmp_path):
    with pytest.raises(RecipeError, match=r"model\.patch_size: .* is not a ViT of ours, got 4"):
        train(tmp_path / "run", FREE | {"model.source": str(cnns / "timm"), "model.patch_size": 4})
