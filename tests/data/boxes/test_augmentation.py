import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError
from torch.utils.data import DataLoader
from vithub.data.boxes.augmentation import BoxTransform
from vithub.data.boxes.augmentation_settings import BOX_AUGMENTATIONS, BoxAugmentation
from vithub.data.boxes.dataset import (
    BoxEvaluationTransform,
    BoxImages,
    box_pixels,
    build_box_processor,
    collate_boxes,
)
from vithub.data.boxes.loading import load_box_data
from vithub.data.boxes.previews import augmented_picture
from vithub.data.boxes.tables import BoxData
from vithub.data.images import BadImageError, decode_image
from vithub.data.samplers import AspectGroupedOrder, SampleKey, TrainingOrder
from vithub.data.seeding import sample_generator

PLAIN = ([0.0] * 3, [1.0] * 3)
COLORS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], dtype=np.uint8)
BOXES = torch.tensor([[10.0, 20, 90, 80], [120, 10, 200, 120], [30, 110, 110, 190]])


def painted():
    """An image of 220 x 200 pixels with each box of `BOXES` in a colour of its own."""
    pixels = np.zeros((200, 220, 3), dtype=np.uint8)
    for color, (left, top, right, bottom) in zip(COLORS, BOXES.int().tolist(), strict=True):
        pixels[top:bottom, left:right] = color
    return Image.fromarray(pixels)


@pytest.fixture
def loaded(coco):
    return load_box_data(coco(), validation_fraction=0.2, test_fraction=0.2)


@pytest.fixture
def images(coco):
    """All scenes, as training reads them."""

    def make(settings=None, **options):
        data = load_box_data(coco(), validation_fraction=0.2, test_fraction=0)
        transform = BoxTransform(settings or BOX_AUGMENTATIONS["detr"], 96, *PLAIN)
        return BoxImages(data.train, transform, **options)

    return make


@pytest.mark.parametrize("name", ["detr", "light"])
@given(seed=st.integers(0, 10**6))
@example(seed=7200)  # of which a box ended 1e-14 pixels above the image
def test_boxes_stay_on_what_they_hold(name, seed):
    settings = BOX_AUGMENTATIONS[name].model_copy(update={"vertical_flip": 0.5, "color_jitter": 0.0})
    torch.manual_seed(seed)
    seen = BoxTransform(settings, 150, *PLAIN)(painted(), BOXES)
    height, width = seen.pixels.shape[1:]
    assert len(seen.boxes) == len(seen.kept)
    for box, row in zip(seen.boxes, seen.kept.tolist(), strict=True):
        inside = seen.pixels[row] > 0.5
        rows, columns = inside.any(dim=1).nonzero().flatten(), inside.any(dim=0).nonzero().flatten()
        if not len(rows):
            assert min(box[2] - box[0], box[3] - box[1]) < 2  # too thin a rest to be seen after resizing
            continue
        found = torch.tensor([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
        assert (found - box).abs().max() <= 1.5
        assert (box >= 0).all()
        assert (box <= torch.tensor([width, height] * 2)).all()
    # what is left out is nowhere to be seen, or in light augmentation by a quarter at most
    for row in set(range(3)) - set(seen.kept.tolist()):
        share = float((seen.pixels[row] > 0.5).sum()) / (height * width)
        assert share < (0.01 if name == "detr" else 0.25)


@given(seed=st.integers(0, 10**6), shortest=st.integers(48, 160))
def test_sizes_are_drawn_from_those_stated_and_shrink_with_the_model(seed, shortest):
    settings = BOX_AUGMENTATIONS["detr"].model_copy(update={"crop": 0.0})
    torch.manual_seed(seed)
    seen = BoxTransform(settings, shortest, *PLAIN)(painted(), BOXES)
    side, longer = sorted(seen.pixels.shape[1:])
    assert side in {round(side * shortest / 800) for side in settings.sides}
    assert longer == pytest.approx(side * 1.1, abs=1.2)
    torch.manual_seed(seed)
    long = BoxTransform(settings, shortest, *PLAIN)(Image.new("RGB", (1000, 100)), torch.zeros(0, 4))
    assert max(long.pixels.shape) <= round(1333 * shortest / 800)


def test_cuts_have_the_published_sizes():
    settings = BOX_AUGMENTATIONS["detr"].model_copy(update={"crop": 1.0, "crop_sides": (480,)})
    transform = BoxTransform(settings, 800, *PLAIN)
    parts = [transform.draw_view((480, 640), sample_generator(0, 1, 0, number)).part for number in range(60)]
    heights, widths = [part.height for part in parts], [part.width for part in parts]
    assert min(heights) >= 384
    assert min(widths) >= 384
    assert max(*heights, *widths) <= 600
    assert max(widths) > 560
    assert min(widths) < 420


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 2), (7, 5)])
@pytest.mark.parametrize("name", ["detr", "light"])
def test_tiny_and_very_long_images_pass(name, size):
    for seed in range(20):
        torch.manual_seed(seed)
        whole = torch.tensor([[0.0, 0, *size]])
        seen = BoxTransform(BOX_AUGMENTATIONS[name], 64, *PLAIN)(Image.new("RGB", size), whole)
        assert min(seen.pixels.shape) >= 1
        assert torch.isfinite(seen.boxes).all()


