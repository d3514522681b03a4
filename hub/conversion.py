"""Any checkpoint we know as one of our models, and our models as checkpoints of others."""

import re
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
import transformers
from timm.models.deit import VisionTransformerDistilled, checkpoint_filter_fn
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from transformers import AutoConfig, AutoImageProcessor, PreTrainedConfig, PreTrainedModel

from ..configuration.configuration_deit import HubDeiTConfig
from ..configuration.configuration_detr import HubDetrConfig
from ..configuration.configuration_vit import HubViTConfig
from ..data.box_dataset import build_box_processor
from ..data.image_processing import build_image_processor, resize_image_processor
from ..modeling.modeling_deit import HubDeiTForImageClassification, HubDeiTModel
from ..modeling.modeling_detr import HubDetrForObjectDetection, HubDetrModel
from ..modeling.modeling_vit import HubViTForImageClassification, HubViTForMaskedImageModeling, HubViTModel
from .checkpoints import (
    Checkpoint,
    CheckpointError,
    checkpoint_of,
    floating_dtype,
    locate,
    read_checkpoint,
    read_config,
)
from .converted import Conversion
from .detr_checkpoints import DETR_FAMILY, OTHER_AUXILIARY, detr_from_original, detr_from_transformers, is_original_detr
from .detr_parity import check_detr_parity
from .key_tables import KeyMismatchError, to_ours
from .original_deit import config_from_original
from .parity import check_parity
from .references import native_reference, timm_reference
from .remote_code import load_trusted, refuse_code, remote_classes
from .timm_configs import (
    config_from_timm,
    config_to_timm,
    fold_register_positions,
    refuse_other_architectures,
    timm_model,
)
from .transformers_configs import FAMILIES, WITH_POOLER, config_from_transformers, has_pooler

logger = transformers.utils.logging.get_logger(__name__)

# Model class by configuration class and task.
MODELS: dict[type[PreTrainedConfig], dict[str, type[PreTrainedModel]]] = {
    HubViTConfig: {
        "backbone": HubViTModel,
        "image-classification": HubViTForImageClassification,
        "masked-image-modeling": HubViTForMaskedImageModeling,
    },
    HubDeiTConfig: {"backbone": HubDeiTModel, "image-classification": HubDeiTForImageClassification},
    HubDetrConfig: {"backbone": HubDetrModel, "object-detection": HubDetrForObjectDetection},
}
_OURS: dict[str, type[Any]] = {config_class.model_type: config_class for config_class in MODELS}
TASKS = ("backbone", "image-classification", "masked-image-modeling", "object-detection")
# What another task than the checkpoint's does without.
_HEADS = ("classifier.", "cls_classifier.", "distillation_classifier.", "decoder.", "pooler.", "head.", "head_dist.",
          "class_labels_classifier.", "bbox_predictor.")  # fmt: skip


def load(
    source: str | Path | nn.Module,
    *,
    task: str | None = None,
    labels: Sequence[str] | int | None = None,
    image_size: int | tuple[int, int] | None = None,
    patch_size: int | tuple[int, int] | None = None,
    dtype: torch.dtype | None = None,
    revision: str | None = None,
    token: str | None = None,
    trust_remote_code: bool = False,
    verify: bool = False,
    **fields: Any,
) -> PreTrainedModel:
    """A model of this package from any checkpoint it can convert.

    Args:
        source: One of our own folders or Hub ids; a `vit`, `deit`, `dinov2` or `dinov2_with_registers` of transformers;
            a `detr` of transformers; a ViT or DeiT of timm; a `.pth` of the authors of DeiT or DETR; a folder, file or
            Hub id, or such a model in memory.
        task: "backbone", "image-classification", "masked-image-modeling" or "object-detection"; None takes the
            checkpoint's own. A head that the checkpoint lacks starts anew, with a warning.
        labels: Names, or a number; the head is resized to them (see `resize`).
        image_size: Pixels; position embeddings are resampled.
        patch_size: Pixels; the patch projection is resampled too.
        dtype: Of the weights; None keeps the checkpoint's.
        revision: Branch, tag or commit on the Hub.
        token: Access token of the Hub; None takes that of the login.
        trust_remote_code: Run the code that comes with a model of a kind that nobody here knows, and give that model as
            it is. Ours and those that can be converted never need it: the code beside them is not run.
        verify: Compare a converted model's outputs with the source library's, on random pixels and on photos.
        **fields: Fields of the configuration to override, such as `drop_path_rate` or `attn_implementation`.

    Raises:
        CheckpointError: The source is missing, damaged or a pickle.
        InexpressibleError: It has features that our models lack; they are listed.
        KeyMismatchError: Missing, unexpected or mis-shaped tensors; they are listed.
        ParityError: The converted model computes something else.
        RemoteCodeError: The model has code of its own that is not trusted, or not what was trusted.
    """
    return open_checkpoint(
        source, task=task, labels=labels, image_size=image_size, patch_size=patch_size, dtype=dtype,
        revision=revision, token=token, trust_remote_code=trust_remote_code, verify=verify, **fields,
    ).model  # fmt: skip


