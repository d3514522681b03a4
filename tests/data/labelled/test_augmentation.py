import random

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features
from datasets import Image as ImageFeature
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from timm.data import create_transform
from timm.data.mixup import Mixup
from torch.utils.data import DataLoader
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from vithub.data.image_processing import build_image_processor, resize_image_processor
from vithub.data.labelled.augmentation import TrainTransform
from vithub.data.labelled.augmentation_settings import Augmentation
from vithub.data.labelled.dataset import EvaluationTransform, LabelledImages, collate
from vithub.data.labelled.mixing import mix_batch, targets_from_labels
from vithub.data.samplers import MicroBatches, SampleKey, TrainingOrder, part_of
from vithub.data.seeding import derived_seed, seeded

MEAN, STD = list(IMAGENET_DEFAULT_MEAN), list(IMAGENET_DEFAULT_STD)


@pytest.fixture(scope="module")
def photo():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((90, 60), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def pictures():
    features = Features({"image": ImageFeature(), "label": ClassLabel(names=["a", "b"])})
    images = [Image.new("RGB", (20, 20), (i * 10, 255 - i * 10, i)) for i in range(12)]
    for i, image in enumerate(images):
        image.paste((255, 255, 255), (i, 0, i + 5, 9))
    table = Dataset.from_dict({"image": images, "label": [i % 2 for i in range(12)]}, features=features)
    return table.cast_column("image", ImageFeature(decode=False))


STRONG = Augmentation(
    rand_augment="rand-m9-mstd0.5-inc1", random_erasing=0.5, color_jitter=0.3, three_augment=True, vertical_flip=0.3
)


@pytest.mark.parametrize("crop", ["random_resized", "simple", "padded", "none"])
@pytest.mark.parametrize("size", [(24, 24), (32, 16)])
def test_every_crop_gives_the_wanted_size(photo, crop, size):
    transform = TrainTransform(Augmentation(crop=crop), size, MEAN, STD)
    for tiny in (photo, photo.resize((3, 2))):  # smaller than a patch, too
        pixels = transform(tiny)
        assert pixels.shape == (3, *size)
        assert pixels.dtype == torch.float32
        assert torch.isfinite(pixels).all()


def test_without_augmentation_it_is_the_evaluation_transform(photo):
    settings = Augmentation(crop="none", horizontal_flip=0)
    pixels = TrainTransform(settings, (32, 32), MEAN, STD)(photo)
    processor = build_image_processor((32, 32), crop_ratio=1.0)
    expected = EvaluationTransform(processor)(photo)
    torch.testing.assert_close(pixels, expected, atol=0.02, rtol=0)  # PIL's and torchvision's bicubic round differently


def test_rand_augment_is_timms_own(photo):
    settings = Augmentation(crop="none", horizontal_flip=0, rand_augment="rand-m9-mstd0.5-inc1")
    ours = TrainTransform(settings, (32, 32), MEAN, STD).rand_augment
    theirs = create_transform(
        32, is_training=True, auto_augment="rand-m9-mstd0.5-inc1", interpolation="bicubic", mean=MEAN, std=STD
    ).transforms[2]
    for seed in range(20):
        results = []
        for augment in (ours, theirs):
            random.seed(seed)
            np.random.seed(seed)  # noqa: NPY002
            results.append(np.asarray(augment(photo)))
        assert np.array_equal(*results)


def test_a_policy_timm_does_not_know_is_named():
    with pytest.raises(ValueError, match=r"`rand_augment`.*'strong'"):
        TrainTransform(Augmentation(rand_augment="strong"), (8, 8), MEAN, STD)


def test_flips_happen_as_often_as_asked(photo):
    transform = TrainTransform(Augmentation(crop="none", horizontal_flip=0.3), (32, 32), MEAN, STD)
    plain = TrainTransform(Augmentation(crop="none", horizontal_flip=0), (32, 32), MEAN, STD)(photo)
    torch.manual_seed(0)
    flipped = sum(not torch.equal(transform(photo), plain) for _ in range(400))
    assert 90 < flipped < 150


def samples(pictures, workers, settings=STRONG, seed=0, batch=4, start=0):
    images = LabelledImages(pictures, TrainTransform(settings, (16, 16), MEAN, STD), seed=seed)
    order = TrainingOrder(len(pictures), batch, seed)
    loader = DataLoader(
        images, batch_sampler=MicroBatches(order, start, 9), num_workers=workers, collate_fn=collate,
        multiprocessing_context="fork" if workers else None,
    )  # fmt: skip
    return list(loader)


def test_workers_and_resumption_change_no_pixel(pictures):
    expected = samples(pictures, workers=0)
    torch.manual_seed(99)
    for got in (samples(pictures, workers=2), samples(pictures, workers=0)):
        for one, other in zip(expected, got, strict=True):
            assert all(torch.equal(one[name], other[name]) for name in one)
    for one, other in zip(expected[5:], samples(pictures, workers=1, start=5), strict=True):
        assert torch.equal(one["pixel_values"], other["pixel_values"])
    assert not torch.equal(expected[0]["pixel_values"], samples(pictures, 0, seed=1)[0]["pixel_values"])


def test_drawing_for_a_sample_leaves_other_draws_alone(pictures):
    images = LabelledImages(pictures, TrainTransform(STRONG, (16, 16), MEAN, STD))
    draws = []
    for touch in (False, True):
        torch.manual_seed(5)
        random.seed(5)
        np.random.seed(5)  # noqa: NPY002
        if touch:
            images[SampleKey(3, 0, 0)]
        draws.append((torch.rand(3).tolist(), random.random(), np.random.rand()))  # noqa: NPY002
    assert draws[0] == draws[1]


def test_a_key_decides_all_three_generators():
    drawn = []
    for key in ((1, 2), (1, 2), (1, 3), (2, 2)):
        with seeded(*key):
            drawn.append((torch.rand(1).item(), random.random(), np.random.rand()))  # noqa: NPY002
    assert drawn[0] == drawn[1]
    assert len({value for draw in drawn for value in draw}) == 9
    assert derived_seed(1, 2) != derived_seed(2, 1)


@given(
    size=st.integers(1, 60), batch=st.integers(1, 60), repeats=st.integers(1, 3), epoch=st.integers(0, 3),
    seed=st.integers(0, 3),
)  # fmt: skip
def test_an_epoch_is_a_permutation(size, batch, repeats, epoch, seed):
    batch = min(batch, size)
    order = TrainingOrder(size, batch, seed, repeats)
    steps = order.steps_per_epoch
    keys = [key for step in range(epoch * steps, (epoch + 1) * steps) for key in order.batch(step)]
    assert len(keys) == steps * batch
    assert {key.epoch for key in keys} == {epoch}
    assert [key.position for key in keys] == list(range(len(keys)))
    counts = np.bincount([key.index for key in keys])
    assert counts.max() <= repeats
    if repeats == 1:
        assert len({key.index for key in keys}) == len(keys)


def test_copies_are_in_one_batch_and_never_neighbours():
    order = TrainingOrder(100, 12, 0, repeats=3)
    for step in range(order.steps_per_epoch):
        rows = [key.index for key in order.batch(step)]
        assert sorted(np.bincount(rows)[list(set(rows))].tolist()) == [3, 3, 3, 3]
        assert all(rows[2 * pair] != rows[2 * pair + 1] for pair in range(6))


@pytest.mark.parametrize(("accumulation", "processes"), [(1, 1), (4, 1), (1, 2), (2, 3)])
def test_processes_and_accumulation_cut_the_same_batches(accumulation, processes):
    order = TrainingOrder(50, 12, 3)
    streams = [list(MicroBatches(order, 2, 6, accumulation, p, processes)) for p in range(processes)]
    for step in range(4):
        pieces = [streams[p][step * accumulation + a] for a in range(accumulation) for p in range(processes)]
        assert [key for piece in pieces for key in piece] == order.batch(2 + step)
    assert all(len(stream) == len(MicroBatches(order, 2, 6, accumulation, 0, processes)) for stream in streams)


def test_batches_that_cannot_be_cut_are_refused():
    with pytest.raises(ValueError, match=r"`batch_size` 10 must be a multiple of .* 2 x 3"):
        MicroBatches(TrainingOrder(20, 10, 0), 0, 1, 2, 0, 3)
    with pytest.raises(ValueError, match=r"`batch_size` must be 1 to 20.*got 21"):
        TrainingOrder(20, 21, 0)


MIX = Augmentation(mixup=0.8, cutmix=1.0)


@given(step=st.integers(0, 30), parts=st.sampled_from([1, 2, 4]))
def test_a_cut_batch_is_mixed_as_the_whole(step, parts):
    pixels, targets = torch.randn(8, 3, 6, 5), torch.rand(8, 4).softmax(-1)
    whole = mix_batch(pixels, targets, MIX, 0, step)
    pieces = [
        mix_batch(pixels[part_of(range(8), p, parts)], targets[part_of(range(8), p, parts)], MIX, 0, step)
        for p in range(parts)
    ]
    assert torch.equal(torch.cat([piece[0] for piece in pieces]), whole[0])
    assert torch.equal(torch.cat([piece[1] for piece in pieces]), whole[1])
    torch.testing.assert_close(whole[1].sum(-1), torch.ones(8))


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_mixing_two_images_is_what_timm_does(kind, monkeypatch):
    settings = Augmentation(**{kind: 1.0})
    pixels, labels = torch.randn(2, 3, 12, 10), torch.tensor([0, 2])
    for step in range(15):
        mixed, targets = mix_batch(pixels, targets_from_labels(labels, 3, 0.1), settings, 0, step)
        share = float((targets[0, 0] - 0.1 / 3) / 0.9)
        timm_mix = Mixup(mixup_alpha=float(kind == "mixup"), cutmix_alpha=float(kind == "cutmix"), num_classes=3)
        if kind == "mixup":
            expected = pixels * share + pixels.flip(0) * (1 - share)
        else:
            own = (mixed == pixels).all(1)
            assert torch.equal(torch.where(own[:, None], pixels, pixels.flip(0)), mixed)
            assert own[0].float().mean().item() == pytest.approx(share, abs=1e-6)
            expected = mixed
        torch.testing.assert_close(mixed, expected, atol=1e-5, rtol=1e-5)
        monkeypatch.setattr(timm_mix, "_params_per_batch", lambda share=share: (share, False))
        _, expected_targets = timm_mix(pixels.clone(), labels)
        torch.testing.assert_close(targets, expected_targets, atol=1e-6, rtol=1e-5)


def test_mixing_is_as_frequent_and_as_mixed_as_asked():
    pixels, targets = torch.rand(2, 3, 8, 8), torch.eye(2)
    settings = Augmentation(mixup=0.8, cutmix=1.0, mix_probability=0.5, mix_switch=0.25)
    cut = mixed = 0
    for step in range(600):
        got, _ = mix_batch(pixels, targets, settings, 1, step)
        mixed += not torch.equal(got, pixels)
        cut += not torch.equal(got, pixels) and bool(((got == pixels) | (got == pixels.flip(0))).all())
    assert 250 < mixed < 350
    assert 40 < cut < 110
    assert mix_batch(pixels, targets, Augmentation(), 1, 0)[0] is pixels


def test_an_odd_batch_cannot_be_mixed():
    with pytest.raises(ValueError, match="even number of images to be mixed, got 3"):
        mix_batch(torch.zeros(3, 3, 4, 4), torch.zeros(3, 2), Augmentation(mixup=1.0), 0, 0)


@given(labels=st.lists(st.integers(0, 4), min_size=1, max_size=5), smoothing=st.floats(0, 0.9))
def test_targets_give_the_cross_entropy_of_torch(labels, smoothing):
    labels, logits = torch.tensor(labels), torch.randn(len(labels), 5)
    targets = targets_from_labels(labels, 5, smoothing)
    torch.testing.assert_close(targets.sum(-1), torch.ones(len(labels)))
    expected = torch.nn.functional.cross_entropy(logits, labels, label_smoothing=smoothing)
    torch.testing.assert_close(torch.nn.functional.cross_entropy(logits, targets), expected, atol=1e-5, rtol=1e-4)


def test_several_labels_are_smoothed_towards_a_half():
    assert targets_from_labels(torch.tensor([[0.0, 1.0]]), 2, 0.2).tolist() == [
        [pytest.approx(0.1), pytest.approx(0.9)]
    ]


@pytest.mark.parametrize("backend", ["torchvision", "pil"])
def test_the_processor_crops_the_centre_of_the_resized_image(photo, backend):
    processor = build_image_processor((28, 28), crop_ratio=0.875, backend=backend)
    pixels = processor(photo, return_tensors="pt")["pixel_values"][0]
    resized = photo.resize((48, 32), Image.Resampling.BICUBIC).crop((10, 2, 38, 30))
    expected = (np.asarray(resized).astype(np.float32) / 255 - MEAN) / STD
    torch.testing.assert_close(pixels, torch.from_numpy(expected).permute(2, 0, 1).float(), atol=0.02, rtol=0)


@pytest.mark.parametrize("size", [(56, 56), (28, 56)])
def test_a_processor_for_another_size_keeps_its_crop_ratio(photo, size):
    processor = build_image_processor((28, 28), crop_ratio=0.875, interpolation="bilinear")
    other = resize_image_processor(processor, size)
    assert other(photo, return_tensors="pt")["pixel_values"].shape == (1, 3, *size)
    assert (other.crop_size["height"], other.crop_size["width"]) == size
    resized = other.size
    assert (resized["shortest_edge"] if size == (56, 56) else resized["width"]) == 64
    assert other.resample == processor.resample


@pytest.mark.parametrize(
    ("options", "message"),
    [({"crop_ratio": 0}, "`crop_ratio`.*0"), ({"interpolation": "area"}, "'area'"), ({"backend": "cv"}, "'cv'")],
)
def test_wrong_processor_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build_image_processor((8, 8), **options)