@pytest.mark.parametrize(
    "values", [{"sides": ()}, {"sides": (0,)}, {"horizontal_flip": 1.5}, {"crops": 1}, {"longest": 0}]
)
def test_wrong_settings_are_told(values):
    with pytest.raises(ValidationError, match=next(iter(values))):
        BoxAugmentation(**values)


def test_draws_depend_on_seed_epoch_and_place_alone(images):
    one, other = (images(BOX_AUGMENTATIONS["light"], seed=3) for _ in range(2))
    torch.manual_seed(9)
    before = torch.get_rng_state()
    first = one[SampleKey(2, 1, 5)]
    assert torch.equal(before, torch.get_rng_state())
    other[SampleKey(1, 0, 0)]
    second = other[SampleKey(2, 1, 5)]
    assert torch.equal(first["pixel_values"], second["pixel_values"])
    assert torch.equal(first["target"]["boxes"], second["target"]["boxes"])
    drawn = set()
    for seed in range(3):
        one.seed = seed
        samples = [one[SampleKey(2, epoch, place)] for epoch in range(3) for place in range(3)]
        drawn |= {tuple(sample["draws"].tolist()) for sample in samples}
    assert len(drawn) == 27


def test_loading_processes_change_nothing(images):
    keys = [[SampleKey(row, 0, row) for row in range(3)], [SampleKey(row, 0, row) for row in range(3, 6)]]
    jittered = BOX_AUGMENTATIONS["light"]
    alone, shared = (
        list(DataLoader(images(jittered), batch_sampler=keys, num_workers=n, collate_fn=collate_boxes)) for n in (0, 2)
    )
    for one, other in zip(alone, shared, strict=True):
        assert torch.equal(one["pixel_values"], other["pixel_values"])
        assert torch.equal(one["draws"], other["draws"])
        assert all(torch.equal(a["boxes"], b["boxes"]) for a, b in zip(one["labels"], other["labels"], strict=True))


def test_targets_are_the_same_alone_and_beside_larger_images(loaded, scenes):
    images = BoxImages(loaded.train, BoxEvaluationTransform(build_box_processor(64, 96)))
    together = collate_boxes([images[row] for row in range(len(images))])
    for row in range(len(images)):
        alone = collate_boxes([images[row]])
        target, own = together["labels"][row], alone["labels"][0]
        assert torch.equal(target["boxes"], own["boxes"])
        (width, height), objects = scenes[int(own["image_id"]) - 100]
        corners = torch.tensor([box for box, _ in objects], dtype=torch.float32).reshape(-1, 4)
        corners = corners / torch.tensor([width, height] * 2)
        middle = torch.cat([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], 1)
        torch.testing.assert_close(own["boxes"], middle)
        assert own["class_labels"].tolist() == [number for _, number in objects]
        assert own["class_labels"].dtype == torch.int64
        rows, columns = own["size"].tolist()
        mask = torch.zeros_like(together["pixel_mask"][row])
        mask[:rows, :columns] = 1
        assert torch.equal(together["pixel_mask"][row], mask)
        assert torch.equal(together["pixel_values"][row, :, :rows, :columns], alone["pixel_values"][0])
        assert not together["pixel_values"][row][:, mask == 0].any()


