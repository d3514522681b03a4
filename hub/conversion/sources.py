"""Readers of each kind of checkpoint: ours, transformers, timm and the original files of DeiT and DETR."""

from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from timm.models.deit import VisionTransformerDistilled, checkpoint_filter_fn
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from transformers import AutoConfig, PreTrainedModel, SiglipModel

from ...configuration.config_checks import as_pair
from ...configuration.configuration_detr import HubDetrConfig
from ...configuration.configuration_vit import HubViTConfig
from ...data.boxes.dataset import build_box_processor
from ...data.image_processing import build_image_processor, resize_image_processor
from ..checkpoints import (
    Checkpoint,
    CheckpointError,
    checkpoint_of,
    floating_dtype,
    listed,
    read_checkpoint,
    refuse_nonfinite,
)
from ..processor_settings import saved_processor
from ..progress_bars import without_warnings
from .converted import Conversion
from .detr_checkpoints import DETR_FAMILY, OTHER_AUXILIARY, detr_from_original, detr_from_transformers, is_original_detr
from .detr_parity import check_detr_parity
from .key_tables import KeyMismatchError, to_ours, without_prefix
from .model_classes import CONFIG_CLASSES, FEATURE_MAPS, head_of, model_class_for, refuse_unknown_field
from .original_deit import config_from_original
from .parity import check_parity
from .references import native_reference, timm_reference
from .siglip_configs import WITH_TEXT as SIGLIP_WITH_TEXT
from .siglip_configs import vision_tower
from .timm_configs import (
    config_from_timm,
    config_to_timm,
    fold_register_positions,
    refuse_other_architectures,
    timm_model,
)
from .transformers_configs import (
    FAMILIES,
    REFUSED,
    WITH_POOLER,
    InexpressibleError,
    config_from_transformers,
    half_of_head,
    has_pooler,
)

logger = transformers.utils.logging.get_logger(__name__)

# Tensors of heads, which may be dropped or missing if the task differs from the checkpoint's.
_HEADS = ("classifier.", "cls_classifier.", "distillation_classifier.", "decoder.", "pooler.", "head.", "head_dist.",
          "class_labels_classifier.", "bbox_predictor.", "pooling.", "attn_pool.")  # fmt: skip
# Tensors that a class of transformers does not use, although files of it hold them: those of another class that the
# weights were saved from.
_UNUSED = {
    "backbone": ("classifier.", "cls_classifier.", "distillation_classifier.", "decoder."),
    FEATURE_MAPS: ("classifier.", "decoder."),
    "image-classification": ("pooler.", "decoder."),
    "masked-image-modeling": ("pooler.", "classifier."),
}


def from_module(model: nn.Module, task: str | None, fields: dict[str, Any], verify: bool) -> Conversion:
    """Our model from a model in memory; `task`, `fields` and `verify` are those of `from_path`."""
    refuse_nonfinite(model.state_dict(), type(model).__name__)
    if isinstance(model, VisionTransformer | VisionTransformerDistilled | Eva):
        return _from_timm(model, type(model).__name__, task, fields, verify)
    model_type = getattr(getattr(model, "config", None), "model_type", None)
    if isinstance(getattr(model, "config", None), HubViTConfig | HubDetrConfig):
        assert isinstance(model, PreTrainedModel)
        return Conversion(model, default_processor(model.config), type(model).__name__, "vithub")
    if model_type == DETR_FAMILY:
        return _from_detr(checkpoint_of(model), task, fields, model if verify else None)
    _refuse_other_kinds(model_type)
    if model_type not in (*FAMILIES, SIGLIP_WITH_TEXT):
        raise TypeError(
            f"{type(model).__name__} is neither of a supported type of transformers ({', '.join(FAMILIES)}, "
            f"{DETR_FAMILY}) nor a ViT of timm"
        )
    return _from_transformers(checkpoint_of(model), task, fields, (lambda _: model) if verify else None)


