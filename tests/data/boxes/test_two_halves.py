"""The loading process's half of a detector's transforms, which ends in uint8, and the half made for whole batches."""

import io

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import stats
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional
from transformers import (
    ConditionalDetrImageProcessor,
    DeformableDetrImageProcessor,
    DetrImageProcessor,
    RTDetrImageProcessor,
    YolosImageProcessor,
)
from vithub.data.boxes.augmentation import BoxTransform
from vithub.data.boxes.augmentation_settings import BOX_AUGMENTATIONS
from vithub.data.boxes.dataset import BoxEvaluationTransform, BoxImages, build_box_processor, collate_boxes
from vithub.data.boxes.tables import BOX_TABLE
from vithub.data.images import BadImageError, decode_image
from vithub.data.pixels.cache import PixelCache
from vithub.data.pixels.decoding import as_pixels
from vithub.data.pixels.finishing import Draws
from vithub.data.samplers import SampleKey
from vithub.data.seeding import sample_generator

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def noisy(height, width, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def jpeg(image, **options):
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=95, **options)
    return stream.getvalue()


def table(images, boxes, sizes):
    """A table of encoded images, each with boxes of class 0; sizes are (height, width)."""
    rows = [
        {
            "image": {"bytes": image, "path": None}, "image_id": str(number), "width": width, "height": height,
            "boxes": own, "classes": [0] * len(own), "crowd": [False] * len(own), "area": [1.0] * len(own),
        }
        for number, (image, own, (height, width)) in enumerate(zip(images, boxes, sizes, strict=True))
    ]  # fmt: skip
    return Dataset.from_list(rows, features=BOX_TABLE)


def detrs(settings, scale, size, box):
    """DETR's transform of a size and a box, drawn from torch's generator: flips, a cut of a resized image, resizing.

    Returns the size (height, width), and the box relative to it or None.
    """
    happens = lambda probability: bool(torch.rand(()) < probability)  # noqa: E731
    between = lambda low, high: int(torch.randint(low, high + 1, ()))  # noqa: E731
    corners = tv_tensors.BoundingBoxes([box], format="XYXY", canvas_size=size, dtype=torch.float32)

    def resize(corners, sides, longest):
        height, width = corners.canvas_size
        factor = sides[int(torch.randint(len(sides), ()))] * scale / min(height, width)
        factor = factor if longest is None else min(factor, longest * scale / max(height, width))
        return functional.resize(corners, [max(1, round(height * factor)), max(1, round(width * factor))])

    if happens(settings.horizontal_flip):
        corners = functional.horizontal_flip(corners)
    if happens(settings.vertical_flip):
        corners = functional.vertical_flip(corners)
    if happens(settings.crop):
        corners = resize(corners, settings.crop_sides, None)
        least, most = (max(1, round(side * scale)) for side in settings.crop_size)
        height, width = corners.canvas_size
        rows, columns = (between(min(least, side), min(most, side)) for side in (height, width))
        cut = functional.crop(corners, between(0, height - rows), between(0, width - columns), rows, columns)
        cut = functional.clamp_bounding_boxes(cut)
        before, after = (one[0, 2:] - one[0, :2] for one in (corners, cut))
        if not bool((after > 0).all()) or after.prod() < settings.min_visible * before.prod():
            return cut.canvas_size, None
        corners = cut
    corners = resize(corners, settings.sides, settings.longest)
    height, width = corners.canvas_size
    return (height, width), (corners[0] / torch.tensor([width, height] * 2)).tolist()


@pytest.mark.parametrize(("name", "size"), [("detr", (240, 320)), ("light", (400, 150))])
def test_sizes_and_boxes_are_drawn_as_detr_draws_them(name, size):
    chosen, box, count = BOX_AUGMENTATIONS[name], [0.15 * size[1], 0.3 * size[0], 0.4 * size[1], 0.9 * size[0]], 1500
    transform = BoxTransform(chosen, 240, MEAN, STD)
    image = torch.zeros(3, *size, dtype=torch.uint8)
    ours = [transform.first_half(image, np.array([box]), size, sample_generator(0, 1, 0, n)) for n in range(count)]
    torch.manual_seed(0)
    theirs = [detrs(chosen, transform.scale, size, box) for _ in range(count)]
    kept = [sum(len(one.kept) for one in ours), sum(place is not None for _, place in theirs)]
    assert stats.fisher_exact([kept, [count - number for number in kept]]).pvalue > 1e-3
    seen = [one for one in ours if len(one.kept)]
    shapes = np.array([one.pixels.shape[1:] for one in seen])
    places = np.array(
        [(one.boxes[0] / torch.tensor([w, h] * 2)).tolist() for one, (h, w) in zip(seen, shapes, strict=True)]
    )
    other_shapes = np.array([shape for shape, place in theirs if place is not None])
    other_places = np.array([place for _, place in theirs if place is not None])
    for axis in range(2):
        assert stats.ks_2samp(shapes[:, axis], other_shapes[:, axis]).pvalue > 1e-3
    for side in range(4):
        assert stats.ks_2samp(places[:, side].round(2), other_places[:, side].round(2)).pvalue > 1e-3
    areas = [(one[:, 2:] - one[:, :2]).prod(axis=1).round(2) for one in (places, other_places)]
    assert stats.ks_2samp(*areas).pvalue > 1e-3