def open_checkpoint(
    source: str | Path | nn.Module,
    *,
    task: str | None = None,
    labels: Sequence[str] | int | None = None,
    image_size: int | tuple[int, int] | None = None,
    patch_size: int | tuple[int, int] | None = None,
    dtype: torch.dtype | None = None,
    revision: str | None = None,
    token: str | None = None,
    trust_remote_code: bool = False,
    verify: bool = True,
    **fields: Any,
) -> Conversion:
    """As `load`, with the image processor and a report of the conversion."""
    if task not in (None, *TASKS):
        raise ValueError(f"`task` must be one of {list(TASKS)}, got {task!r}")
    path = None if isinstance(source, nn.Module) else locate(source, revision, token)
    conversion = _from_module(source, task, fields, verify) if isinstance(source, nn.Module) else None
    if path is not None and remote_classes(path) and not is_convertible(path):
        if not trust_remote_code:
            raise refuse_code(str(source), path)
        if labels is not None or image_size is not None or patch_size is not None or fields:
            raise ValueError(
                f"{source} has code of its own and is loaded as it is, without other labels, sizes or fields"
            )
        conversion = Conversion(*load_trusted(str(source), path, task, token), str(source), "remote code")
    elif path is not None:
        conversion = _from_path(path, task, fields, verify)
        conversion.source = str(source)
    assert conversion is not None
    model: Any = conversion.model
    if (image_size is not None or patch_size is not None) and isinstance(model.config, HubDetrConfig):
        raise ValueError("`image_size` and `patch_size` are of classifiers: a detector takes images of any size")
    if image_size is not None or patch_size is not None:
        model.set_input_size(image_size, patch_size)
        conversion.image_processor = resize_image_processor(conversion.image_processor, model.config.image_hw)
    if labels is not None:
        model.resize(labels)
    elif conversion.fresh:
        names = ", ".join(conversion.fresh)
        logger.warning("%s: not in the checkpoint and need training: %s", type(model).__name__, names)
    if dtype is not None:
        model.to(dtype)
        model.config.dtype = dtype
    model.eval()
    return conversion


def is_convertible(folder: Path) -> bool:
    """Whether a folder holds one of our models, or one of a family that becomes one of ours."""
    if not (folder / "config.json").is_file():
        return True
    config = read_config(folder)
    if "architecture" in config:
        return re.match(r"vit_|deit3?_", config["architecture"]) is not None
    return config.get("model_type") in (*_OURS, *FAMILIES, DETR_FAMILY)


def load_image_processor(source: str | Path, revision: str | None = None, token: str | None = None) -> Any:
    """The image processor of any checkpoint that `load` accepts."""
    path = locate(source, revision, token)
    if path.is_dir() and (path / "preprocessor_config.json").is_file():
        return AutoImageProcessor.from_pretrained(path)
    return open_checkpoint(source, revision=revision, token=token, verify=False).image_processor


