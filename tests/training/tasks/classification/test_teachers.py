import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from vithub.data.image_processing import PixelFormat, build_image_processor
from vithub.training.recipe.recipe import RecipeError
from vithub.training.recipe.sections import DistillationSettings
from vithub.training.tasks.classification.teachers import Teacher, teacher_columns

import vithub

HALVES = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


class Echo(nn.Module):
    """Answers with the mean of each channel of what it sees."""

    def forward(self, pixel_values):
        self.seen = pixel_values
        return pixel_values.mean(dim=(2, 3))


def test_a_teacher_sees_what_its_own_processor_would_have_made_of_the_image():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8))
    ours = build_image_processor((16, 16), crop_ratio=1.0, **IMAGENET)(image, return_tensors="pt")["pixel_values"]
    theirs = build_image_processor((16, 16), crop_ratio=1.0, **HALVES)(image, return_tensors="pt")["pixel_values"]
    echo = Echo()
    teacher = Teacher(echo, PixelFormat((16, 16), **IMAGENET), pixels=PixelFormat((16, 16), **HALVES))
    teacher.logits(ours)
    torch.testing.assert_close(echo.seen, theirs, atol=1e-5, rtol=0)


def test_a_teacher_sees_its_own_size():
    echo = Echo()
    teacher = Teacher(echo, PixelFormat((16, 16), **HALVES), pixels=PixelFormat((24, 32), **HALVES))
    pixels = torch.randn(2, 3, 16, 16)
    teacher.logits(pixels)
    assert echo.seen.shape == (2, 3, 24, 32)
    smooth = torch.linspace(-1, 1, 16).view(1, 1, 1, 16).expand(1, 3, 16, 16)
    means = teacher.logits(smooth)
    torch.testing.assert_close(means, torch.zeros(1, 3), atol=1e-5, rtol=0)


def test_answers_come_in_the_order_of_the_student_s_labels():
    columns = teacher_columns({0: "cat", 1: "dog", 2: "emu"}, ["emu", "cat"], "a teacher")
    assert columns == [2, 0]
    teacher = Teacher(Echo(), PixelFormat((8, 8), **HALVES), columns)
    pixels = torch.stack([torch.full((8, 8), float(channel)) for channel in range(3)])[None]
    assert teacher.logits(pixels).tolist() == [[2.0, 0.0]]
    assert teacher_columns({0: "cat", 1: "dog"}, ["cat", "dog"], "a teacher") is None


def test_a_teacher_that_lacks_a_label_is_refused_by_name():
    with pytest.raises(RecipeError, match=r"the-teacher has no class named fox, gnu; it knows cat, dog\. Give it"):
        teacher_columns({0: "cat", 1: "dog"}, ["cat", "fox", "gnu"], "the-teacher")


@pytest.mark.parametrize(("kind", "through"), [("hard", "token"), ("soft", "token"), ("soft", "logits")])
def test_the_loss_of_a_step_is_the_model_s_own_loss_of_distillation(
    train, finished_run, digit_folders, tmp_path, kind, through
):
    from vithub.training.recipe.recipe import Recipe
    from vithub.training.tasks.registry import build_task

    values = {
        "distillation.teacher": str(finished_run.folder),
        "distillation.kind": kind,
        "distillation.through": through,
        **({"distillation.temperature": 3.0} if kind == "soft" else {}),
        "distillation.alpha": 0.3,
        "distillation.precision": "fp32",
        "data.source": str(digit_folders),
    }
    run = train(tmp_path / "run", {**values, "training.epochs": 1}, teacher=str(finished_run.folder))
    assert run.metrics["teacher"] == {"name": str(finished_run.folder), "kind": kind, "through": through}
    recipe = Recipe.from_yaml(run.folder / "recipe.yaml")
    task = build_task(recipe)
    batch = next(iter(task.train_loader()))
    model = task.model.train()
    assert model.config.distillation == kind
    loss = task.loss(model, batch)
    assert loss.item() == run.losses[0]
    teacher = vithub.HubDeiTForImageClassification.from_pretrained(finished_run.folder).eval()
    with torch.no_grad():
        answers = teacher(batch["pixel_values"]).logits
    smooth = nn.functional.one_hot(batch["labels"], 10).float() * 0.9 + 0.01
    if through == "token":
        expected = model(batch["pixel_values"], labels=smooth, teacher_logits=answers).loss
    else:
        logits = model(batch["pixel_values"]).logits
        expected = 0.7 * nn.functional.cross_entropy(logits, smooth)
        divergence = nn.functional.kl_div(
            (logits / 3).log_softmax(-1), (answers / 3).softmax(-1), reduction="batchmean"
        )
        expected = expected + 0.3 * 9 * divergence / 10
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
    assert not any("teacher" in name for name in model.state_dict())


