import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance
from scipy import stats
from torchvision.transforms import v2
from vithub.data.labelled.augmentation import TrainTransform, three_augment
from vithub.data.labelled.augmentation_settings import Augmentation
from vithub.data.pixels.decoding import as_pixels
from vithub.data.pixels.finishing import ORDERS, Draws, Finish, extents_of, finish_together
from vithub.data.seeding import sample_generator

LEVELS = Finish([0.0] * 3, [1 / 255] * 3)  # leaves levels from 0 to 255
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
ENHANCE = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)


@pytest.fixture(scope="module")
def photo():
    """A picture of large shapes and fine grain that uses all levels, 40 x 56 pixels."""
    coarse = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((56, 40), Image.Resampling.BICUBIC)).astype(int)
    grain = np.random.default_rng(1).integers(-25, 26, smooth.shape)
    return Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8))


def some_draws():
    factor = st.floats(0.4, 1.6)
    side = st.integers(1, 12)
    return st.builds(
        Draws, horizontal_flip=st.booleans(), vertical_flip=st.booleans(), brightness=factor, contrast=factor,
        saturation=factor, order=st.integers(0, 5), top=st.integers(0, 8), left=st.integers(0, 8), height=side,
        width=side, noise=st.integers(0, 2**53 - 1),
    )  # fmt: skip


def batch(levels, draws, mask=None):
    more = {} if mask is None else {"pixel_mask": mask}
    return {"pixel_values": levels, "draws": torch.stack([one.numbers() for one in draws]), **more}


@given(flips=st.tuples(st.booleans(), st.booleans()), order=st.integers(0, 5),
       factors=st.tuples(*[st.floats(0.6, 1.4)] * 3))  # fmt: skip
def test_colours_and_flips_are_those_of_pillow(photo, flips, order, factors):
    draws = Draws(*flips, *factors, order)
    ours = LEVELS(batch(as_pixels(photo)[None], [draws]))["pixel_values"][0]
    expected = photo
    for kind in ORDERS[order]:
        expected = ENHANCE[kind](expected).enhance(factors[kind])
    if flips[0]:
        expected = expected.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if flips[1]:
        expected = expected.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    # Pillow cuts to whole levels, downwards, after each of the three, which the later two may enlarge
    assert (ours - as_pixels(expected)).abs().max() <= 5
    assert (ours - as_pixels(expected)).mean() >= -0.1


@given(drawn=st.lists(some_draws(), min_size=2, max_size=4), seed=st.integers(0, 99), padded=st.booleans())
@settings(max_examples=40)
def test_a_batch_finished_at_once_is_its_images_finished_one_by_one(drawn, seed, padded):
    """The form for GPUs, with its masks, gives the bits of the form for CPUs; so does any part of the batch."""
    levels = torch.randint(0, 256, (len(drawn), 3, 21, 23), generator=torch.Generator().manual_seed(seed)).byte()
    mask = None
    if padded:
        drawn = [one._replace(height=0) for one in drawn]
        mask = torch.zeros(len(drawn), 21, 23, dtype=torch.int64)
        for number in range(len(drawn)):
            mask[number, : 21 - number, : 15 + number] = 1
        levels *= mask[:, None].byte()
    finish = Finish(MEAN, STD)
    one_by_one = finish(batch(levels, drawn, mask))["pixel_values"]
    draws = torch.stack([one.numbers() for one in drawn]).numpy()
    extents = None if mask is None else extents_of(mask)
    together = finish_together(levels, draws, extents, finish.mean[:, None, None], finish.std[:, None, None])
    assert torch.equal(together, one_by_one)
    last = finish(batch(levels[-1:], drawn[-1:], None if mask is None else mask[-1:]))["pixel_values"]
    assert torch.equal(last, one_by_one[-1:])
    if mask is not None:
        assert not one_by_one[(mask == 0)[:, None].expand_as(one_by_one)].any()