def _from_module(model: nn.Module, task: str | None, fields: dict[str, Any], verify: bool) -> Conversion:
    if isinstance(model, VisionTransformer | VisionTransformerDistilled):
        return _from_timm(model, type(model).__name__, task, fields, verify)
    model_type = getattr(getattr(model, "config", None), "model_type", None)
    if isinstance(getattr(model, "config", None), HubViTConfig | HubDetrConfig):
        assert isinstance(model, PreTrainedModel)
        return Conversion(model, default_processor(model.config), type(model).__name__, "vithub")
    if model_type == DETR_FAMILY:
        return _from_detr(checkpoint_of(model), task, fields, model if verify else None)
    if model_type not in FAMILIES:
        raise TypeError(
            f"{type(model).__name__} is neither a ViT, DeiT, DINOv2 or DETR of transformers nor a ViT of timm"
        )
    return _from_transformers(checkpoint_of(model), task, fields, model if verify else None)


def _from_path(path: Path, task: str | None, fields: dict[str, Any], verify: bool) -> Conversion:
    checkpoint = read_checkpoint(path)
    model_type = checkpoint.config.get("model_type")
    if model_type in _OURS:
        return _from_ours(checkpoint, task, fields)
    if model_type in FAMILIES:
        native = _native_model(checkpoint) if verify else None
        return _from_transformers(checkpoint, task, fields, native)
    if model_type == DETR_FAMILY:
        return _from_detr(checkpoint, task, fields, _native_model(checkpoint) if verify else None)
    if "architecture" in checkpoint.config:
        model = timm_model(checkpoint.config)
        refuse_other_architectures(model, str(checkpoint.config["architecture"]))
        _load_strictly(model, checkpoint)
        return _from_timm(model, checkpoint.name, task, fields, verify)
    if not checkpoint.config:
        return _from_original(checkpoint, task, fields, verify)
    raise CheckpointError(
        f"{path}/config.json names the model type {model_type!r}; known are {', '.join((*FAMILIES, DETR_FAMILY))}, "
        "our own and timm's"
    )


def _from_ours(checkpoint: Checkpoint, task: str | None, fields: dict[str, Any]) -> Conversion:
    assert checkpoint.folder is not None
    config_class = _OURS[checkpoint.config["model_type"]]
    own = task_of((checkpoint.config.get("architectures") or [""])[0])
    model_class = _model_class(config_class, task or own)
    model, info = model_class.from_pretrained(checkpoint.folder, output_loading_info=True, **fields)
    _refuse_missing(checkpoint.name, info["missing_keys"], allow_heads=task not in (None, own))
    processor = _saved_processor(checkpoint) or default_processor(model.config)
    return Conversion(model, processor, checkpoint.name, "vithub", fresh=sorted(info["missing_keys"]))


def _from_transformers(
    checkpoint: Checkpoint, task: str | None, fields: dict[str, Any], native: PreTrainedModel | None
) -> Conversion:
    architecture = (checkpoint.config.get("architectures") or [""])[0]
    family = checkpoint.config["model_type"]
    native_config = AutoConfig.for_model(**checkpoint.config)
    config = config_from_transformers(native_config, architecture, has_pooler(checkpoint.state))
    built = _build(config, checkpoint.state, family, task_of(architecture), task, checkpoint.name, fields)
    built.image_processor = _saved_processor(checkpoint)
    if built.image_processor is None:
        built.image_processor = default_processor(config)
        built.notes.append("no preprocessor_config.json beside the weights: ImageNet's mean and deviation are assumed")
    if native is not None and task in (None, task_of(architecture)):
        built.differences = check_parity(built.model, native_reference(native), _sizes(config, task_of(architecture)))
    return built


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
            native_config.auxiliary_loss = False  # what is compared is the function that ours computes
    if native is not None and task in (None, own) and own == "object-detection":
        built.differences = check_detr_parity(model, native)
    return built