def from_path(path: Path, task: str | None, fields: dict[str, Any], verify: bool) -> Conversion:
    """Our model from a folder or a file.

    Args:
        path: Folder of a model, or file of its weights.
        task: Task of the model to build; None takes the checkpoint's own.
        fields: Configuration fields to set.
        verify: Whether to compare the outputs with the source library's.

    Raises:
        CheckpointError: The model is of an unknown kind.
        KeyMismatchError: Tensors are missing, unexpected or of another shape; they are listed.
        ParityError: The converted model's outputs differ from the source's.
    """
    checkpoint = read_checkpoint(path)
    model_type = checkpoint.config.get("model_type")
    _refuse_other_kinds(model_type)
    if model_type in CONFIG_CLASSES:
        return _from_ours(checkpoint, task, fields)
    if model_type in (*FAMILIES, SIGLIP_WITH_TEXT):
        return _from_transformers(checkpoint, task, fields, _native_model if verify else None)
    if model_type == DETR_FAMILY:
        return _from_detr(checkpoint, task, fields, _native_model(checkpoint) if verify else None)
    if "architecture" in checkpoint.config:
        model = timm_model(checkpoint.config)
        refuse_other_architectures(model, str(checkpoint.config["architecture"]))
        _load_strictly(model, checkpoint)
        return _from_timm(model, checkpoint.name, task, fields, verify)
    if not checkpoint.config:
        return _from_original(checkpoint, task, fields, verify)
    known = ", ".join((*FAMILIES, SIGLIP_WITH_TEXT, DETR_FAMILY))
    raise CheckpointError(
        f"{path}/config.json names the model type {model_type!r}; known are {known}, our own and timm's"
    )


def _from_ours(checkpoint: Checkpoint, task: str | None, fields: dict[str, Any]) -> Conversion:
    assert checkpoint.folder is not None
    config_class = CONFIG_CLASSES[checkpoint.config["model_type"]]
    own = head_of((checkpoint.config.get("architectures") or [""])[0])
    model_class = model_class_for(config_class, task or own)
    options: dict[str, Any] = {"ignore_mismatched_sizes": True, **fields}  # our error names the tensors and config.json
    model, info = model_class.from_pretrained(checkpoint.folder, output_loading_info=True, **options)
    if not fields.get("ignore_mismatched_sizes"):
        _refuse_other_shapes(checkpoint.name, info["mismatched_keys"])
    _refuse_missing(checkpoint.name, info["missing_keys"], allow_heads=task not in (None, own))
    processor = _saved_processor(checkpoint) or default_processor(model.config)
    return Conversion(model, processor, checkpoint.name, "vithub", fresh=sorted(info["missing_keys"]))


def _from_transformers(
    checkpoint: Checkpoint, task: str | None, fields: dict[str, Any], native: Callable[[Checkpoint], Any] | None
) -> Conversion:
    dropped: list[str] = []
    if checkpoint.config["model_type"] == SIGLIP_WITH_TEXT:
        config, state, dropped = vision_tower(checkpoint.config, checkpoint.state)
        checkpoint = replace(checkpoint, config=config, state=state)
    architecture = (checkpoint.config.get("architectures") or [""])[0]
    family, own = checkpoint.config["model_type"], head_of(architecture)
    native_config = AutoConfig.for_model(**checkpoint.config)
    config = config_from_transformers(native_config, architecture, has_pooler(checkpoint.state))
    state = {name: tensor for name, tensor in checkpoint.state.items() if tensor.numel()}  # DINOv3 stores no registers
    unused = [name for name in state if _is_unused(without_prefix(name), config, own, family)]
    state = {name: tensor for name, tensor in state.items() if name not in unused}
    if "pool" not in fields and (half := half_of_head(state, config)) is not None:
        config.pool, weight = half
        state = {name: weight if name.endswith("classifier.weight") else tensor for name, tensor in state.items()}
    built = _build(config, state, family, own, task, checkpoint.name, fields)
    built.dropped += unused + dropped
    built.image_processor = _saved_processor(checkpoint)
    if built.image_processor is None:
        built.image_processor = default_processor(config)
        built.notes.append("no preprocessor_config.json beside the weights: ImageNet's mean and deviation are assumed")
    _note_other_size(built, as_pair("image_size", native_config.image_size))
    if native is not None and task in (None, own):
        model = native(checkpoint)
        if family == "vit_mae":  # the encoder of MAE alone
            model = getattr(model, "vit", model)
        elif isinstance(model, SiglipModel):
            model = model.vision_model
        with without_warnings():  # of SigLIP's text configuration
            built.differences = check_parity(built.model, native_reference(model), _sizes(config, own))
    return built