def test_an_erased_rectangle_holds_noise_of_its_own_seed_and_nothing_else_changes():
    levels = torch.full((6, 3, 64, 64), 128, dtype=torch.uint8)
    boxes = [Draws(top=5, left=9, height=50, width=40, noise=seed) for seed in (0, 1, 2, 2**32, 2**53 - 1, 1)]
    finished = Finish(MEAN, STD)(batch(levels, boxes))["pixel_values"]
    plain = Finish(MEAN, STD)({"pixel_values": levels})["pixel_values"]
    inside = torch.zeros(64, 64, dtype=torch.bool)
    inside[5:55, 9:49] = True
    assert torch.equal(finished[..., ~inside], plain[..., ~inside])
    noise = finished[..., inside].flatten(1)  # (6, 6000)
    assert torch.equal(noise[1], noise[5])
    assert stats.kstest(noise[:5].flatten().numpy(), "norm").pvalue > 1e-3
    assert np.abs(np.corrcoef(noise[:5].numpy()) - np.eye(5)).max() < 0.05
    for shift in (1, 40, 2000):  # neighbours in a row, in a column, in two channels
        assert abs(np.corrcoef(noise[0, shift:].numpy(), noise[0, :-shift].numpy())[0, 1]) < 0.05


def test_images_that_are_finished_already_are_left_as_they_are():
    pixels = torch.randn(2, 3, 4, 4)
    assert torch.equal(Finish(MEAN, STD)({"pixel_values": pixels, "index": 1})["pixel_values"], pixels)


@pytest.mark.parametrize("kind", [0, 1, 2])
@given(sigma=st.floats(0.1, 2.0))
@settings(max_examples=15)
def test_the_three_distortions_are_those_of_torchvision_on_pillow_images(photo, kind, sigma):
    blur = v2.GaussianBlur(kernel_size=9, sigma=(sigma, sigma))
    theirs = (v2.RandomGrayscale(p=1.0), v2.RandomSolarize(128, p=1.0), blur)[kind](photo)
    ours = three_augment(as_pixels(photo), kind, sigma)
    assert (ours.int() - as_pixels(theirs).int()).abs().max() <= 1


def test_factors_orders_and_erasing_are_drawn_as_torchvision_and_timm_draw_them():
    settings = Augmentation(crop="none", horizontal_flip=0.3, vertical_flip=0.1, color_jitter=0.4, random_erasing=0.25)
    transform = TrainTransform(settings, (32, 48), MEAN, STD)
    image = torch.zeros(3, 32, 48, dtype=torch.uint8)
    drawn = [Draws(*transform.drawn(image, sample_generator(0, 1, 0, n))[1].tolist()) for n in range(4000)]
    for name in ("brightness", "contrast", "saturation"):
        factors = [getattr(one, name) for one in drawn]
        assert stats.kstest(factors, "uniform", args=(0.6, 0.8)).pvalue > 1e-3
    assert stats.chisquare(np.bincount([int(one.order) for one in drawn], minlength=6)).pvalue > 1e-3
    for name, rate in (("horizontal_flip", 0.3), ("vertical_flip", 0.1)):
        assert stats.binomtest(sum(int(getattr(one, name)) for one in drawn), len(drawn), rate).pvalue > 1e-3
    erased = [one for one in drawn if one.height]
    assert stats.binomtest(len(erased), len(drawn), 0.25).pvalue > 1e-3
    areas, ratios, tops = timm_rectangles(1000, 32, 48)
    assert stats.ks_2samp([one.height * one.width for one in erased], areas).pvalue > 1e-3
    assert stats.ks_2samp([one.height / one.width for one in erased], ratios).pvalue > 1e-3
    assert stats.ks_2samp([one.top / (32 - one.height) for one in erased], tops).pvalue > 1e-3


def timm_rectangles(count, height, width):
    """Areas, height to width and relative top of the rectangles that timm erases."""
    import random

    from timm.data.random_erasing import RandomErasing

    random.seed(0)
    erase, found = RandomErasing(1.0, mode="const", device="cpu"), []
    for _ in range(count):
        seen = erase(torch.ones(1, height, width))[0] == 0
        rows, columns = seen.any(1).nonzero().flatten(), seen.any(0).nonzero().flatten()
        if len(rows):
            found.append((len(rows) * len(columns), len(rows) / len(columns), int(rows[0]) / (height - len(rows))))
    return zip(*found, strict=True)
