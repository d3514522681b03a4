"""Boxes in two forms, and how far two lie apart."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import generalized_box_iou
from vithub.modeling.box_geometry import center_to_corners, corners_to_center, generalized_iou, l1_distance, logit

edges = st.integers(0, 16).map(lambda n: n / 16)


@st.composite
def corner_boxes(draw):
    (left, right), (top, bottom) = (sorted((draw(edges), draw(edges))) for _ in range(2))
    return [left, top, right, bottom]


@given(st.lists(corner_boxes(), min_size=1, max_size=6))
def test_the_two_forms_are_inverse(boxes):
    corners = torch.tensor(boxes)
    assert torch.allclose(center_to_corners(corners_to_center(corners)), corners, atol=1e-7)


@given(st.lists(corner_boxes(), min_size=1, max_size=5), st.lists(corner_boxes(), min_size=1, max_size=5))
def test_overlap_is_torchvisions_where_boxes_have_an_area(first, second):
    first, second = torch.tensor(first, dtype=torch.float64), torch.tensor(second, dtype=torch.float64)
    got = generalized_iou(first[:, None], second[None])
    expected = generalized_box_iou(first, second)
    assert ((got >= -1) & (got <= 1)).all()
    defined = expected.isfinite()
    assert torch.allclose(got[defined], expected[defined], atol=1e-12)


def test_a_box_without_area_has_a_finite_overlap_and_gradient():
    point = torch.tensor([0.3, 0.3, 0.3, 0.3], requires_grad=True)
    overlap = generalized_iou(point, torch.tensor([0.3, 0.3, 0.3, 0.3]))
    overlap.backward()
    assert overlap.item() == 0
    assert point.grad.isfinite().all()


def test_half_precision_boxes_are_compared_in_single():
    box = torch.tensor([0.0, 0.0, 0.001, 0.001], dtype=torch.float16)  # whose area is below the smallest fp16
    assert generalized_iou(box, box).item() == 1


def test_distance_and_logit():
    assert l1_distance(torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.zeros(4)).item() == torch.tensor(1.0).item()
    assert logit(torch.tensor([0.0, 0.5, 1.0])).isfinite().all()
    assert math.isclose(logit(torch.tensor(0.25)).sigmoid().item(), 0.25, rel_tol=1e-6)
