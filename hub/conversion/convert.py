"""Conversion of checkpoints to folders of this package, transformers or timm, each compared with its source."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import timm
import torch
import transformers
from torch import nn
from transformers import PreTrainedModel

from ...configuration.configuration_detr import HubDetrConfig
from ...configuration.configuration_vit import HubViTConfig
from ...data.argument_names import argument
from ..checkpoints import WEIGHTS
from ..folders import new_folder
from .converted import Conversion
from .detr_checkpoints import detr_to_transformers
from .detr_parity import check_detr_parity
from .key_tables import to_theirs
from .model_classes import FEATURE_MAPS, head_of
from .opening import open_checkpoint
from .parity import check_parity
from .references import native_reference, timm_reference
from .timm_configs import config_to_timm, fold_cls_positions, timm_model
from .transformers_configs import InexpressibleError, config_to_transformers, family_for

TARGETS = ("vithub", "transformers", "timm")


@dataclass
class ConversionReport:
    """Report of a conversion by `convert`.

    Args:
        source: Path, Hub id or class name of the source model.
        family: Family of the source checkpoint, such as "vit", "timm" or "detr-original".
        target: Folder written.
        to: Target library: "vithub", "transformers" or "timm".
        architecture: Class or model name in the target library.
        tensors: Number of tensors written.
        parameters: Number of values in the tensors written.
        differences: Largest absolute difference of the outputs in fp32, by name of the comparison.
        dropped: Names of the source's tensors that the target does not need.
        notes: Remarks for the user, such as differences in behaviour.
    """

    source: str
    family: str
    target: str
    to: str
    architecture: str
    tensors: int
    parameters: int
    differences: dict[str, float]
    dropped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def max_difference(self) -> float | None:
        """Largest of `differences`; None if nothing was compared."""
        return max(self.differences.values(), default=None)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data, `max_difference` included."""
        return asdict(self) | {"max_difference": self.max_difference}


def convert(
    source: str | Path | nn.Module,
    target_dir: str | Path,
    to: str = "vithub",
    *,
    task: str | None = None,
    image_size: int | tuple[int, int] | None = None,
    patch_size: int | tuple[int, int] | None = None,
    dtype: torch.dtype | None = None,
    revision: str | None = None,
    token: str | None = None,
    overwrite: bool = False,
    **fields: Any,
) -> ConversionReport:
    """Writes a checkpoint as a folder of this package, of transformers' own classes or of timm.

    Weights are copied bit for bit; a head of DINOv2 that reads CLS or the mean of the patches alone gets zeros for the
    other in transformers' class. In fp32, our model's outputs are compared with those of the source library, and with
    those of the target library after writing, on random pixels and on photos. A difference above 1e-5 (1e-4 for
    detectors, which are compared on noise, alone and in a padded batch) is an error, and nothing is written.

    Args:
        source: Model or checkpoint that `load` accepts.
        target_dir: Folder to write; it must not exist or must be empty, unless `overwrite` is set.
        to: Target library: "vithub"; "transformers" (a `vit`, `deit`, `dinov2`, `dinov2_with_registers`, `dinov3_vit`
            or `detr` folder, loadable without this package); "timm" (loadable with
            `timm.create_model("local-dir:...", pretrained=True)`).
        task: "backbone", "feature-maps" (for `AutoBackbone`), "image-classification", "masked-image-modeling" or
            "object-detection"; None keeps the checkpoint's own task.
        image_size: Image side, or (height, width), in pixels, to which position embeddings are resampled; None keeps
            the checkpoint's.
        patch_size: Patch side, or (height, width), in pixels, to which the patch projection is resampled; None keeps
            the checkpoint's.
        dtype: Data type of the weights; None keeps the checkpoint's.
        revision: Branch, tag or commit on the Hub.
        token: Access token of the Hub; None uses the token of the login.
        overwrite: Whether to replace the content of the folder; False by default.
        **fields: Configuration fields to override, such as `drop_path_rate`.

    Raises:
        InexpressibleError: The target (or this package) has no such model; the features are listed.
        TargetError: The folder holds files already or cannot be written.
    """
    if to not in TARGETS:
        raise ValueError(f"{argument('to')} must be one of {list(TARGETS)}, got {to!r}")
    opened = open_checkpoint(
        source, task=task, image_size=image_size, patch_size=patch_size, dtype=dtype, revision=revision, token=token,
        verify=True, **fields,
    )  # fmt: skip
    with new_folder(target_dir, overwrite) as folder:
        write = {"vithub": _write_ours, "transformers": _write_transformers, "timm": _write_timm}[to]
        architecture, differences = write(opened, folder)
        state = safetensors.torch.load_file(folder / WEIGHTS)
    return ConversionReport(
        source=opened.source,
        family=opened.family,
        target=str(target_dir),
        to=to,
        architecture=architecture,
        tensors=len(state),
        parameters=sum(tensor.numel() for tensor in state.values()),
        differences={f"in: {key}": value for key, value in opened.differences.items()}
        | {f"out: {key}": value for key, value in differences.items()},
        dropped=opened.dropped,
        notes=opened.notes,
    )


def _write_ours(opened: Conversion, folder: Path) -> tuple[str, dict[str, float]]:
    opened.model.save_pretrained(folder, max_shard_size="1000GB")
    opened.image_processor.save_pretrained(folder)
    return type(opened.model).__name__, {}


