"""Position embeddings: fixed sine-cosine ones, and resampling of stored ones and of the patch projection."""

import torch
from torch import nn


def sincos_position_embeddings(width: int, rows: int, columns: int) -> torch.Tensor:
    """Fixed 2D sine-cosine embeddings (MoCo v3, https://arxiv.org/abs/2104.02057, as MAE uses them).

    Returns (rows * columns, width), fp32 in [-1, 1]: a quarter each of sin and cos of the column, then of the row,
    at the frequencies 10000^(-4 k / width).
    """
    omega = 10000.0 ** (-torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    row, column = torch.meshgrid(
        torch.arange(rows, dtype=torch.float64), torch.arange(columns, dtype=torch.float64), indexing="ij"
    )
    angles = [position.reshape(-1, 1) * omega for position in (column, row)]  # (rows * columns, width / 4) each
    return torch.cat([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], dim=1).float()


def resample_position_embeddings(
    embeddings: torch.Tensor, num_prefix: int, old_grid: tuple[int, int], new_grid: tuple[int, int], method: str
) -> torch.Tensor:
    """Resamples learned position embeddings to another grid, by bicubic interpolation in fp32.

    Args:
        embeddings: Embeddings (1, num_prefix + rows * columns, D); the prefix rows are not changed.
        num_prefix: Number of leading rows that belong to no patch.
        old_grid: Patch grid (rows, columns) of `embeddings`.
        new_grid: Patch grid (rows, columns) of the result.
        method: Interpolation, "bicubic_antialias" or "bicubic".

    Returns:
        Embeddings (1, num_prefix + new rows * new columns, D) in the dtype of `embeddings`; the tensor itself where
        the grids are equal.
    """
    if old_grid == new_grid:
        return embeddings
    prefix, patches = embeddings[:, :num_prefix], embeddings[:, num_prefix:]
    patches = patches.reshape(1, *old_grid, -1).permute(0, 3, 1, 2).float()  # (1, D, rows, columns)
    patches = nn.functional.interpolate(
        patches, size=new_grid, mode="bicubic", align_corners=False, antialias=method == "bicubic_antialias"
    )
    patches = patches.permute(0, 2, 3, 1).flatten(1, 2).to(embeddings.dtype)
    return torch.cat([prefix, patches], dim=1)


def resample_patch_projection(
    weight: torch.Tensor, old_patch: tuple[int, int], new_patch: tuple[int, int]
) -> torch.Tensor:
    """Resamples the patch projection to another patch size, by the pseudo-inverse of bicubic resizing.

    The projection of a resized patch stays as close as possible to that of the original patch (FlexiViT,
    https://arxiv.org/abs/2212.08013, section 3.4): w' = pinv(B^T) w, with B the matrix that resizes a patch.

    Args:
        weight: Patch projection (D, C * old height * old width).
        old_patch: Patch size (height, width) of `weight`, in pixels.
        new_patch: Patch size (height, width) of the result, in pixels.

    Returns:
        Patch projection (D, C * new height * new width) in the dtype of `weight`.
    """
    if old_patch == new_patch:
        return weight
    old_pixels = old_patch[0] * old_patch[1]
    basis = torch.eye(old_pixels, dtype=torch.float64, device=weight.device).reshape(old_pixels, 1, *old_patch)
    resized = nn.functional.interpolate(basis, size=new_patch, mode="bicubic", align_corners=False, antialias=True)
    resize = resized.reshape(old_pixels, -1)  # (old pixels, new pixels): a row patch times this is the resized patch
    kernels = weight.double().reshape(weight.shape[0], -1, old_pixels)  # (D, C, old pixels)
    return (kernels @ torch.linalg.pinv(resize).T).flatten(1).to(weight.dtype)


__all__ = ["resample_patch_projection", "resample_position_embeddings", "sincos_position_embeddings"]