def test_a_module_can_teach(train, tmp_path):
    class Oracle(nn.Module):
        def forward(self, pixel_values):
            return torch.eye(10)[torch.zeros(len(pixel_values), dtype=torch.long)] * 10

    run = train(tmp_path / "run", {"training.epochs": 4, "distillation.alpha": 1.0}, teacher=Oracle())
    pixels = torch.randn(8, 3, 12, 12)
    answers = run.model(pixels).distillation_logits.argmax(-1)
    assert (answers == 0).all()  # what the oracle always says
    assert run.metrics["teacher"]["name"] == "Oracle"


class Witness(nn.Module):
    """A linear classifier that notes how it is asked."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.classifier = nn.Linear(3, 10)
        self.asked = []

    def forward(self, pixel_values):
        answers = self.classifier(self.norm(pixel_values).mean(dim=(2, 3)))
        self.asked.append((answers.dtype, torch.is_inference_mode_enabled(), self.training))
        return answers


@pytest.mark.parametrize("student", ["fp32", "bf16"])
@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_a_module_teaches_in_the_recipe_s_precision_and_only_infers(train, tmp_path, student, precision, dtype):
    witness = Witness()
    before = {name: value.clone() for name, value in witness.state_dict().items()}
    values = {"training.precision": student, "distillation.precision": precision, "distillation.kind": "soft"}
    train(tmp_path / "run", values | {"training.max_steps": 2}, teacher=witness)
    assert set(witness.asked) == {(dtype, True, False)}
    assert all(torch.equal(before[name], value) for name, value in witness.state_dict().items())


def test_a_module_teaches_in_bf16_by_itself_where_that_is_fast(monkeypatch, digit_folders):
    from vithub.training.recipe.recipe import Recipe
    from vithub.training.tasks import teaching
    from vithub.training.tasks.registry import build_task

    for fast in (False, True):
        monkeypatch.setattr(teaching, "has_fast_bf16", lambda device, fast=fast: fast)
        values = {"data.source": str(digit_folders), "distillation.teacher": "a module"}
        task = build_task(Recipe().with_values(values), teacher=Witness())
        assert task.teaching.teacher.bf16 is fast


def test_cached_answers_give_the_losses_of_asked_ones(train, finished_run, tmp_path):
    still = {"augmentation.crop": "none", "distillation.precision": "fp32", "distillation.kind": "soft"}
    asked = train(tmp_path / "asked", still, teacher=finished_run.folder)
    cached = train(tmp_path / "cached", still | {"distillation.cache": True}, teacher=finished_run.folder)
    assert cached.losses == pytest.approx(asked.losses, abs=1e-6)
    assert (tmp_path / "cached" / "checkpoints" / "teacher_logits.safetensors").is_file()
    with pytest.raises(
        RecipeError, match=r"other pixels in each epoch because of augmentation\.crop, augmentation\.mix"
    ):
        train(
            tmp_path / "refused", {"distillation.cache": True, "augmentation.mixup": 0.8}, teacher=finished_run.folder
        )


def test_bf16_changes_a_teacher_s_answers_little(finished_run):
    pixels = torch.randn(16, 3, 12, 12)
    student = PixelFormat((12, 12), **IMAGENET)
    labels = list(finished_run.model.config.id2label.values())
    answers = [
        Teacher.load(
            DistillationSettings(teacher=str(finished_run.folder), precision=precision), student, labels
        ).logits(pixels)
        for precision in ("fp32", "bf16")
    ]
    assert answers[1].dtype == torch.float32
    difference = (answers[0] - answers[1]).abs().max()
    assert 0 < difference < 0.05 * answers[0].abs().max()
