"""Tables of tensor names in other libraries, one per family of checkpoints.

A row names our parameters and theirs; `{i}` stands for the number of each layer, and a name without ending also covers
`.weight` and `.bias`. If a row names several of our parameters, they are their tensor split along the first dimension.
The rows of the encoder omit the prefix ("vit.", "deit.", ...) that a model with a head puts before its names.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Row:
    """Correspondence between tensors of ours and one of theirs.

    Args:
        ours: Names of our tensors.
        theirs: Name of their tensor.
        view: Difference in shape: "same", "patch", "pointwise" or "token" (see `_to_their_shape`).
    """

    ours: tuple[str, ...]
    theirs: str
    view: str = "same"


def _row(ours: str | tuple[str, ...], theirs: str, view: str = "same") -> Row:
    return Row((ours,) if isinstance(ours, str) else ours, theirs, view)


_QKV = tuple(f"layers.{{i}}.attention.{name}_proj" for name in "qkv")
_GATED = ("layers.{i}.mlp.gate_proj", "layers.{i}.mlp.up_proj")

_TRANSFORMERS_EMBEDDINGS = (
    _row("embeddings.cls_token", "embeddings.cls_token"),
    _row("embeddings.position_embeddings", "embeddings.position_embeddings"),
    _row("embeddings.patch_embeddings", "embeddings.patch_embeddings.projection", view="patch"),
    _row("layernorm", "layernorm"),
)
_TRANSFORMERS_ATTENTION = (
    _row(_QKV[0], "encoder.layer.{i}.attention.attention.query"),
    _row(_QKV[1], "encoder.layer.{i}.attention.attention.key"),
    _row(_QKV[2], "encoder.layer.{i}.attention.attention.value"),
    _row("layers.{i}.attention.o_proj", "encoder.layer.{i}.attention.output.dense"),
)
# Names in memory of transformers from 5.20, which its files have where they were not saved by `save_pretrained`.
_VIT_IN_MEMORY = tuple(
    _row(f"layers.{{i}}.{name}", f"layers.{{i}}.{name}")
    for name in (*(f"attention.{n}_proj" for n in "qkvo"), "layernorm_before", "layernorm_after", "mlp.fc1", "mlp.fc2")
)
_DINOV2_IN_MEMORY = (
    *(_row(f"layers.{{i}}.attention.{n}_proj", f"encoder.layer.{{i}}.attention.{n}_proj") for n in "qkvo"),
    *(_row(f"layers.{{i}}.mlp.{n}_proj", f"encoder.layer.{{i}}.mlp.{n}_proj") for n in ("gate", "up", "down")),
)

VIT = (
    *_TRANSFORMERS_EMBEDDINGS,
    *_TRANSFORMERS_ATTENTION,
    _row("embeddings.mask_token", "embeddings.mask_token"),
    _row("layers.{i}.layernorm_before", "encoder.layer.{i}.layernorm_before"),
    _row("layers.{i}.layernorm_after", "encoder.layer.{i}.layernorm_after"),
    _row("layers.{i}.mlp.fc1", "encoder.layer.{i}.intermediate.dense"),
    _row("layers.{i}.mlp.fc2", "encoder.layer.{i}.output.dense"),
    _row("pooler.dense", "pooler.dense"),
    _row("classifier", "classifier"),
    _row("decoder", "decoder.0", view="pointwise"),
    *_VIT_IN_MEMORY,
)

DEIT = (
    *VIT,
    _row("embeddings.distillation_token", "embeddings.distillation_token"),
    _row("classifier", "cls_classifier"),
    _row("distillation_classifier", "distillation_classifier"),
)

DINOV2 = (
    *_TRANSFORMERS_EMBEDDINGS,
    *_TRANSFORMERS_ATTENTION,
    _row("embeddings.mask_token", "embeddings.mask_token", view="token"),
    _row("embeddings.register_tokens", "embeddings.register_tokens"),
    _row("layers.{i}.layernorm_before", "encoder.layer.{i}.norm1"),
    _row("layers.{i}.layernorm_after", "encoder.layer.{i}.norm2"),
    _row("layers.{i}.layer_scale1.scale", "encoder.layer.{i}.layer_scale1.lambda1"),
    _row("layers.{i}.layer_scale2.scale", "encoder.layer.{i}.layer_scale2.lambda1"),
    _row("layers.{i}.mlp.fc1", "encoder.layer.{i}.mlp.fc1"),
    _row("layers.{i}.mlp.fc2", "encoder.layer.{i}.mlp.fc2"),
    _row(_GATED, "encoder.layer.{i}.mlp.weights_in"),
    _row("layers.{i}.mlp.down_proj", "encoder.layer.{i}.mlp.weights_out"),
    _row("classifier", "classifier"),
    *_DINOV2_IN_MEMORY,
)

_DINOV3_LAYER = (
    *(_row(f"layers.{{i}}.attention.{n}_proj", f"layer.{{i}}.attention.{n}_proj") for n in "qkvo"),
    _row("layers.{i}.layernorm_before", "layer.{i}.norm1"),
    _row("layers.{i}.layernorm_after", "layer.{i}.norm2"),
    _row("layers.{i}.layer_scale1.scale", "layer.{i}.layer_scale1.lambda1"),
    _row("layers.{i}.layer_scale2.scale", "layer.{i}.layer_scale2.lambda1"),
    _row("layers.{i}.mlp.fc1", "layer.{i}.mlp.up_proj"),
    _row("layers.{i}.mlp.fc2", "layer.{i}.mlp.down_proj"),
    *(_row(f"layers.{{i}}.mlp.{n}_proj", f"layer.{{i}}.mlp.{n}_proj") for n in ("gate", "up", "down")),
)
DINOV3 = (
    _row("embeddings.cls_token", "embeddings.cls_token"),
    _row("embeddings.mask_token", "embeddings.mask_token"),
    _row("embeddings.register_tokens", "embeddings.register_tokens"),
    _row("embeddings.patch_embeddings", "embeddings.patch_embeddings", view="patch"),
    _row("layernorm", "norm"),
    *_DINOV3_LAYER,
    # The names in memory of transformers from 5.20; its files have those above.
    *(Row(row.ours, f"model.{row.theirs}", row.view) for row in _DINOV3_LAYER),
    _row("classifier", "classifier"),
)

TIMM = (
    _row("embeddings.cls_token", "cls_token"),
    _row("embeddings.distillation_token", "dist_token"),
    _row("embeddings.register_tokens", "reg_token"),
    _row("embeddings.position_embeddings", "pos_embed"),
    _row("embeddings.patch_embeddings", "patch_embed.proj", view="patch"),
    _row("embeddings.norm", "norm_pre"),
    _row("layers.{i}.layernorm_before", "blocks.{i}.norm1"),
    _row(_QKV, "blocks.{i}.attn.qkv"),
    _row("layers.{i}.attention.o_proj", "blocks.{i}.attn.proj"),
    _row("layers.{i}.attention.q_norm", "blocks.{i}.attn.q_norm"),
    _row("layers.{i}.attention.k_norm", "blocks.{i}.attn.k_norm"),
    _row("layers.{i}.layer_scale1.scale", "blocks.{i}.ls1.gamma"),
    _row("layers.{i}.layer_scale1.scale", "blocks.{i}.gamma_1"),  # DeiT-III as its authors publish it
    _row("layers.{i}.layernorm_after", "blocks.{i}.norm2"),
    _row("layers.{i}.mlp.fc1", "blocks.{i}.mlp.fc1"),
    _row("layers.{i}.mlp.fc2", "blocks.{i}.mlp.fc2"),
    _row(_GATED, "blocks.{i}.mlp.fc1"),
    _row("layers.{i}.mlp.down_proj", "blocks.{i}.mlp.fc2"),
    _row("layers.{i}.layer_scale2.scale", "blocks.{i}.ls2.gamma"),
    _row("layers.{i}.layer_scale2.scale", "blocks.{i}.gamma_2"),
    _row("layernorm", "norm"),
    _row("layernorm", "fc_norm"),
    _row("pooling.probe_token", "attn_pool.latent"),
    _row("pooling.q_proj", "attn_pool.q"),
    _row(("pooling.k_proj", "pooling.v_proj"), "attn_pool.kv"),
    _row("pooling.o_proj", "attn_pool.proj"),
    _row("pooling.layernorm", "attn_pool.norm"),
    _row("pooling.mlp.fc1", "attn_pool.mlp.fc1"),
    _row("pooling.mlp.fc2", "attn_pool.mlp.fc2"),
    _row("classifier", "head"),
    _row("distillation_classifier", "head_dist"),
)

_POOLING_QKV = tuple(f"pooling.{name}_proj" for name in "qkv")
SIGLIP = (
    _row("embeddings.patch_embeddings", "embeddings.patch_embedding", view="patch"),
    _row("embeddings.position_embeddings", "embeddings.position_embedding.weight", view="token"),
    _row("embeddings.mask_token", "embeddings.mask_token"),
    *(_row(f"layers.{{i}}.attention.{n}_proj", f"encoder.layers.{{i}}.self_attn.{n}_proj") for n in "qkv"),
    _row("layers.{i}.attention.o_proj", "encoder.layers.{i}.self_attn.out_proj"),
    _row("layers.{i}.layernorm_before", "encoder.layers.{i}.layer_norm1"),
    _row("layers.{i}.layernorm_after", "encoder.layers.{i}.layer_norm2"),
    _row("layers.{i}.mlp.fc1", "encoder.layers.{i}.mlp.fc1"),
    _row("layers.{i}.mlp.fc2", "encoder.layers.{i}.mlp.fc2"),
    _row("layernorm", "post_layernorm"),
    _row("pooling.probe_token", "head.probe"),
    *(_row(tuple(f"{n}.{end}" for n in _POOLING_QKV), f"head.attention.in_proj_{end}") for end in ("weight", "bias")),
    _row("pooling.o_proj", "head.attention.out_proj"),
    _row("pooling.layernorm", "head.layernorm"),
    _row("pooling.mlp.fc1", "head.mlp.fc1"),
    _row("pooling.mlp.fc2", "head.mlp.fc2"),
    _row("classifier", "classifier"),
)

EVA = (
    _row("embeddings.cls_token", "cls_token"),
    _row("embeddings.register_tokens", "reg_token"),
    _row("embeddings.patch_embeddings", "patch_embed.proj", view="patch"),
    _row("layers.{i}.layernorm_before", "blocks.{i}.norm1"),
    _row(_QKV, "blocks.{i}.attn.qkv"),
    _row("layers.{i}.attention.q_proj.bias", "blocks.{i}.attn.q_bias"),
    _row("layers.{i}.attention.v_proj.bias", "blocks.{i}.attn.v_bias"),
    _row("layers.{i}.attention.o_proj", "blocks.{i}.attn.proj"),
    _row("layers.{i}.attention.q_norm", "blocks.{i}.attn.q_norm"),
    _row("layers.{i}.attention.k_norm", "blocks.{i}.attn.k_norm"),
    _row("layers.{i}.layer_scale1.scale", "blocks.{i}.gamma_1"),
    _row("layers.{i}.layernorm_after", "blocks.{i}.norm2"),
    _row("layers.{i}.mlp.fc1", "blocks.{i}.mlp.fc1"),
    _row("layers.{i}.mlp.fc2", "blocks.{i}.mlp.fc2"),
    _row("layers.{i}.mlp.gate_proj", "blocks.{i}.mlp.fc1_g"),
    _row("layers.{i}.mlp.up_proj", "blocks.{i}.mlp.fc1_x"),
    _row("layers.{i}.mlp.down_proj", "blocks.{i}.mlp.fc2"),
    _row("layers.{i}.layer_scale2.scale", "blocks.{i}.gamma_2"),
    _row("layernorm", "norm"),
    _row("layernorm", "fc_norm"),
    _row("classifier", "head"),
)

TABLES = {"dinov3_vit": DINOV3, "timm-eva": EVA, "siglip_vision_model": SIGLIP, "ijepa": VIT, "vit_mae": VIT} | {
    "vit": VIT,
    "deit": DEIT,
    "dinov2": DINOV2,
    "dinov2_with_registers": DINOV2,
    "timm": TIMM,
}

# Prefixes of the encoder's names in models with a head.
PREFIXES = ("vit.", "deit.", "dinov2.", "dinov2_with_registers.", "ijepa.", "vision_model.")


class KeyMismatchError(ValueError):
    """The checkpoint does not fit the model; the message lists the tensors."""


def to_ours(
    state: dict[str, torch.Tensor], family: str, shapes: dict[str, torch.Size]
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Renames and reshapes tensors of another library to ours.

    Args:
        state: Tensors of the other library by name.
        family: Family of the checkpoint, a key of `TABLES`.
        shapes: Shape of each of our parameters by name in our model, prefix included.

    Returns:
        Tensors under our names, and the names of their tensors that have no counterpart.

    Raises:
        KeyMismatchError: Tensors do not fit the shapes of ours; all of them are listed.
    """
    theirs = {without_prefix(name): (name, tensor) for name, tensor in state.items()}
    full = {without_prefix(name): name for name in shapes}
    renamed: dict[str, torch.Tensor] = {}
    misshaped: list[str] = []
    for ours, their_name, _ in _expanded(family, full):
        if their_name not in theirs or full[ours[0]] in renamed:
            continue
        source, tensor = theirs.pop(their_name)
        for name, part in zip(ours, tensor.chunk(len(ours)) if len(ours) > 1 else [tensor], strict=True):
            wanted = shapes[full[name]]
            if part.numel() != wanted.numel() or (part.ndim == len(wanted) and part.shape != wanted):
                misshaped.append(f"{source} {tuple(part.shape)} for {full[name]} {tuple(wanted)}")
            else:
                renamed[full[name]] = part.reshape(wanted).contiguous()
    if misshaped:
        raise KeyMismatchError("shapes do not fit:\n  " + "\n  ".join(misshaped))
    return renamed, sorted(source for source, _ in theirs.values())