def _from_timm(model: nn.Module, name: str, task: str | None, fields: dict[str, Any], verify: bool) -> Conversion:
    config = config_from_timm(model)
    own = "image-classification" if getattr(model, "num_classes", 0) else "backbone"
    state = fold_register_positions(dict(model.state_dict()), config)
    built = _build(config, state, "timm", own, task, name, fields)
    cfg = dict(getattr(model, "pretrained_cfg", None) or {})
    built.image_processor = build_image_processor(
        config.image_hw,
        crop_ratio=cfg.get("crop_pct") or 0.875,
        mean=cfg.get("mean") or (0.5, 0.5, 0.5),
        std=cfg.get("std") or (0.5, 0.5, 0.5),
        interpolation=cfg.get("interpolation") or "bicubic",
        keep_aspect=cfg.get("crop_mode", "center") == "center",
    )
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
        raise CheckpointError(f"{checkpoint.name}: {error}") from error
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
    """Our model of `task` with their tensors, every one of which must find its place."""
    wanted = task or own_task
    attention = fields.pop("attn_implementation", None)
    for field_name, value in fields.items():
        if not hasattr(config, field_name):
            raise ValueError(f"`{field_name}` is no field of {type(config).__name__}")
        setattr(config, field_name, value)
    config.check()
    model_class = _model_class(type(config), wanted)
    model = model_class(config)
    if attention is not None:
        model.set_attn_implementation(attention)
    shapes = {key: tensor.shape for key, tensor in model.state_dict().items()}
    try:
        renamed, left = to_ours(state, family, shapes)
    except KeyMismatchError as error:
        raise KeyMismatchError(f"{name}: {error}") from error
    dropped = [key for key in left if wanted != own_task and _bare(key).startswith(_HEADS)]
    if unexpected := [key for key in left if key not in dropped]:
        raise KeyMismatchError(f"{name}: unexpected tensors: {', '.join(unexpected)}")
    dtype = floating_dtype(renamed)
    model.to(dtype)
    config.dtype = dtype
    missing = model.load_state_dict(renamed, strict=False).missing_keys
    _refuse_missing(name, missing, allow_heads=wanted != own_task)
    return Conversion(model, None, name, family, dropped=dropped, fresh=sorted(missing))


def _refuse_missing(name: str, missing: Sequence[str], allow_heads: bool) -> None:
    if refused := sorted(key for key in missing if not (allow_heads and _bare(key).startswith(_HEADS))):
        raise KeyMismatchError(f"{name}: missing tensors: {', '.join(refused)}")


def _bare(key: str) -> str:
    return key.split(".", 1)[1] if key.startswith(("vit.", "deit.")) else key


def task_of(architecture: str) -> str:
    """The task that a class name tells."""
    if "ForImageClassification" in architecture:
        return "image-classification"
    if architecture.endswith("ForObjectDetection"):
        return "object-detection"
    return "masked-image-modeling" if architecture.endswith("ForMaskedImageModeling") else "backbone"


def _model_class(config_class: type[PreTrainedConfig], task: str) -> type[PreTrainedModel]:
    if task not in MODELS[config_class]:
        raise ValueError(
            f"there is no {config_class.__name__} model for {task!r}, only for {sorted(MODELS[config_class])}"
        )
    return MODELS[config_class][task]


def _native_model(checkpoint: Checkpoint) -> PreTrainedModel:
    architecture = (checkpoint.config.get("architectures") or [""])[0]
    native_class = getattr(transformers, architecture, None)
    if native_class is None:
        raise CheckpointError(
            f"{checkpoint.name}/config.json names the class {architecture!r}, unknown to transformers"
        )
    without = {"add_pooling_layer": False} if architecture in WITH_POOLER and not has_pooler(checkpoint.state) else {}
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
    return AutoImageProcessor.from_pretrained(checkpoint.folder)


def default_processor(config: HubViTConfig | HubDetrConfig) -> Any:
    """ImageNet's mean and deviation, bicubic, the centre 7/8; DETR's own for a detector without a processor."""
    if isinstance(config, HubDetrConfig):
        return build_box_processor(focal=config.focal_loss)
    return build_image_processor(config.image_hw)


def _sizes(config: HubViTConfig, task: str, nonsquare: bool = False) -> list[tuple[int, int]]:
    """The checkpoint's size, and another that is not square, where the source can resample to it."""
    square = config.image_hw[0] == config.image_hw[1] and config.patch_hw[0] == config.patch_hw[1]
    if task == "masked-image-modeling" or not (square or nonsquare):
        return [config.image_hw]
    (rows, columns), (height, width) = config.grid_size, config.patch_hw
    return [config.image_hw, ((rows // 2 + 1) * height, max(1, columns // 2) * width)]


__all__ = [
    "MODELS",
    "TASKS",
    "is_convertible",
    "load",
    "load_image_processor",
    "open_checkpoint",
    "task_of",
]
