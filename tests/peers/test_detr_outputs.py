"""Outputs of our detectors beside those of transformers' DETR with the same weights: names, order, values."""

from dataclasses import fields

import pytest
import torch
from transformers.models.detr.modeling_detr import DetrModelOutput, DetrObjectDetectionOutput
from vithub.hub.conversion.detr_checkpoints import detr_to_transformers
from vithub.modeling.modeling_detr import HubDetrModelOutput, HubDetrObjectDetectionOutput

import vithub

NEVER = "past_key_values"  # of text decoders


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(HubDetrModelOutput, DetrModelOutput), (HubDetrObjectDetectionOutput, DetrObjectDetectionOutput)],
)
def test_fields_come_in_the_order_of_transformers(ours, theirs):
    expected = [field.name for field in fields(theirs) if field.name != NEVER]
    assert [field.name for field in fields(ours)][: len(expected)] == expected


@pytest.fixture
def pair(tiny_detr, randomised):
    torch.manual_seed(0)
    ours = randomised(vithub.HubDetrForObjectDetection(tiny_detr(auxiliary_loss=False))).eval()
    return ours, detr_to_transformers(ours).eval()


@pytest.mark.parametrize("bare", [False, True], ids=["detector", "bare"])
@pytest.mark.parametrize("options", [{}, {"output_hidden_states": True}, {"output_attentions": True}], ids=str)
def test_values_are_those_of_transformers_field_by_field(pair, bare, options):
    ours, native = (model.double() for model in pair)  # apart by more than fp32 rounds, where anything differs
    ours, native = (ours.detr, native.model) if bare else (ours, native)
    native.set_attn_implementation({"": "eager"})
    pixels = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mask = torch.ones(2, 64, 96, dtype=torch.int64)
    mask[1, :, 70:] = 0
    with torch.no_grad():
        got, expected = ours(pixels, mask, **options), native(pixels, mask, **options)
        as_tuple = ours(pixels, mask, **options, return_dict=False)
    assert list(got) == list(expected)
    assert len(as_tuple) == len(expected)
    for name in expected:
        pairs = zip(flat(got[name]), flat(expected[name]), strict=True)
        for place, (one, other) in enumerate(pairs):
            torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5, msg=lambda m, n=name, p=place: f"{n} {p}: {m}")
    assert got.feature_size == (2, 3)


def flat(value):
    return list(value) if isinstance(value, tuple) else [value]


def test_the_loss_of_labels_is_that_of_transformers(pair):
    ours, native = pair
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    labels = [
        {"class_labels": torch.tensor([0, 2]), "boxes": torch.tensor([[0.5, 0.5, 0.2, 0.2], [0.3, 0.3, 0.1, 0.4]])},
        {"class_labels": torch.tensor([1]), "boxes": torch.tensor([[0.5, 0.5, 1.0, 1.0]])},
    ]
    with torch.no_grad():
        got, expected = ours(pixels, labels=labels), native(pixels, labels=labels)
    torch.testing.assert_close(got.loss, expected.loss, atol=1e-5, rtol=1e-5)
    for name, value in got.loss_dict.items():
        torch.testing.assert_close(value, expected.loss_dict[name], atol=1e-5, rtol=1e-5)
    assert set(expected.loss_dict) - set(got.loss_dict) == {"cardinality_error"}
    assert list(got) == list(expected)


def test_both_are_encoder_decoders(pair):
    ours, native = pair
    assert ours.config.is_encoder_decoder is native.config.is_encoder_decoder is True
    assert ours.config.keys_to_ignore_at_inference == native.config.keys_to_ignore_at_inference


def test_a_box_that_leaves_the_image_is_refused_and_one_at_the_edge_is_not(pair):
    ours, _ = pair
    pixels = torch.zeros(1, 3, 64, 64)

    def loss(box):
        return ours(pixels, labels=[{"class_labels": torch.tensor([0]), "boxes": torch.tensor([box])}]).loss

    with pytest.raises(ValueError, match=r"image 0, box 0: `boxes`.*within \[0, 1\].*\[1.0, 1.0, 1.0, 1.0\].*cut"):
        loss([1.0, 1.0, 1.0, 1.0])
    for box in ([0.5, 0.5, 1.0, 1.0], [0.75, 0.75, 0.5, 0.5], [1.0 - 1e-4, 0.5, 2e-4, 1.0]):
        assert torch.isfinite(loss(box))
