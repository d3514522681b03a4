"""The controls: networks of which it is known how they take a moving image."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from vithub.comparison.receptive_field import effective_receptive_field
from vithub.comparison.shift_consistency import (
    circular_shifts,
    crop_consistency,
    equivariance_error,
    one_pixel_jaggedness,
    shift_grid,
)

from vithub import HubViTForImageClassification

EVERY_SHIFT = shift_grid((8, 8), 1)


def photos(count=12, side=32, seed=0):
    """Smooth random pictures with a few edges, as photos have."""
    generator = torch.Generator().manual_seed(seed)
    coarse = functional.interpolate(torch.randn(count, 3, 6, 6, generator=generator), side, mode="bicubic")
    return coarse + 0.5 * torch.randn(count, 3, side, side, generator=generator)


def circular_cnn(stride=1, blurred=False):
    """A CNN that wraps round and pools globally; with a stride it subsamples, anti-aliased if `blurred`."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 3, padding=1, padding_mode="circular"), nn.ReLU()]
    if blurred:
        blur = nn.Conv2d(16, 16, 5, padding=2, padding_mode="circular", groups=16, bias=False)
        row = torch.tensor([1.0, 4, 6, 4, 1]) / 16
        blur.weight.data = (row[:, None] * row).expand(16, 1, 5, 5).clone()
        layers.append(blur)
    layers += [nn.MaxPool2d(1, stride), nn.Conv2d(16, 16, 3, padding=1, padding_mode="circular"), nn.ReLU()]
    body, head = nn.Sequential(*layers).eval(), nn.Linear(16, 5, bias=False)
    with torch.no_grad():  # features of one scale, so that every class is the answer for some image
        pooled = body(photos(100, seed=1)).mean((2, 3))
    return body, lambda pixels: head((body(pixels).mean((2, 3)) - pooled.mean(0)) / pooled.std(0).clamp(min=1e-3)) * 3


def vit_without_positions(tiny):
    config = tiny(position_embedding_type="sincos", pool="mean")
    torch.manual_seed(1)
    model = HubViTForImageClassification(config).eval()
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if "position" in name:
                tensor.zero_()
            elif tensor.dim() == 2:
                tensor.normal_(0, 0.2)
    return lambda pixels: model(pixels).logits * 20


@torch.no_grad()
def test_a_circular_stride_1_cnn_with_global_pooling_is_fully_consistent():
    _, logits = circular_cnn()
    answers, same = circular_shifts(logits, photos(), EVERY_SHIFT)
    assert answers.agreement.eq(1).all()
    assert same.all()
    assert answers.distance.max() < 1e-5


@torch.no_grad()
def test_a_vit_without_positions_is_consistent_at_whole_patches_and_not_between(tiny):
    logits = vit_without_positions(tiny)
    whole, _ = circular_shifts(logits, photos(), shift_grid((32, 32), 8))
    assert whole.agreement.eq(1).all()
    between, same = circular_shifts(logits, photos(), EVERY_SHIFT[1:])
    assert between.agreement.mean() < 0.95
    assert between.distance.min() > 10 * whole.distance.max()
    assert same.shape == (12, 63)


@torch.no_grad()
def test_anti_aliased_pooling_beats_plain():
    images = photos(40)
    plain, _ = circular_shifts(circular_cnn(stride=4)[1], images, EVERY_SHIFT[1:])
    blurred, _ = circular_shifts(circular_cnn(stride=4, blurred=True)[1], images, EVERY_SHIFT[1:])
    assert blurred.agreement.mean() > plain.agreement.mean() + 0.02
    assert blurred.distance.mean() < plain.distance.mean()


@torch.no_grad()
def test_equivariance_is_exact_at_whole_cells_and_known_between():
    body, _ = circular_cnn()
    images = photos(4)
    assert equivariance_error(body, images, (3, 5)).max() < 1e-5
    pooled = lambda pixels: functional.avg_pool2d(pixels, 4)  # noqa: E731
    assert equivariance_error(pooled, images, (4, 8)).max() < 1e-5
    assert equivariance_error(pooled, images, (2, 0)).min() > 0.01
    ramp = lambda pixels: pixels[:, :, ::2, ::2]  # noqa: E731
    assert equivariance_error(ramp, images, (1, 1)).min() > equivariance_error(pooled, images, (2, 2)).max()