def _write_transformers(opened: Conversion, folder: Path) -> tuple[str, dict[str, float]]:
    model: Any = opened.model
    if isinstance(model.config, HubDetrConfig):
        return _write_detr(opened, folder)
    config: HubViTConfig = model.config
    task = head_of(type(model).__name__)
    native_config, architecture = config_to_transformers(config, task)
    family = family_for(config)
    state, notes = _plain_state(model, keep_mask_token=task == "masked-image-modeling" or family.startswith("dino"))
    opened.notes += notes
    if family.startswith("dinov2") and task == "image-classification" and config.pool != "cls+mean":
        state["classifier.weight"] = _on_cls_and_mean(state["classifier.weight"], config.pool)
        unread = "mean of the patch tokens" if config.pool == "cls" else "CLS token"
        opened.notes.append(f"weights of 0 were added for the {unread}, which transformers' classifier reads too")
    needs_mask = family in ("dinov2_with_registers", "dinov3_vit")
    if needs_mask and "embeddings.mask_token" not in {_bare(name) for name in state}:
        state["embeddings.mask_token"] = torch.zeros(1, 1, config.hidden_size, dtype=model.dtype)
    if family == "dinov3_vit" and not config.num_register_tokens:
        state["embeddings.register_tokens"] = torch.zeros(1, 0, config.hidden_size, dtype=model.dtype)
    skip = frozenset({"classifier.weight", "classifier.bias"} if architecture.endswith("WithTeacher") else ())
    renamed = to_theirs(state, family, (config.num_channels, *config.patch_hw), skip=skip)
    heads = ("classifier", "cls_classifier", "distillation_classifier", "decoder")
    prefix = "" if task in ("backbone", FEATURE_MAPS) else f"{family}."
    renamed = {name if name.startswith(heads) else prefix + name: tensor for name, tensor in renamed.items()}
    _save_state(renamed, folder)
    native_config.dtype = model.dtype
    native_config.save_pretrained(folder)
    opened.image_processor.save_pretrained(folder)

    native_class = getattr(transformers, architecture)
    without_pooler = family in ("vit", "deit") and task == "backbone" and not config.add_pooling_layer
    if without_pooler:
        opened.notes.append(
            f"load it with {architecture}.from_pretrained(..., add_pooling_layer=False): it has no pooler"
        )
    native, info = native_class.from_pretrained(
        folder, output_loading_info=True, **({"add_pooling_layer": False} if without_pooler else {})
    )
    wrong = {kind: sorted(map(str, info[kind])) for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")}
    if any(wrong.values()):
        raise RuntimeError(f"transformers does not read back what was written: {wrong}")
    if config.drop_path_rate or config.classifier_dropout:
        opened.notes.append("drop-path and classifier dropout act in training only and are not in transformers' class")
    if (config.position_embedding_resampling == "bicubic_antialias") != (family == "dinov2_with_registers"):
        opened.notes.append(
            "at other image sizes than its own, transformers resamples the position embeddings otherwise"
        )
    return architecture, check_parity(model, native_reference(native), [config.image_hw])


def _write_detr(opened: Conversion, folder: Path) -> tuple[str, dict[str, float]]:
    native = detr_to_transformers(opened.model)
    native.save_pretrained(folder, max_shard_size="1000GB")
    opened.image_processor.save_pretrained(folder)
    architecture = type(native).__name__
    again, info = type(native).from_pretrained(folder, output_loading_info=True)
    counters = {name for name in info["missing_keys"] if str(name).endswith("num_batches_tracked")}
    wrong = {kind: sorted(map(str, set(info[kind]) - counters)) for kind in ("missing_keys", "unexpected_keys")}
    if any(wrong.values()):
        raise RuntimeError(f"transformers does not read back what was written: {wrong}")
    opened.notes.append("auxiliary losses are off in transformers' configuration: there they change the last layer")
    return architecture, check_detr_parity(opened.model, again)


def _write_timm(opened: Conversion, folder: Path) -> tuple[str, dict[str, float]]:
    model: Any = opened.model
    if isinstance(model.config, HubDetrConfig):
        raise InexpressibleError("timm", ["detection"])
    config: HubViTConfig = model.config
    task = head_of(type(model).__name__)
    timm_config = config_to_timm(config, task, opened.image_processor)
    state, notes = _plain_state(model, keep_mask_token=False)
    opened.notes += notes
    available = set(timm_model(timm_config).state_dict())
    rotary = config.position_embedding_type == "rotary"
    patch_shape = (config.num_channels, *config.patch_hw)
    renamed = to_theirs(state, "timm-eva" if rotary else "timm", patch_shape, available=available)
    _save_state(renamed if rotary else fold_cls_positions(renamed, config), folder)
    (folder / "config.json").write_text(json.dumps(timm_config, indent=2) + "\n", encoding="utf-8")
    loaded = timm.create_model(f"local-dir:{folder}", pretrained=True)
    return timm_config["architecture"], check_parity(model, timm_reference(loaded), [config.image_hw])


def _plain_state(model: PreTrainedModel, keep_mask_token: bool) -> tuple[dict[str, torch.Tensor], list[str]]:
    """The model's tensors, without the mask token unless it is kept, and notes on what was left out."""
    state = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    masks = [name for name in state if _bare(name) == "embeddings.mask_token"]
    if keep_mask_token or not masks:
        return state, []
    return {name: t for name, t in state.items() if name not in masks}, ["the mask token, unused here, was left out"]


def _on_cls_and_mean(weight: torch.Tensor, pool: str) -> torch.Tensor:
    """Classifier weight (L, 2 D) on CLS and the mean of the patches that reads only one, of a weight (L, D) on that."""
    unread = torch.zeros_like(weight)
    return torch.cat([weight, unread] if pool == "cls" else [unread, weight], dim=1)


def _bare(name: str) -> str:
    return name.removeprefix("vit.").removeprefix("deit.")


def _save_state(state: dict[str, torch.Tensor], folder: Path) -> None:
    tensors = {name: tensor.contiguous().clone() for name, tensor in state.items()}
    safetensors.torch.save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


__all__ = ["TARGETS", "ConversionReport", "convert"]