def to_theirs(
    state: dict[str, torch.Tensor],
    family: str,
    patch_shape: tuple[int, int, int],
    available: set[str] | None = None,
    skip: frozenset[str] = frozenset(),
) -> dict[str, torch.Tensor]:
    """Renames and reshapes our tensors to those of another library, without prefix.

    Args:
        state: Our tensors by name, with or without prefix.
        family: Family of the target, a key of `TABLES`.
        patch_shape: (channels, height, width) of a patch.
        available: Tensor names of the target model, which decide between rows for the same tensor; None uses the first
            row that fits.
        skip: Tensor names of the target to leave out.

    Raises:
        KeyMismatchError: Tensors of ours have no name in the family; all of them are listed.
    """
    ours = {without_prefix(name): tensor for name, tensor in state.items()}
    renamed: dict[str, torch.Tensor] = {}
    placed: set[str] = set()
    for names, their_name, view in _expanded(family, ours):
        wanted = available is None or their_name in available
        if not wanted or their_name in skip or placed.issuperset(names):
            continue
        tensor = torch.cat([ours[name] for name in names]) if len(names) > 1 else ours[names[0]]
        renamed[their_name] = _to_their_shape(tensor, view, patch_shape)
        placed.update(names)
    if left := sorted(set(ours) - placed):
        raise KeyMismatchError(f"no name in {family} for: {', '.join(left)}")
    return renamed


