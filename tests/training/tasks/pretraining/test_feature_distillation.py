"""Teachers of three libraries give features of images and patches, and the distance from them is what it says."""

import pytest
import timm
import torch
import transformers
from torch import nn
from vithub.data.image_processing import PixelFormat, build_image_processor
from vithub.training.recipe.pretraining_settings import PretrainingSettings
from vithub.training.recipe.recipe import RecipeError
from vithub.training.tasks.pretraining.feature_distillation import FeatureDistillation, feature_distance
from vithub.training.tasks.pretraining.feature_teacher import FeatureTeacher

import vithub

SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
PLAIN = PixelFormat((32, 32), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
PIXELS = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def ours():
    return vithub.HubViTForImageClassification(
        vithub.HubViTConfig(**SIZE, image_size=32, patch_size=8, num_register_tokens=2)
    )


def theirs():
    config = transformers.Dinov2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, image_size=32, patch_size=8
    )
    return transformers.Dinov2Model(config)


def swin():
    return transformers.SwinModel(transformers.SwinConfig(image_size=64, patch_size=4, embed_dim=8, depths=[1, 1, 1, 1],
                                                          num_heads=[1, 1, 2, 2], window_size=2))  # fmt: skip


def resnet():
    return transformers.ResNetModel(transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1],
                                                              layer_type="basic"))  # fmt: skip


def timm_vit():
    return timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=4)


def timm_cnn():
    return timm.create_model("resnet10t", num_classes=3)


TEACHERS = [
    (ours, (32, 32), 32, lambda model, pixels: model.vit(pixels).last_hidden_state, 3),
    (theirs, (32, 32), 32, lambda model, pixels: model(pixels).last_hidden_state, 1),
    (timm_vit, (32, 32), 32, lambda model, pixels: model.forward_features(pixels), 1),
    (swin, (64, 64), 64, lambda model, pixels: model(pixels).last_hidden_state, 0),
    (resnet, (32, 32), 16, lambda model, pixels: model(pixels).last_hidden_state, None),
    (timm_cnn, (64, 64), 512, lambda model, pixels: model.forward_features(pixels), None),
]


@pytest.mark.parametrize(
    ("make", "image_hw", "width", "states_of", "prefix"), TEACHERS, ids=lambda v: getattr(v, "__name__", "")
)
def test_any_vision_model_teaches_its_own_features(make, image_hw, width, states_of, prefix):
    torch.manual_seed(0)
    model = make().eval()
    pixels = torch.rand(2, 3, *image_hw)
    with torch.no_grad():
        states = states_of(model, pixels)
    if prefix is not None:
        side = int((states.shape[1] - prefix) ** 0.5)
        expected = states[:, prefix:].reshape(2, side, side, width)
        image = states[:, 0] if prefix else states.mean(dim=1)
    else:
        expected, image = states.permute(0, 2, 3, 1), states.mean(dim=(2, 3))
    plain = PixelFormat(image_hw, PLAIN.mean, PLAIN.std)
    teacher = FeatureTeacher(model, plain, plain, tuple(expected.shape[1:3]))
    found = teacher(pixels)
    assert teacher.width == width
    torch.testing.assert_close(found["patch_targets"], expected.flatten(1, 2))
    torch.testing.assert_close(found["image_targets"], image)
    other = FeatureTeacher(model, plain, plain, (3, 5))(pixels)  # a student with another grid
    assert other["patch_targets"].shape == (2, 15, width)
    assert torch.equal(other["image_targets"], found["image_targets"])


