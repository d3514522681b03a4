import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import stats
from torchvision.transforms import v2
from vithub.data.image_processing import build_image_processor
from vithub.data.images import decode_image
from vithub.data.labelled.augmentation import TrainTransform, least_side
from vithub.data.labelled.augmentation_settings import Augmentation
from vithub.data.labelled.dataset import EvaluationTransform
from vithub.data.pixels.decoding import as_picture, as_pixels, decode_pixels
from vithub.data.pixels.resizing import draw_part, resized
from vithub.data.seeding import sample_generator

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def noisy(height, width, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def jpeg(image, **options):
    stream = io.BytesIO()
    image.save(stream, "JPEG", **options)
    return stream.getvalue()


@given(
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)), wanted=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    mode=st.sampled_from(["bicubic", "bilinear"]), seed=st.integers(0, 9),
)  # fmt: skip
def test_resizing_is_pillows(size, wanted, mode, seed):
    image = noisy(*size, seed)
    theirs = image.resize(wanted[::-1], getattr(Image.Resampling, mode.upper()))
    ours = resized(as_pixels(image), wanted, mode)
    assert (ours.int() - as_pixels(theirs).int()).abs().max() <= 1


@pytest.mark.parametrize("size", [(240, 320), (40, 300)])
@pytest.mark.parametrize("scale", [(0.35, 1.0), (0.08, 1.0)])
def test_parts_are_drawn_as_torchvision_draws_them(size, scale):
    ratio = (3 / 4, 4 / 3)
    ours = np.array([draw_part(size, scale, ratio, sample_generator(0, 1, 0, n)) for n in range(3000)])
    torch.manual_seed(0)
    crop = v2.RandomResizedCrop(8, scale=scale, ratio=ratio)
    image = torch.zeros(1, *size)
    theirs = [crop.make_params([image]) for _ in range(3000)]
    theirs = np.array([[one["top"], one["left"], one["height"], one["width"]] for one in theirs])
    for measure in (
        lambda part: part[:, 2] * part[:, 3],
        lambda part: part[:, 3] / part[:, 2],
        lambda part: part[:, 0],
        lambda part: part[:, 1],
    ):
        assert stats.ks_2samp(measure(ours), measure(theirs)).pvalue > 1e-3
    assert (ours[:, :2] >= 0).all()
    assert (ours[:, :2] + ours[:, 2:] <= size).all()


@given(size=st.tuples(st.integers(1, 60), st.integers(1, 60)), seed=st.integers(0, 99))
def test_a_part_lies_within_its_image(size, seed):
    part = draw_part(size, (0.9, 1.0), (1.0, 1.0), sample_generator(seed, 1, 0, 0))
    assert min(part.top, part.left) >= 0
    assert min(part.height, part.width) >= 1
    assert part.top + part.height <= size[0]
    assert part.left + part.width <= size[1]


@given(
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)), side=st.integers(4, 40), other=st.integers(4, 40),
    square=st.booleans(), interpolation=st.sampled_from(["bicubic", "bilinear"]), crop_ratio=st.floats(0.5, 1.0),
    keep=st.booleans(),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_evaluation_pixels_are_those_of_the_saved_processor(size, side, other, square, interpolation, crop_ratio, keep):
    """The same bits: well within 1/255."""
    wanted = (side, side if square else other)
    processor = build_image_processor(
        wanted, crop_ratio=crop_ratio, interpolation=interpolation, mean=MEAN, std=STD, keep_aspect=keep
    )
    transform, image = EvaluationTransform(processor), noisy(*size)
    assert transform.in_levels
    levels = transform.levels(as_pixels(image))
    assert levels.dtype == torch.uint8
    ours = transform.finish({"pixel_values": levels[None]})["pixel_values"][0]
    assert torch.equal(ours, processor(image, return_tensors="pt")["pixel_values"][0])


@pytest.mark.parametrize("change", [{"do_normalize": False}, {"do_center_crop": False}, {"rescale_factor": 1 / 128}])
def test_another_processor_is_called_as_it_is(change):
    values = build_image_processor((16, 16)).to_dict() | change
    processor = type(build_image_processor((16, 16))).from_dict(values)
    transform, image = EvaluationTransform(processor), noisy(20, 30)
    expected = processor(image, return_tensors="pt")["pixel_values"][0]
    assert torch.equal(transform.levels(transform.decode(image)), expected)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_pixels_are_those_of_the_decoded_picture(mode):
    for value in (jpeg(noisy(33, 47).convert(mode), quality=80), noisy(5, 4).convert(mode)):
        pixels = decode_pixels(value)
        assert np.array_equal(np.asarray(as_picture(pixels)), np.asarray(decode_image(value)))


@given(size=st.tuples(st.integers(1, 400), st.integers(1, 400)), least=st.integers(1, 120))
@settings(max_examples=40, deadline=None)
def test_a_large_jpeg_is_decoded_no_larger_than_needed_and_never_too_small(size, least):
    pixels = decode_pixels(jpeg(Image.new("RGB", size[::-1], (200, 90, 30))), least=least)
    shorter = min(pixels.shape[1:])
    assert shorter >= min(least, *size)
    assert shorter < 2 * least or shorter == min(size) // 8 or shorter == -(-min(size) // 8)
    assert (pixels[:, 0, 0].int() - torch.tensor([200, 90, 30])).abs().max() <= 3


def test_a_jpeg_decoded_at_a_smaller_size_shows_the_same_and_stays_upright():
    picture = noisy(6, 8).resize((800, 600), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = 6
    encoded = jpeg(picture, quality=95, exif=exif)
    small, whole = decode_pixels(encoded, least=150), decode_pixels(encoded)
    assert whole.shape == (3, 800, 600)
    assert small.shape == (3, 200, 150)
    assert (resized(whole, (200, 150)).int() - small.int()).abs().float().mean() < 1.5


@given(
    scale=st.floats(0.05, 1.0), ratio=st.tuples(st.floats(0.5, 1.0), st.floats(1.0, 2.0)), seed=st.integers(0, 999),
    long=st.integers(0, 400),
)  # fmt: skip
def test_no_crop_of_a_reduced_image_must_be_enlarged(scale, ratio, seed, long):
    crops = Augmentation(scale=(scale, 1.0), ratio=ratio)
    side = least_side(crops, (32, 32))
    part = draw_part((side, side + long), crops.scale, crops.ratio, sample_generator(seed, 1, 0, 0))
    assert min(part.height, part.width) >= 31  # rounded to whole pixels


def test_without_a_reduction_training_pixels_do_not_depend_on_the_format(tmp_path):
    """The parameters of one sample give the pixels of torchvision on Pillow images, to a level."""
    transform = TrainTransform(Augmentation(horizontal_flip=0.0), (32, 32), MEAN, STD)
    image = noisy(50, 70)
    pixels, _ = transform.drawn(image, sample_generator(3, 1, 0, 5))
    part = draw_part((50, 70), (0.08, 1.0), (3 / 4, 4 / 3), sample_generator(3, 1, 0, 5))
    theirs = v2.functional.resized_crop(image, *part, [32, 32], v2.InterpolationMode.BICUBIC)
    assert (pixels.int() - as_pixels(theirs).int()).abs().max() <= 1