def _expanded(family: str, ours: dict[str, object] | dict[str, str] | dict[str, torch.Tensor]) -> Iterator[
    tuple[tuple[str, ...], str, str]
]:  # fmt: skip
    """Yields our names, their name and the view of each table row, layer and ending whose names of ours all exist."""
    depth = 1 + max((int(name.split(".")[1]) for name in ours if name.startswith("layers.")), default=-1)
    for row in TABLES[family]:
        for layer in range(depth) if "{i}" in row.theirs else range(1):
            for ending in ("", ".weight", ".bias"):
                names = tuple(name.format(i=layer) + ending for name in row.ours)
                if all(name in ours for name in names):
                    yield names, row.theirs.format(i=layer) + ending, row.view


def _to_their_shape(tensor: torch.Tensor, view: str, patch_shape: tuple[int, int, int]) -> torch.Tensor:
    if view == "patch" and tensor.ndim == 2:  # (D, C * height * width) to a convolution's kernel
        return tensor.view(-1, *patch_shape)
    if view == "pointwise" and tensor.ndim == 2:  # (out, in) to the kernel of a 1 x 1 convolution
        return tensor[:, :, None, None]
    if view == "token":  # (1, 1, D) to (1, D)
        return tensor[0]
    return tensor


def without_prefix(name: str) -> str:
    """Name of a tensor in the encoder alone, or of a head."""
    for prefix in PREFIXES:
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return name


__all__ = ["PREFIXES", "TABLES", "KeyMismatchError", "to_ours", "to_theirs", "without_prefix"]