def test_colours_and_flips_are_drawn_as_torchvision_draws_them():
    chosen = BOX_AUGMENTATIONS["light"].model_copy(update={"color_jitter": 0.4, "vertical_flip": 0.2})
    transform, image = BoxTransform(chosen, 16, MEAN, STD), torch.zeros(3, 16, 16, dtype=torch.uint8)
    drawn = [
        Draws(*transform.first_half(image, np.empty((0, 4)), (16, 16), sample_generator(0, 1, 0, n)).draws.tolist())
        for n in range(2000)
    ]
    for name in ("brightness", "contrast", "saturation"):
        assert stats.kstest([getattr(one, name) for one in drawn], "uniform", args=(0.6, 0.8)).pvalue > 1e-3
    assert stats.chisquare(np.bincount([int(one.order) for one in drawn], minlength=6)).pvalue > 1e-3
    for name, rate in (("horizontal_flip", 0.5), ("vertical_flip", 0.2)):
        assert stats.binomtest(sum(int(getattr(one, name)) for one in drawn), len(drawn), rate).pvalue > 1e-3


@given(seed=st.integers(0, 10**6), size=st.tuples(st.integers(20, 200), st.integers(20, 200)))
@settings(max_examples=25, deadline=None)
def test_pixels_of_a_view_are_torchvisions_on_pillow_images(seed, size):
    transform, image = BoxTransform(BOX_AUGMENTATIONS["light"], 100, MEAN, STD), noisy(*size)
    view = transform.draw_view(size, sample_generator(seed, 1, 0, 0))
    draws = sample_generator(seed, 1, 0, 0)
    chosen = transform.settings.model_copy(update={"horizontal_flip": 0.0})
    plain = BoxTransform(chosen, 100, MEAN, STD)
    plain.draw_view = lambda *_: view
    ours = plain.first_half(as_pixels(image), np.empty((0, 4)), size, draws).pixels
    theirs = v2.functional.resized_crop(image, *view.part, list(view.size), v2.InterpolationMode.BILINEAR)
    assert (ours.int() - as_pixels(theirs).int()).abs().max() <= 1


@given(seed=st.integers(0, 10**6), name=st.sampled_from(["detr", "light"]))
def test_no_view_of_a_reduced_image_must_be_enlarged(seed, name):
    transform = BoxTransform(BOX_AUGMENTATIONS[name], 300, MEAN, STD)
    view = transform.draw_view((transform.least, transform.least + seed % 300), sample_generator(seed, 1, 0, 0))
    assert view.part.height >= view.size[0] - 2  # rounded to whole pixels
    assert view.part.width >= view.size[1] - 2