def _note_other_size(built: Conversion, stored: tuple[int, int]) -> None:
    """Notes where the source's image size is in no whole patches, and makes the image processor give whole ones."""
    config: Any = built.model.config
    whole = tuple(side // patch * patch for side, patch in zip(stored, config.patch_hw, strict=True))
    if whole == stored:
        return
    built.notes.append(
        f"images of {stored} are no whole patches, the rest of which the source does not see: {whole} here"
    )
    if config.image_hw == whole:
        built.image_processor = resize_image_processor(built.image_processor, whole)


def _is_unused(name: str, config: HubViTConfig, own_task: str, family: str) -> bool:
    """Returns True if the transformers class that a checkpoint names ignores a tensor, named without prefix."""
    if family == "vit_mae" and name.startswith("decoder"):
        return True
    if name == "embeddings.mask_token" and not config.use_mask_token:
        return True
    kept = "pooler." if config.add_pooling_layer else ()
    return name.endswith("position_ids") or (name.startswith(_UNUSED[own_task]) and not name.startswith(kept))


def _refuse_other_kinds(model_type: str | None) -> None:
    if model_type in REFUSED:
        raise InexpressibleError("vithub", [REFUSED[model_type]])


def _from_detr(
    checkpoint: Checkpoint, task: str | None, fields: dict[str, Any], native: PreTrainedModel | None
) -> Conversion:
    own = "object-detection" if (checkpoint.config.get("architectures") or [""])[0] != "DetrModel" else "backbone"
    model = detr_from_transformers(checkpoint.config, checkpoint.state, task or own, fields, checkpoint.name)
    built = Conversion(model, _saved_processor(checkpoint), checkpoint.name, DETR_FAMILY)
    if built.image_processor is None:
        built.image_processor = default_processor(model.config)
        built.notes.append("no preprocessor_config.json beside the weights: DETR's 800 / 1333 pixels are assumed")
    if checkpoint.config.get("auxiliary_loss"):
        built.notes.append(OTHER_AUXILIARY)
        logger.warning("%s: %s", checkpoint.name, OTHER_AUXILIARY)
        if native is not None:
            native = deepcopy(native)
            native_config: Any = native.config
            native_config.auxiliary_loss = False  # with auxiliary losses, its function differs from ours
    if native is not None and task in (None, own) and own == "object-detection":
        built.differences = check_detr_parity(model, native)
    return built


def _from_timm(model: nn.Module, name: str, task: str | None, fields: dict[str, Any], verify: bool) -> Conversion:
    config = config_from_timm(model)
    own = "image-classification" if getattr(model, "num_classes", 0) else "backbone"
    eva = isinstance(model, Eva)
    state = dict(model.state_dict()) if eva else fold_register_positions(dict(model.state_dict()), config)
    built = _build(config, state, "timm-eva" if eva else "timm", own, task, name, fields)
    cfg = dict(getattr(model, "pretrained_cfg", None) or {})
    built.image_processor = build_image_processor(
        config.image_hw,
        crop_ratio=cfg.get("crop_pct") or 0.875,
        mean=cfg.get("mean") or (0.5, 0.5, 0.5),
        std=cfg.get("std") or (0.5, 0.5, 0.5),
        interpolation=cfg.get("interpolation") or "bicubic",
        keep_aspect=cfg.get("crop_mode", "center") == "center",
    )
    _note_other_size(built, as_pair("image_size", tuple(cast(Any, model).patch_embed.img_size)))
    if verify and task in (None, own):
        built.differences = check_parity(built.model, timm_reference(model), _sizes(config, own, nonsquare=True))
    return built


def _from_original(checkpoint: Checkpoint, task: str | None, fields: dict[str, Any], verify: bool) -> Conversion:
    if is_original_detr(checkpoint.state):
        detr = detr_from_original(checkpoint.state, task or "object-detection", fields, checkpoint.name)
        return Conversion(detr, default_processor(detr.config), checkpoint.name, "detr-original")
    try:
        config = config_from_original(checkpoint.state)
    except ValueError as error:
        stated = "" if checkpoint.folder is None else "/config.json names no model type, and without one"
        whole = ""
        if checkpoint.folder is None and Path(checkpoint.name).with_name("config.json").is_file():
            whole = f"; config.json lies beside the file: name the folder, {Path(checkpoint.name).parent}"
        raise CheckpointError(f"{checkpoint.name}{stated}: {error}{whole}") from error
    built = _build(config, checkpoint.state, "timm", "image-classification", task, checkpoint.name, fields)
    built.family = "deit-original"
    built.image_processor = default_processor(config)
    if verify and task in (None, "image-classification"):
        reference = timm_model(config_to_timm(config, "image-classification"))
        reference.load_state_dict(checkpoint_filter_fn({"model": checkpoint.state}, reference, adapt_layer_scale=True))
        built.differences = check_parity(built.model, timm_reference(reference), [config.image_hw])
    return built


def _build(
    config: HubViTConfig,
    state: dict[str, torch.Tensor],
    family: str,
    own_task: str,
    task: str | None,
    name: str,
    fields: dict[str, Any],
) -> Conversion:
    """Our model of `task` with their tensors; tensors without a place are an error, except heads of another task."""
    wanted = task or own_task
    attention = fields.pop("attn_implementation", None)
    for field_name, value in fields.items():
        refuse_unknown_field(config, field_name)
        setattr(config, field_name, value)
    config.check()
    model_class = model_class_for(type(config), wanted)
    model = model_class(config)
    if attention is not None:
        model.set_attn_implementation(attention)
    shapes = {key: tensor.shape for key, tensor in model.state_dict().items()}
    try:
        renamed, left = to_ours(state, family, shapes)
    except KeyMismatchError as error:
        raise KeyMismatchError(f"{name}: {error}") from error
    dropped = [key for key in left if wanted != own_task and without_prefix(key).startswith(_HEADS)]
    if unexpected := [key for key in left if key not in dropped]:
        raise KeyMismatchError(f"{name}: unexpected tensors: {', '.join(unexpected)}")
    dtype = floating_dtype(renamed)
    model.to(dtype)
    config.dtype = dtype
    missing = model.load_state_dict(renamed, strict=False).missing_keys
    _refuse_missing(name, missing, allow_heads=wanted != own_task)
    return Conversion(model, None, name, family, dropped=dropped, fresh=sorted(missing))


def _refuse_missing(name: str, missing: Sequence[str], allow_heads: bool) -> None:
    if refused := sorted(key for key in missing if not (allow_heads and without_prefix(key).startswith(_HEADS))):
        raise KeyMismatchError(f"{name}: missing tensors: {', '.join(refused)}")


def _refuse_other_shapes(name: str, mismatched: Iterable[tuple[str, Any, Any]]) -> None:
    shapes = [f"{key} {tuple(stored)}, the model's is {tuple(own)}" for key, stored, own in mismatched]
    if shapes:
        raise KeyMismatchError(f"{name}: tensors have other shapes than config.json says: {listed(sorted(shapes))}")


def _native_model(checkpoint: Checkpoint) -> PreTrainedModel:
    architecture = (checkpoint.config.get("architectures") or [""])[0]
    if checkpoint.config["model_type"] == "vit_mae":  # the encoder alone is converted
        architecture = "ViTMAEModel"
    native_class = getattr(transformers, architecture, None)
    if native_class is None:
        raise CheckpointError(
            f"{checkpoint.name}/config.json names the class {architecture!r}, unknown to transformers"
        )
    without = {"add_pooling_layer": False} if architecture in WITH_POOLER and not has_pooler(checkpoint.state) else {}
    with without_warnings():  # it lists each tensor of another head or tower; the conversion's report does
        model: PreTrainedModel = native_class.from_pretrained(
            checkpoint.folder, use_safetensors=True, dtype=torch.float32, **without
        )
    return model


def _load_strictly(model: nn.Module, checkpoint: Checkpoint) -> None:
    own = model.state_dict()
    missing, unexpected = sorted(set(own) - set(checkpoint.state)), sorted(set(checkpoint.state) - set(own))
    misshaped = [k for k, t in own.items() if k in checkpoint.state and checkpoint.state[k].shape != t.shape]
    if missing or unexpected or misshaped:
        raise KeyMismatchError(
            f"{checkpoint.name}: missing tensors: {missing}; unexpected: {unexpected}; of another shape: {misshaped}"
        )
    model.to(floating_dtype(checkpoint.state))
    model.load_state_dict(checkpoint.state)


def _saved_processor(checkpoint: Checkpoint) -> Any:
    if checkpoint.processor is None or checkpoint.folder is None:
        return None
    return saved_processor(checkpoint.folder)


def default_processor(config: HubViTConfig | HubDetrConfig) -> Any:
    """Default image processor: ImageNet's mean and standard deviation, bicubic, centre 7/8; for a detector, DETR's."""
    if isinstance(config, HubDetrConfig):
        return build_box_processor(focal=config.focal_loss)
    return build_image_processor(config.image_hw)


def _sizes(config: HubViTConfig, task: str, nonsquare: bool = False) -> list[tuple[int, int]]:
    """Sizes (height, width) to compare at: the checkpoint's, and a non-square one if the source can resample to it."""
    square = config.image_hw[0] == config.image_hw[1] and config.patch_hw[0] == config.patch_hw[1]
    if task == "masked-image-modeling" or not (square or nonsquare):
        return [config.image_hw]
    (rows, columns), (height, width) = config.grid_size, config.patch_hw
    return [config.image_hw, ((rows // 2 + 1) * height, max(1, columns // 2) * width)]


__all__ = ["default_processor", "from_module", "from_path"]
