"""Maps of known place against masks and boxes."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from vithub.interpretability.faithfulness.localisation import box_iou, box_masks, map_box, mask_iou, pointing_game


def object_at(top=2, left=3, bottom=6, right=9, height=10, width=12):
    mask = torch.zeros(1, height, width, dtype=torch.bool)
    mask[0, top:bottom, left:right] = True
    return mask


def test_a_map_that_is_the_mask_is_perfect():
    mask = object_at()
    box = [torch.tensor([[3.0, 2.0, 9.0, 6.0]])]
    assert torch.equal(box_masks(box, (10, 12)), mask)
    assert pointing_game(mask.float(), mask).item() == 1
    assert mask_iou(mask.float(), mask).item() == 1
    assert box_iou(mask.float(), box).item() == 1


def test_a_map_beside_the_object_is_nothing_worth():
    mask = object_at()
    other = object_at(top=7, bottom=9, left=0, right=2).float()
    assert pointing_game(other, mask).item() == 0
    assert pointing_game(other, mask, tolerance=2).item() == pytest.approx(1 / 4)  # the pixel of row 7, column 1
    assert box_iou(other, [torch.tensor([[3.0, 2.0, 9.0, 6.0]])]).item() == 0


@given(shift=st.integers(0, 6))
def test_a_shifted_map_has_the_overlap_of_two_rectangles(shift):
    mask = object_at(left=0, right=6)
    shifted = object_at(left=shift, right=6 + shift).float()
    expected = 4 * (6 - shift) / (48 - 4 * (6 - shift))
    assert mask_iou(shifted, mask).item() == pytest.approx(expected)
    assert box_iou(shifted, [torch.tensor([[0.0, 2.0, 6.0, 6.0]])]).item() == pytest.approx(expected)


@given(scale=st.floats(0.1, 10), seed=st.integers(0, 99))
def test_scale_does_not_matter(scale, seed):
    maps = torch.rand(3, 10, 12, generator=torch.Generator().manual_seed(seed))
    masks = object_at().repeat(3, 1, 1)
    assert torch.equal(mask_iou(maps, masks), mask_iou(scale * maps, masks))
    assert torch.equal(pointing_game(maps, masks), pointing_game(scale * maps, masks))


def test_the_largest_connected_part_makes_the_box():
    values = torch.zeros(10, 12)
    values[1:3, 1:3] = 1.0
    values[5:9, 4:10] = 0.5
    values[5:9, 11] = 0.1  # below the threshold
    assert map_box(values, 0.2) == [4, 5, 10, 9]
    assert map_box(values, 0.7) == [1, 1, 3, 3]
    assert map_box(-values, 0.2) == [0, 0, 12, 10]
    boxes = [torch.tensor([[0.0, 0.0, 1.0, 1.0], [4.0, 5.0, 10.0, 9.0]])]
    assert box_iou(values[None], boxes).item() == 1, "the box that fits best counts"


def test_images_without_an_object_have_no_figure():
    maps = torch.rand(2, 4, 4)
    assert mask_iou(maps, torch.zeros(2, 4, 4, dtype=torch.bool)).isnan().all()
    assert box_iou(maps, [torch.zeros(0, 4)] * 2).isnan().all()


def test_an_even_map_points_by_chance():
    assert pointing_game(torch.ones(1, 10, 12), object_at()).item() == pytest.approx(24 / 120)


def test_masks_must_be_bool_and_fit():
    with pytest.raises(ValueError, match=r"bool and of the maps' shape \(1, 4, 4\), got torch.float32"):
        mask_iou(torch.rand(1, 4, 4), torch.ones(1, 4, 4))
    with pytest.raises(ValueError, match="boxes for each of 2 maps, got 1"):
        box_iou(torch.rand(2, 4, 4), [torch.zeros(0, 4)])
    assert np.isnan(box_iou(torch.rand(1, 4, 4), [torch.zeros(0, 4)]).item())