def test_evaluation_pads_as_the_saved_processor_does(loaded):
    processor = build_box_processor(64, 96)
    images = BoxImages(loaded.train, BoxEvaluationTransform(processor))
    stock = processor([decode_image(image) for image in loaded.train["image"]], return_tensors="pt")
    ours = images.finish(collate_boxes([images[row] for row in range(len(images))]))
    assert torch.equal(stock["pixel_values"], ours["pixel_values"])
    assert torch.equal(stock["pixel_mask"], ours["pixel_mask"])
    assert collate_boxes([images[0]], multiple_of=32)["pixel_values"].shape[-1] % 32 == 0
    assert box_pixels(processor)[:2] == (64, 96)


def test_crowds_are_not_learned(coco):
    data = load_box_data(coco(lambda c: c["annotations"][0].update(iscrowd=1)), validation_fraction=0.2)
    transform = BoxEvaluationTransform(build_box_processor(64, 96))
    for split in data.splits.values():
        for row, image_id in enumerate(split["image_id"]):
            if image_id == "100":
                assert BoxImages(split, transform)[row]["target"]["class_labels"].tolist() == [1]
                return
    pytest.fail("the image with the crowd is in no split")


def test_an_image_that_changed_after_it_was_checked_is_named(coco):
    file = coco()
    data = load_box_data(file, validation_fraction=0.2, test_fraction=0)
    images = BoxImages(data.train, BoxEvaluationTransform(build_box_processor(64, 96)))
    Image.new("RGB", (10, 10)).save(file.parent / "images" / "0.png")
    with pytest.raises(BadImageError, match=r"row 0 .*10 x 10 pixels, its boxes are for 64 x 48"):
        images[0]
    skipping = BoxImages(data.train, BoxTransform(BOX_AUGMENTATIONS["light"], 64, *PLAIN), skip_bad=True)
    sample = skipping[SampleKey(0, 0, 0)]
    assert int(sample["bad"]) == 0
    assert int(sample["index"]) != 0


@given(
    ratios=st.lists(st.sampled_from([0.5, 0.75, 1.0, 4 / 3, 2.0]), min_size=4, max_size=60),
    batch_size=st.integers(1, 4), seed=st.integers(0, 1000),
)  # fmt: skip
def test_grouped_batches_hold_every_image_at_most_once_and_leave_few_out(ratios, batch_size, seed):
    order = AspectGroupedOrder(ratios, batch_size, seed)
    for epoch in (0, 1):
        steps = range(epoch * order.steps_per_epoch, (epoch + 1) * order.steps_per_epoch)
        keys = [key for step in steps for key in order.batch(step)]
        rows = [key.index for key in keys]
        assert len(set(rows)) == len(rows) > len(ratios) - batch_size
        assert [key.position for key in keys] == list(range(len(keys)))
    again = AspectGroupedOrder(ratios, batch_size, seed)
    assert [k.index for k in again.batch(order.steps_per_epoch)] == [
        k.index for k in order.batch(order.steps_per_epoch)
    ]


def test_grouped_batches_are_padded_less_and_differ_from_epoch_to_epoch():
    ratios = np.random.default_rng(0).uniform(0.4, 2.5, 400).tolist()
    grouped, plain = AspectGroupedOrder(ratios, 8, 0), TrainingOrder(400, 8, 0)

    def spread(order):
        batches = [[ratios[key.index] for key in order.batch(step)] for step in range(order.steps_per_epoch)]
        return np.mean([max(batch) / min(batch) for batch in batches])

    assert spread(grouped) < 0.55 * spread(plain)
    first = [{key.index for key in grouped.batch(step)} for step in (0, grouped.steps_per_epoch)]
    assert first[0] != first[1]
    left_out = [
        set(range(397)) - {key.index for step in range(49) for key in order.batch(epoch * 49 + step)}
        for order in [AspectGroupedOrder(ratios[:397], 8, 0)]
        for epoch in range(12)
    ]
    assert len(set.union(*left_out)) > 40  # not always those of one shape


def test_a_batch_can_be_looked_at(loaded):
    assert isinstance(loaded, BoxData)
    picture = augmented_picture(loaded.train, loaded.classes.names, BOX_AUGMENTATIONS["detr"], shortest=96, count=4)
    colors = {tuple(pixel) for pixel in np.asarray(picture).reshape(-1, 3)}
    assert {(0xE6, 0x9F, 0x00), (0x56, 0xB4, 0xE9)} <= colors
