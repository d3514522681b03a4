"""Position embeddings and patch filters of every library's models, and what is known of both."""

import numpy as np
import pytest
import timm
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from transformers import DeiTConfig, DeiTModel, Dinov2Config, Dinov2Model, ViTConfig, ViTModel
from vithub.interpretability.analysis.embedding_tables import position_table

import vithub

SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}


def test_fixed_positions_have_the_cosines_of_their_formula(tiny):
    # sin^2 + cos^2 of each frequency: the scalar product depends on the offset alone, sum_k cos(w_k d).
    found = vithub.position_similarity(
        vithub.HubViTModel(tiny(position_embedding_type="sincos", image_size=(40, 24), hidden_size=64))
    )
    assert found.grid == (5, 3)
    omega = 10000.0 ** (-np.arange(16) / 16)
    for y, x, other_y, other_x in [(0, 0, 0, 0), (0, 1, 4, 2), (3, 0, 1, 2)]:
        expected = (np.cos(omega * (y - other_y)).sum() + np.cos(omega * (x - other_x)).sum()) / 32
        assert found.similarity[y, x, other_y, other_x] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("prefix", ["cls", "registers", "none"])
def test_prefix_tokens_are_left_out(prefix, tiny, randomised):
    fields = {"cls": {}, "registers": {"num_register_tokens": 3}, "none": {"use_cls_token": False, "pool": "mean"}}
    model = randomised(vithub.HubViTModel(tiny(image_size=(16, 32), **fields[prefix])))
    found = vithub.position_similarity(model)
    table = model.embeddings.position_embeddings.detach()[0, model.config.num_position_prefix :]
    assert found.num_prefix == model.config.num_position_prefix
    cosine = torch.nn.functional.cosine_similarity(table[None, :], table[:, None], dim=-1)
    np.testing.assert_allclose(found.similarity.reshape(8, 8), cosine, atol=1e-5)


@given(seed=st.integers(0, 99), scale=st.floats(0.1, 10))
def test_it_is_symmetric_one_with_itself_and_blind_to_length(seed, scale):
    torch.manual_seed(seed)
    model = vithub.HubViTModel(vithub.HubViTConfig(**SMALL, image_size=32, patch_size=8))
    before = vithub.position_similarity(model).similarity.reshape(16, 16)
    with torch.no_grad():
        model.embeddings.position_embeddings.mul_(scale)
    after = vithub.position_similarity(model).similarity.reshape(16, 16)
    np.testing.assert_allclose(after, before, atol=1e-6)
    np.testing.assert_allclose(before, before.T)
    np.testing.assert_allclose(np.diag(before), 1, rtol=1e-9)


FOREIGN = {
    "vit": (1, lambda: ViTModel(ViTConfig(**SMALL, image_size=32, patch_size=8))),
    "deit": (2, lambda: DeiTModel(DeiTConfig(**SMALL, image_size=32, patch_size=8))),
    "dinov2": (1, lambda: Dinov2Model(Dinov2Config(**SMALL, image_size=32, patch_size=8))),
    "timm": (1, lambda: timm.create_model("vit_small_patch8_224", img_size=32, depth=1)),
    "timm with registers": (
        0,
        lambda: timm.create_model("vit_small_patch8_224", img_size=32, depth=1, no_embed_class=True, reg_tokens=4),
    ),
    "torchvision": (1, lambda: torchvision.models.VisionTransformer(32, 8, 1, 4, 32, 64)),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_tables_of_other_libraries_are_found(name):
    prefix, make = FOREIGN[name]
    model = make()
    table, found = position_table(model)
    assert table.shape[:2] == (4, 4)
    assert found == prefix
    assert vithub.patch_filters(model).filters.shape[1:] == (3, 8, 8)


def test_what_has_no_positions_says_so(tiny):
    with pytest.raises(ValueError, match="ResNet has no table of absolute position embeddings"):
        vithub.position_similarity(timm.create_model("resnet18"))
    model = vithub.HubViTModel(tiny())
    with torch.no_grad():
        model.embeddings.position_embeddings[0, 1 + 6] = 0
    with pytest.raises(ValueError, match="row 1, column 2 is all zeros"):
        vithub.position_similarity(model)


def test_filters_of_known_rank_have_that_many_components(tiny):
    model = vithub.HubViTModel(tiny())
    patterns = torch.linalg.qr(torch.randn(192, 3, generator=torch.Generator().manual_seed(1)))[0]  # (C * 8 * 8, 3)
    mixing = torch.linalg.qr(torch.randn(32, 4, generator=torch.Generator().manual_seed(2)))[0]
    mixing = mixing[:, 1:] - mixing[:, 1:].mean(dim=0)
    with torch.no_grad():
        model.embeddings.patch_embeddings.weight.copy_((mixing * torch.tensor([9.0, 3.0, 1.0])) @ patterns.T)
    found = vithub.patch_filters(model)
    assert found.shares[:3].sum() == pytest.approx(1)
    spanned = found.components[:3].reshape(3, -1) @ patterns.double().numpy()
    np.testing.assert_allclose(spanned @ spanned.T, np.eye(3), atol=1e-5)  # the same space
    assert 1 < found.effective_rank < 3


@given(seed=st.integers(0, 50))
def test_components_are_orthonormal_and_rebuild_the_filters(seed):
    torch.manual_seed(seed)
    found = vithub.patch_filters(vithub.HubViTModel(vithub.HubViTConfig(**SMALL, image_size=16, patch_size=4)))
    flat = found.components.reshape(len(found.components), -1)
    np.testing.assert_allclose(flat @ flat.T, np.eye(len(flat)), atol=1e-8)
    centred = found.filters.reshape(32, -1) - found.filters.reshape(32, -1).mean(axis=0)
    np.testing.assert_allclose(centred @ flat.T @ flat, centred, atol=1e-8)
    assert (np.diff(found.shares) <= 1e-12).all()
    assert found.shares.sum() == pytest.approx(1)
    assert (flat[np.arange(len(flat)), np.abs(flat).argmax(axis=1)] > 0).all()


def test_tables_and_pictures(tmp_path, tiny):
    model = vithub.HubViTModel(tiny(num_channels=4, image_size=(96, 72)))
    positions, filters = vithub.position_similarity(model), vithub.patch_filters(model)
    table = positions.to_dataframe()
    row = table[(table.row == 5) & (table.column == 2) & (table.other_row == 11) & (table.other_column == 8)]
    assert row.cosine.item() == positions.similarity[5, 2, 11, 8]
    assert filters.to_dataframe().cumulative_share.iloc[-1] == pytest.approx(1)
    for theme in ("light", "dark"):
        positions.save(tmp_path / f"positions_{theme}.png", theme=theme)
        filters.save(tmp_path / f"filters_{theme}.png", theme=theme)
    assert len(list(tmp_path.iterdir())) == 4


def test_a_trained_vit_knows_where_its_patches_lie(real_files):
    model = vithub.load(real_files / "weights" / "vit_small_patch14", task="backbone")
    found = vithub.position_similarity(model)
    rows, columns = found.grid
    beside = np.array(
        [found.similarity[row, column, row, column + 1] for row in range(rows) for column in range(columns - 1)]
    )
    below = np.array(
        [found.similarity[row, column, row + 1, column] for row in range(rows - 1) for column in range(columns)]
    )
    everywhere = found.similarity.mean()
    assert min(beside.mean(), below.mean()) > everywhere + 0.3
    assert vithub.patch_filters(model).effective_rank < 0.7 * 384