@given(seed=st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_boxes_stay_on_what_they_hold_in_padded_batches_of_reduced_jpegs(seed):
    """Through the whole road: a JPEG decoded at a smaller size, cut, resized, padded, flipped and jittered."""
    draws, images, boxes, sizes = np.random.default_rng(seed), [], [], []
    for _ in range(3):
        height, width = (int(side) for side in draws.integers(300, 700, 2))
        (left, right), (top, bottom) = (sorted(draws.integers(0, side, 2).tolist()) for side in (width, height))
        picture = np.full((height, width, 3), (0, 0, 160), np.uint8)
        picture[top : bottom + 1, left : right + 1] = (220, 0, 0)
        images.append(jpeg(Image.fromarray(picture), subsampling=0))
        boxes.append([[float(v) for v in (left, top, right + 1, bottom + 1)]])
        sizes.append((height, width))
    chosen = BOX_AUGMENTATIONS["light"].model_copy(update={"vertical_flip": 0.5, "color_jitter": 0.1})
    transform = BoxTransform(chosen, 64, [0.0] * 3, [1.0] * 3)
    own = BoxImages(table(images, boxes, sizes), transform, seed)
    assert max(min(own.read(row)[0].shape[1:]) for row in range(3)) < 300  # they were reduced
    batch = own.finish(collate_boxes([own[SampleKey(row, 0, row)] for row in range(3)]))
    for pixels, target in zip(batch["pixel_values"], batch["labels"], strict=True):
        height, width = target["size"].tolist()
        red = (pixels[0] > pixels[2])[:height, :width]
        assert not pixels[:, height:].any()
        assert not pixels[:, :, width:].any()
        if not len(target["boxes"]):
            continue
        center, sides = target["boxes"][0][:2], target["boxes"][0][2:]
        corners = torch.cat([center - sides / 2, center + sides / 2]) * torch.tensor([width, height] * 2)
        rows, columns = red.any(dim=1).nonzero().flatten(), red.any(dim=0).nonzero().flatten()
        if min(corners[2:] - corners[:2]) > 3:
            found = torch.tensor([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
            assert (found - corners).abs().max() <= 2


SIZE = {"shortest_edge": 40, "longest_edge": 60}
PROCESSORS = [
    DetrImageProcessor(size=SIZE),
    ConditionalDetrImageProcessor(size=SIZE, image_mean=MEAN[::-1]),
    DeformableDetrImageProcessor(size=SIZE),
    YolosImageProcessor(size=SIZE),
    DetrImageProcessor(size={"height": 40, "width": 56}, do_pad=False),
    RTDetrImageProcessor(size={"height": 40, "width": 40}),
    RTDetrImageProcessor(size={"height": 40, "width": 40}, do_normalize=True),
]


@pytest.mark.parametrize("processor", PROCESSORS, ids=lambda one: type(one).__name__)
@given(size=st.tuples(st.integers(40, 99), st.integers(40, 99)))
@settings(max_examples=20, deadline=None)
def test_evaluation_pixels_are_those_of_the_saved_processor(processor, size):
    transform, image = BoxEvaluationTransform(processor), noisy(*size)
    assert transform.in_levels
    levels = transform.prepared(image)
    assert levels.dtype == torch.uint8
    ours = transform.finish({"pixel_values": levels[None]})["pixel_values"][0]
    expected = processor(image, return_tensors="pt")["pixel_values"][0]
    if processor.do_normalize:
        assert torch.equal(ours, expected)
    else:  # scaled by a product there, by a quotient here
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    "change", [{"rescale_factor": 1 / 128}, {"do_resize": False}, {"pad_size": {"height": 99, "width": 99}}]
)
def test_another_processor_is_called_as_it_is(change):
    processor, image = DetrImageProcessor(size=SIZE, **change), noisy(20, 30)
    images = BoxImages(table([jpeg(image)], [[]], [(20, 30)]), BoxEvaluationTransform(processor))
    batch = images.finish(collate_boxes([images[0]]))
    expected = processor(decode_image(jpeg(image)), return_tensors="pt")["pixel_values"]
    assert torch.equal(batch["pixel_values"], expected)


def test_cached_images_give_the_same_samples_until_the_memory_is_spent_and_after():
    sizes = [(60, 40), (30, 50), (44, 44)]
    rows = table([jpeg(noisy(*size)) for size in sizes], [[[1.0, 2.0, 20.0, 30.0]]] * 3, sizes)
    for transform in (
        BoxTransform(BOX_AUGMENTATIONS["light"], 32, MEAN, STD),
        BoxEvaluationTransform(build_box_processor(32, 48)),
    ):
        plain, cached = BoxImages(rows, transform), BoxImages(rows, transform)
        largest = max(plain.read(row)[0].numel() for row in range(3))
        cached.cache = PixelCache(3, 2 * largest + 128)
        for epoch in range(3):
            for row in range(3):
                key = SampleKey(row, epoch, row) if isinstance(transform, BoxTransform) else row
                ours, theirs = cached[key], plain[key]
                assert torch.equal(ours["pixel_values"], theirs["pixel_values"])
                assert torch.equal(ours["target"]["boxes"], theirs["target"]["boxes"])
        assert 1 <= cached.cache.stored <= 3


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_turned_jpeg_is_checked_at_its_stored_size_though_decoded_smaller(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    encoded = jpeg(noisy(400, 601), exif=exif)
    upright = (601, 400) if orientation in (6, 8) else (400, 601)
    transform = BoxTransform(BOX_AUGMENTATIONS["detr"], 24, MEAN, STD)
    right = BoxImages(table([encoded], [[]], [upright]), transform)
    assert max(right.read(0)[0].shape) < 300
    assert right[SampleKey(0, 0, 0)]["target"]["orig_size"].tolist() == list(upright)
    almost = (upright[0] + 1, upright[1])  # the same size once it is reduced
    wrong = BoxImages(table([encoded], [[]], [almost]), transform)
    with pytest.raises(BadImageError, match=f"{upright[1]} x {upright[0]} pixels, its boxes are for {almost[1]} x"):
        wrong[SampleKey(0, 0, 0)]