@torch.no_grad()
def test_answers_that_alternate_flip_at_every_pixel():
    """A model that reads the parity of one edge's place flips at each step, and a constant one never."""
    images = torch.zeros(2, 3, 40, 40)
    images[:, :, :, 20:] = 1

    def parity(pixels):
        place = pixels[:, 0, 0].argmax(-1) % 2
        return functional.one_hot(place, 2).float() * 10

    jagged = one_pixel_jaggedness(parity, images, (32, 32), steps=6)
    assert jagged.agreement.eq(0).all()
    assert jagged.pairs == 6
    assert one_pixel_jaggedness(lambda pixels: torch.ones(2, 3), images, (32, 32), steps=6).agreement.eq(1).all()


@given(pairs=st.integers(1, 4), seed=st.integers(0, 100))
def test_crops_are_the_same_for_every_model_and_the_measures_bounded(pairs, seed):
    images, seen = photos(3, side=40), []

    def logits(pixels):
        seen.append(pixels)
        return pixels.mean((2, 3)) * 5

    answers = crop_consistency(logits, images, (32, 32), pairs, seed)
    again = crop_consistency(logits, images, (32, 32), pairs, seed)
    assert all(torch.equal(a, b) for a, b in zip(seen[: 2 * pairs], seen[2 * pairs :], strict=True))
    assert torch.equal(answers.agreement, again.agreement)
    assert ((answers.agreement >= 0) & (answers.agreement <= 1) & (answers.distance <= 1)).all()
    for pixels in seen:
        windows = images.unfold(2, 32, 1).unfold(3, 32, 1)  # (3, 3, 9, 9, 32, 32)
        assert (windows == pixels[:, :, None, None]).flatten(4).all(-1).all(1).flatten(1).any(1).all()


def test_answers_that_are_no_numbers_are_refused_and_not_found_consistent():
    with pytest.raises(ValueError, match="the model's logits are not finite for 2 of 2 images"):
        circular_shifts(lambda pixels: torch.full((2, 3), torch.nan), photos(2), [(1, 0)])


def test_images_without_room_to_move_are_refused():
    with pytest.raises(ValueError, match=r"crops of \(32, 32\) pixels need larger images"):
        crop_consistency(lambda pixels: pixels, photos(2), (32, 32), 1, 0)
    with pytest.raises(ValueError, match=r"9 steps of one pixel need as much room beside the crop, got \(8, 8\)"):
        one_pixel_jaggedness(lambda pixels: pixels, photos(2, side=40), (32, 32), 9)


def test_the_receptive_field_of_a_box_filter_is_the_box():
    box = nn.Conv2d(3, 4, 7, padding=3)
    nn.init.ones_(box.weight)
    field = effective_receptive_field(box, photos(2, side=33))
    inside = torch.zeros(33, 33)
    inside[13:20, 13:20] = 1 / 49
    torch.testing.assert_close(field.influence, inside, rtol=1e-4, atol=1e-7)
    assert field.rms == pytest.approx(8**0.5, rel=1e-4)  # two directions of (9 + 4 + 1) * 2 / 7
    assert field.radius == pytest.approx(8**0.5, rel=1e-4)


def test_deeper_convolutions_look_further_and_a_constant_is_refused():
    def stack(depth):
        torch.manual_seed(0)
        return nn.Sequential(*[nn.Conv2d(3, 3, 3, padding=1) for _ in range(depth)])

    images = photos(2, side=33)
    radii = [effective_receptive_field(stack(depth), images).rms for depth in (1, 3, 6)]
    assert radii == sorted(radii)
    with pytest.raises(ValueError, match="depends on no pixel"):
        effective_receptive_field(lambda pixels: torch.ones(2, 4, 3, 3), images)
