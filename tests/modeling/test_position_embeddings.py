import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.layers import build_sincos2d_pos_embed, resample_abs_pos_embed, resample_patch_embed
from transformers import ViTConfig, ViTModel
from vithub.modeling.position_embeddings import (
    resample_patch_projection,
    resample_position_embeddings,
    sincos_position_embeddings,
)

SIDES = st.integers(1, 9)


@given(width=st.sampled_from([4, 8, 32]), rows=SIDES, columns=SIDES)
def test_sincos_is_that_of_timm_in_the_order_of_mae(width, rows, columns):
    # timm: sin of row, sin of column, cos of row, cos of column; MAE: sin and cos of column, sin and cos of row
    quarters = build_sincos2d_pos_embed([rows, columns], dim=width).view(rows * columns, 4, width // 4)
    expected = quarters[:, [1, 3, 0, 2]].flatten(1)
    torch.testing.assert_close(sincos_position_embeddings(width, rows, columns), expected, atol=1e-5, rtol=1e-4)


def test_sincos_of_a_rectangle_is_cut_from_that_of_a_square():
    square = sincos_position_embeddings(16, 6, 6).view(6, 6, 16)
    torch.testing.assert_close(sincos_position_embeddings(16, 4, 6).view(4, 6, 16), square[:4])


@given(old=st.tuples(SIDES, SIDES), new=st.tuples(SIDES, SIDES), prefix=st.integers(0, 2))
def test_antialiased_resampling_is_that_of_timm(old, new, prefix):
    embeddings = torch.randn(1, prefix + old[0] * old[1], 4)
    got = resample_position_embeddings(embeddings, prefix, old, new, "bicubic_antialias")
    expected = resample_abs_pos_embed(embeddings, new_size=new, old_size=old, num_prefix_tokens=prefix)
    torch.testing.assert_close(got, expected)


def test_plain_resampling_is_that_of_transformers():
    native = ViTModel(ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, image_size=32, patch_size=8))
    stored = native.embeddings.position_embeddings.detach()
    expected = native.embeddings.interpolate_pos_encoding(torch.zeros(1, 1 + 6 * 3, 8), 48, 24)
    got = resample_position_embeddings(stored, 1, (4, 4), (6, 3), "bicubic")
    torch.testing.assert_close(got, expected)
    antialiased = resample_position_embeddings(stored, 1, (4, 4), (6, 3), "bicubic_antialias")
    assert not torch.allclose(antialiased, expected, atol=1e-4)


def test_half_precision_is_resampled_in_fp32():
    embeddings = torch.randn(1, 16, 4)
    exact = resample_position_embeddings(embeddings.half().float(), 0, (4, 4), (7, 5), "bicubic")
    half = resample_position_embeddings(embeddings.half(), 0, (4, 4), (7, 5), "bicubic")
    assert half.dtype == torch.float16
    assert torch.equal(half, exact.half())


@pytest.mark.parametrize(("old", "new"), [((8, 8), (12, 12)), ((8, 8), (5, 5)), ((4, 6), (7, 3))])
def test_patch_projections_are_resampled_as_timm_does(old, new):
    weight = torch.randn(5, 3 * old[0] * old[1])
    expected = resample_patch_embed(weight.view(5, 3, *old), list(new)).flatten(1)
    torch.testing.assert_close(resample_patch_projection(weight, old, new), expected, atol=1e-4, rtol=1e-3)


def test_a_larger_patch_gives_the_same_token_for_the_enlarged_image():
    weight, patch = torch.randn(3, 16), torch.randn(1, 1, 4, 4)
    larger = torch.nn.functional.interpolate(patch, size=(9, 9), mode="bicubic", antialias=True)
    resampled = resample_patch_projection(weight, (4, 4), (9, 9))
    torch.testing.assert_close(resampled @ larger.flatten(), weight @ patch.flatten(), atol=1e-5, rtol=1e-4)