def test_a_teacher_gets_its_own_size_and_normalisation():
    model, wanted = theirs().eval(), PixelFormat((48, 48), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    given = PixelFormat((32, 32), (0.1, 0.2, 0.3), (0.5, 0.5, 0.5))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (given.mean, given.std))
    photos = PIXELS * std + mean
    own_mean, own_std = (torch.tensor(values).view(3, 1, 1) for values in (wanted.mean, wanted.std))
    resized = nn.functional.interpolate((photos - own_mean) / own_std, (48, 48), mode="bicubic", antialias=True)
    found = FeatureTeacher(model, given, wanted, (6, 6))(PIXELS)
    with torch.no_grad():
        expected = model(resized).last_hidden_state
    torch.testing.assert_close(found["image_targets"], expected[:, 0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found["patch_targets"], expected[:, 1:], atol=1e-4, rtol=1e-4)


class Logits(nn.Module):
    """A classifier of nobody's library, which tells its decisions alone."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 5)

    def forward(self, pixels):
        return self.layer(pixels.mean(dim=(2, 3)))


def test_a_teacher_without_features_of_patches_is_refused_in_one_line():
    with pytest.raises(
        RecipeError, match=r"distillation\.teacher: must have features of patches, .* a module, .*\(1, 5\)"
    ):
        FeatureTeacher(Logits(), PLAIN, PLAIN, (4, 4))


def test_the_distance_is_that_of_an_obvious_computation():
    draws = torch.Generator().manual_seed(0)
    found, wanted = torch.randn(2, 3, 6, generator=draws), 5 + 3 * torch.randn(2, 3, 6, generator=draws)
    distances = feature_distance(found, wanted, 0.7)
    for image in range(2):
        for patch in range(3):
            own, other = found[image, patch].tolist(), wanted[image, patch].tolist()
            mean = sum(other) / 6
            std = (sum((value - mean) ** 2 for value in other) / 6 + 1e-5) ** 0.5
            other = [(value - mean) / std for value in other]
            lengths = [sum(value**2 for value in values) ** 0.5 for values in (own, other)]
            cosine = sum(a * b for a, b in zip(own, other, strict=True)) / lengths[0] / lengths[1]
            gaps = [abs(a - b) for a, b in zip(own, other, strict=True)]
            smooth = sum(0.5 * gap**2 if gap < 1 else gap - 0.5 for gap in gaps) / 6
            assert distances[image, patch].item() == pytest.approx(0.7 * (1 - cosine) + 0.3 * smooth, rel=1e-5)


def test_images_and_patches_count_as_the_recipe_says(tiny):
    torch.manual_seed(0)
    model = vithub.HubViTModel(tiny())
    targets = {"image_targets": torch.randn(2, 24), "patch_targets": torch.randn(2, 16, 24)}
    losses = {}
    for image, patch in ((1, 0), (0, 1), (2, 3)):
        torch.manual_seed(1)
        settings = PretrainingSettings(method="features", image_weight=image, patch_weight=patch)
        losses[image, patch] = FeatureDistillation(model, settings, 24)(pixel_values=PIXELS, **targets)
    torch.testing.assert_close(losses[2, 3], 2 * losses[1, 0] + 3 * losses[0, 1])


@pytest.fixture(scope="module")
def timm_folder(tmp_path_factory):
    """A timm model as it lies on the Hub."""
    from timm.models import save_for_hf

    folder = tmp_path_factory.mktemp("timm")
    model = timm.create_model("resnet10t", num_classes=3)
    save_for_hf(model, folder, safe_serialization=True)
    return folder


def test_a_run_learns_from_a_teacher_in_a_folder_of_timm(pretrained, timm_folder, tmp_path):
    run = pretrained(tmp_path / "run", None, {"training.epochs": 1}, teacher=str(timm_folder), max_steps=3)
    assert run.metrics["pretraining"] == {"method": "features", "mask_ratio": None, "teacher": str(timm_folder)}
    assert "learned through a linear map: those of" in (run.folder / "README.md").read_text()


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        ({}, {"method": "features"}, r"distillation\.teacher: is missing; pretraining\.method features learns from"),
        ({}, {"method": "mae", "teacher": "TEACHER"}, r"teacher: has an effect on .* features alone, .* mae"),
        ({"pretraining.mask_ratio": 0.5}, {"teacher": "TEACHER"}, r"ratio 0\.5 has no effect unless .* mae or simmim"),
        ({"pretraining.image_weight": 0, "pretraining.patch_weight": 0}, {"teacher": "TEACHER"}, "are both 0"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_with_a_teacher_is_refused(values, options, message, quick_pretraining, tmp_path):
    model = ours()
    model.save_pretrained(tmp_path / "teacher")
    build_image_processor((32, 32)).save_pretrained(tmp_path / "teacher")
    given = {name: str(tmp_path / "teacher") if value == "TEACHER" else value for name, value in options.items()}
    with pytest.raises(RecipeError, match=message):
        vithub.pretrain(data="digits", output=tmp_path / "run", values=quick_pretraining("features", values), **given)
