"""The losses of DINO and iBOT are those of a slow computation, and teacher and centre move as the paper says."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from vithub.data.image_processing import PixelFormat
from vithub.data.labelled.augmentation import TrainTransform
from vithub.data.labelled.augmentation_settings import Augmentation
from vithub.data.labelled.dataset import collate
from vithub.data.seeding import sample_generator
from vithub.training.recipe.pretraining_settings import PretrainingSettings
from vithub.training.recipe.recipe import RecipeError
from vithub.training.tasks.pretraining.multi_crop import MultiCrop
from vithub.training.tasks.pretraining.self_distillation import SelfDistillation
from vithub.training.tasks.pretraining.views import ViewSizes

import vithub

SMALL = {"prototypes": 12, "projection_width": 16, "bottleneck_width": 8, "local_crops": 2, "local_size": 16}


def made(tiny, randomised, **settings):
    torch.manual_seed(0)
    model = vithub.HubViTModel(tiny(use_mask_token=settings.get("masked_weight", 0) > 0))
    learner = SelfDistillation(model, PretrainingSettings(method="dino", **SMALL | settings))
    randomised(learner.vit, 1)
    randomised(learner.head, 2)
    randomised(learner.teacher, 3)
    randomised(learner.teacher_head, 4)
    learner.centre.mean.copy_(torch.randn(12, generator=torch.Generator().manual_seed(5)) * 0.1)
    return learner


def views(count=3):
    draws = torch.Generator().manual_seed(6)
    larges, smalls = (torch.randn(count, number, 3, side, side, generator=draws) for number, side in ((2, 32), (2, 16)))
    return larges, smalls, torch.cat([larges.flatten(1), smalls.flatten(1)], dim=1)


def probabilities(values, temperature):
    powers = [math.exp(value / temperature) for value in values]
    return [power / sum(powers) for power in powers]


def answers(vit, head, image, place=0, mask=None):
    """What a backbone and its head say of one token of one image."""
    with torch.no_grad():
        return head(vit(image[None], bool_masked_pos=mask).last_hidden_state[0, place]).tolist()


def slow_loss(learner, larges, smalls, masks, image):
    """The loss of one image, number by number."""
    settings, centre = learner.settings, learner.centre.mean.tolist()
    targets = []
    for large in larges[image]:
        said = answers(learner.teacher, learner.teacher_head, large)
        targets.append(probabilities([a - c for a, c in zip(said, centre, strict=True)], settings.teacher_temperature))
    students = [(large, None if masks is None else masks[image, number][None])
                for number, large in enumerate(larges[image])]  # fmt: skip
    students += [(small, None) for small in smalls[image]]
    terms = []
    for first, target in enumerate(targets):
        for second, (view, mask) in enumerate(students):
            if first == second:
                continue
            own = probabilities(answers(learner.vit, learner.head, view, mask=mask), settings.student_temperature)
            terms.append(-sum(t * math.log(o) for t, o in zip(target, own, strict=True)))
    loss = sum(terms) / len(terms)
    if masks is None:
        return loss
    of_views = []
    for number, large in enumerate(larges[image]):
        hidden = [patch for patch in range(16) if masks[image, number, patch]]
        each = []
        for patch in hidden:
            said = answers(learner.teacher, learner.teacher_head, large, 1 + patch)
            centre = learner.patch_centre.mean.tolist()
            target = probabilities([a - c for a, c in zip(said, centre, strict=True)], settings.teacher_temperature)
            found = answers(learner.vit, learner.head, large, 1 + patch, masks[image, number][None])
            own = probabilities(found, settings.student_temperature)
            each.append(-sum(t * math.log(o) for t, o in zip(target, own, strict=True)))
        of_views.append(sum(each) / len(hidden))
    return loss + settings.masked_weight * sum(of_views) / 2


@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_the_loss_is_that_of_a_slow_computation(weight, tiny, randomised):
    learner = made(tiny, randomised, masked_weight=weight).train()
    larges, smalls, rows = views()
    drawn = learner.draws([1, 2, 3], (32, 32))
    assert set(drawn) == ({"mask"} if weight else set())
    losses = learner(pixel_values=rows, **drawn)
    learner.eval()
    for image in range(3):
        expected = slow_loss(learner, larges, smalls, drawn.get("mask"), image)
        assert losses[image].item() == pytest.approx(expected, rel=1e-5)


def test_teacher_and_centre_move_between_steps_by_what_the_step_left(tiny, randomised):
    learner = made(tiny, randomised, centre_momentum=0.8, teacher_momentum=0.9).train()
    assert not learner.teacher.training
    larges, _, rows = views(4)
    before = {name: tensor.clone() for name, tensor in learner.teacher.named_parameters()}
    centre = learner.centre.mean.clone()
    for part in rows.chunk(2):  # the parts of one step's batch
        learner(pixel_values=part).sum().backward()
    assert torch.equal(learner.centre.mean, centre)
    assert all(parameter.grad is None for parameter in learner.teacher.parameters())
    said = torch.tensor([answers(learner.teacher, learner.teacher_head, view) for view in larges.flatten(0, 1)])
    learner.begin_step(5, 0, 20)
    momentum = 1 - 0.1 * (1 + math.cos(math.pi * 5 / 20)) / 2
    for name, average in learner.teacher.named_parameters():
        expected = momentum * before[name] + (1 - momentum) * learner.vit.get_parameter(name)
        torch.testing.assert_close(average, expected)
    torch.testing.assert_close(learner.centre.mean, 0.8 * centre + 0.2 * said.mean(dim=0), atol=1e-6, rtol=1e-5)
    learner.eval()
    learner(pixel_values=rows[:2])  # an evaluation leaves nothing for the next step
    moved = learner.centre.mean.clone()
    learner.centre.move()
    assert torch.equal(learner.centre.mean, moved)
    assert learner.judged is learner.teacher


def test_prototypes_stay_in_the_first_epochs_and_learn_later(tiny, randomised):
    learner = made(tiny, randomised, frozen_prototypes=1).train()
    _, _, rows = views(2)
    for epoch, learns in ((0, False), (1, True)):
        learner.zero_grad()
        learner.begin_step(0, epoch, 10)
        learner(pixel_values=rows).sum().backward()
        assert bool(learner.head.prototypes.grad.any()) == learns
        assert bool(learner.head.mlp[0].weight.grad.any())


def test_the_views_of_an_image_are_its_own_crops_whatever_the_batch():
    pixels, sizes = PixelFormat((32, 32), (0.4, 0.5, 0.6), (0.2, 0.2, 0.3)), ViewSizes((32, 32), (16, 16), 3)
    settings = Augmentation(crop="random_resized", scale=(0.5, 1.0), color_jitter=0.4)
    transform = MultiCrop(settings, pixels, sizes, (0.1, 0.3))
    draws = np.random.default_rng(0)
    images = [Image.fromarray(draws.integers(0, 255, (40, 56, 3), dtype=np.uint8)) for _ in range(2)]
    samples = []
    for number, image in enumerate(images):
        rows, numbers = transform.drawn(image, sample_generator(0, 1, 0, number))
        samples.append({"pixel_values": rows, "draws": numbers})
    batch = transform.finish(collate(samples))
    larges, smalls = sizes.cut(batch["pixel_values"])
    assert larges.shape == (2, 2, 3, 32, 32)
    assert smalls.shape == (2, 3, 3, 16, 16)
    mean, std = list(pixels.mean), list(pixels.std)
    large = TrainTransform(settings, (32, 32), mean, std)
    small = TrainTransform(settings.model_copy(update={"scale": (0.1, 0.3)}), (16, 16), mean, std)
    for number, image in enumerate(images):
        generator = sample_generator(0, 1, 0, number)
        for one, found in [(large, view) for view in larges[number]] + [(small, view) for view in smalls[number]]:
            levels, numbers = one.drawn(image, generator)
            expected = one.finish({"pixel_values": levels[None], "draws": numbers[None]})["pixel_values"][0]
            assert torch.equal(found, expected)


def test_small_views_are_three_sevenths_of_the_image_in_whole_patches(tiny):
    assert ViewSizes.of(tiny(image_size=224, patch_size=16), PretrainingSettings()).small == (96, 96)
    assert ViewSizes.of(tiny(image_size=(32, 64), patch_size=8), PretrainingSettings()).small == (16, 24)
    with pytest.raises(RecipeError, match=r"local_size: must be a multiple of the patch 8 x 8, got 20"):
        ViewSizes.of(tiny(), PretrainingSettings(method="dino", local_size=20))


def test_views_that_are_no_random_parts_are_refused(pretrained, tmp_path):
    with pytest.raises(RecipeError, match=r"augmentation\.crop: must be random_resized .* dino, .*, got padded"):
        pretrained(tmp_path / "run", "dino", {"augmentation.crop": "padded"})
