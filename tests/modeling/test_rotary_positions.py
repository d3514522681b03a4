import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import DINOv3ViTConfig, DINOv3ViTModel
from vithub.modeling.rotary_positions import patch_coordinates, rotary_angles, rotate, vary_coordinates

import vithub

GRIDS = st.integers(1, 6)


def config_of(**fields):
    return vithub.HubViTConfig(
        hidden_size=32, num_attention_heads=4, num_hidden_layers=1, image_size=32, patch_size=8,
        position_embedding_type="rotary", **fields,
    )  # fmt: skip


@given(GRIDS, GRIDS)
def test_angles_are_those_of_transformers_dinov3(rows, columns):
    native = DINOv3ViTModel(
        DINOv3ViTConfig(hidden_size=32, num_attention_heads=4, num_hidden_layers=1, image_size=32, patch_size=8)
    ).eval()
    theirs = native.rope_embeddings(torch.zeros(1, 3, 8 * rows, 8 * columns))
    for ours, other in zip(rotary_angles(config_of(), rows, columns, torch.device("cpu"), False), theirs, strict=True):
        torch.testing.assert_close(ours, other)


@given(GRIDS, GRIDS, st.integers(0, 2**31))
def test_products_depend_on_the_offset_between_patches_only(rows, columns, seed):
    """The same query and key everywhere: equal offsets give equal scores."""
    generator = torch.Generator().manual_seed(seed)
    query, key = (torch.randn(1, 1, 1, 8, generator=generator) for _ in range(2))
    rotary = rotary_angles(config_of(), rows, columns, torch.device("cpu"), False)
    turned = [rotate(states.expand(1, 1, rows * columns, 8), rotary)[0, 0] for states in (query, key)]
    scores = (turned[0] @ turned[1].T).view(rows, columns, rows, columns)
    if rows > 1:
        torch.testing.assert_close(scores[:-1, :, :-1], scores[1:, :, 1:], atol=1e-4, rtol=1e-4)
    if columns > 1:
        torch.testing.assert_close(scores[:, :-1, :, :-1], scores[:, 1:, :, 1:], atol=1e-4, rtol=1e-4)


def test_turning_keeps_lengths_and_the_tokens_before_the_patches():
    states = torch.randn(2, 3, 9, 8, generator=torch.Generator().manual_seed(0))
    turned = rotate(states, rotary_angles(config_of(), 2, 3, torch.device("cpu"), False))
    assert torch.equal(turned[:, :, :3], states[:, :, :3])
    assert not torch.allclose(turned[:, :, 3:], states[:, :, 3:])
    torch.testing.assert_close(turned.norm(dim=-1), states.norm(dim=-1))


@given(st.integers(0, 2**31))
def test_coordinates_vary_within_their_limits_and_by_the_seed_alone(seed):
    config = config_of(rotary_shift=0.25, rotary_jitter=1.5, rotary_rescale=2.0)
    plain = patch_coordinates(3, 4, torch.device("cpu"))

    def varied(**fields):
        torch.manual_seed(seed)
        return vary_coordinates(plain, config_of(**fields))

    shift = varied(rotary_shift=0.25) - plain
    assert (shift.abs() <= 0.25).all()
    torch.testing.assert_close(shift, shift[:1].expand_as(shift))
    jitter = varied(rotary_jitter=1.5) / plain.where(plain != 0, torch.tensor(math.nan))
    assert jitter.nan_to_num(1.0).log().abs().max() <= math.log(1.5) + 1e-5
    scale = varied(rotary_rescale=2.0) / plain.where(plain != 0, torch.tensor(math.nan))
    assert scale.nan_to_num(1.0).log().abs().max() <= math.log(2) + 1e-5
    assert scale.nan_to_num(float(scale[0, 0])).std() < 1e-4
    torch.manual_seed(seed)
    whole = vary_coordinates(plain, config)
    torch.manual_seed(seed)
    assert torch.equal(vary_coordinates(plain, config), whole)


@pytest.mark.parametrize("training", [False, True])
def test_positions_vary_in_training_only(training):
    model = vithub.HubViTModel(config_of(rotary_rescale=2.0)).train(training)
    pixels = torch.randn(1, 3, 32, 32)
    first, second = (model(pixels).last_hidden_state for _ in range(2))
    assert torch.equal(first, second) != training


def test_any_size_works_and_another_patch_size_has_the_positions_of_its_grid():
    model = vithub.HubViTModel(config_of()).eval()
    assert model(torch.randn(1, 3, 24, 40)).last_hidden_state.shape == (1, 1 + 15, 32)
    model.set_input_size(image_size=(48, 64), patch_size=16)
    assert model.embeddings.position_embeddings is None
    assert model(torch.randn(1, 3, 48, 64)).last_hidden_state.shape == (1, 1 + 12, 32)
