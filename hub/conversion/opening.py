"""Loading of any supported checkpoint as a model of this package."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import PreTrainedModel

from ...configuration.configuration_detr import HubDetrConfig
from ...data.argument_names import argument
from ...data.image_processing import resize_image_processor
from ...modeling.modeling_base import HubPreTrainedModel
from ..bundle.remote_code import load_trusted, refuse_code, remote_classes
from ..checkpoints import locate, read_config
from ..processor_settings import saved_processor
from .converted import Conversion
from .detr_checkpoints import DETR_FAMILY
from .model_classes import CONFIG_CLASSES, TASKS
from .siglip_configs import WITH_TEXT as SIGLIP_WITH_TEXT
from .sources import from_module, from_path
from .transformers_configs import FAMILIES

logger = transformers.utils.logging.get_logger(__name__)


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
    """Loads a model of this package from any checkpoint that can be converted, ready for `predict` and `explain`.

    Args:
        source: Folder, file or Hub id of a checkpoint, or a model in memory. Supported are our own models; `vit`,
            `deit`, `dinov2`, `dinov2_with_registers`, `dinov3_vit`, `siglip` (its vision tower), `siglip_vision_model`,
            `ijepa`, `vit_mae` (its encoder) and `detr` of transformers; ViT, DeiT and DINOv3 of timm; and `.pth` files
            of the authors of DeiT and DETR.
        task: "backbone", "feature-maps" (for `AutoBackbone`), "image-classification", "masked-image-modeling" or
            "object-detection"; None keeps the checkpoint's own task. A head that the checkpoint lacks is initialised
            at random, with a warning.
        labels: Class names, or the number of classes, to which the head is resized (see `resize`); None keeps the head.
        image_size: Image side, or (height, width), in pixels, to which position embeddings are resampled; None keeps
            the checkpoint's.
        patch_size: Patch side, or (height, width), in pixels, to which the patch projection is resampled; None keeps
            the checkpoint's.
        dtype: Data type of the weights; None keeps the checkpoint's.
        revision: Branch, tag or commit on the Hub.
        token: Access token of the Hub; None uses the token of the login.
        trust_remote_code: Whether to run the code that comes with a model of an unsupported kind, and return that model
            unconverted. Our models and convertible ones never need it: the code beside them is not run.
        verify: Whether to compare a converted model's outputs with the source library's, on random pixels and photos.
        **fields: Configuration fields to override, such as `drop_path_rate` or `attn_implementation`.

    Raises:
        CheckpointError: The source is missing, damaged or a pickle, or holds weights that are not finite.
        InexpressibleError: The model has features that our models lack; they are listed.
        KeyMismatchError: Tensors are missing, unexpected or of another shape; they are listed.
        ParityError: The converted model's outputs differ from the source's.
        RemoteCodeError: The model needs code that is not trusted, or that differs from the trusted code.
    """
    conversion = open_checkpoint(
        source, task=task, labels=labels, image_size=image_size, patch_size=patch_size, dtype=dtype,
        revision=revision, token=token, trust_remote_code=trust_remote_code, verify=verify, **fields,
    )  # fmt: skip
    if isinstance(conversion.model, HubPreTrainedModel):
        conversion.model.image_processor = conversion.image_processor
    return conversion.model


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
    """Loads a model as `load` does and returns it with its image processor and a report of the conversion."""
    if task not in (None, *TASKS):
        raise ValueError(f"{argument('task')} must be one of {list(TASKS)}, got {task!r}")
    path = None if isinstance(source, nn.Module) else locate(source, revision, token)
    conversion = from_module(source, task, fields, verify) if isinstance(source, nn.Module) else None
    if path is not None and remote_classes(path) and not is_convertible(path):
        if not trust_remote_code:
            raise refuse_code(str(source), path)
        if labels is not None or image_size is not None or patch_size is not None or fields:
            raise ValueError(
                f"{source} has code of its own and is loaded as it is, without other labels, sizes or fields"
            )
        conversion = Conversion(*load_trusted(str(source), path, task, token), str(source), "remote code")
    elif path is not None:
        conversion = from_path(path, task, fields, verify)
        conversion.source = str(source)
    assert conversion is not None
    model: Any = conversion.model
    if (image_size is not None or patch_size is not None) and isinstance(model.config, HubDetrConfig):
        raise ValueError(
            f"{argument('image_size')} and {argument('patch_size')} are of classifiers: a detector takes images of any "
            "size"
        )
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
    """Whether a folder holds one of our models, or a model of a family that can be converted to ours."""
    if not (folder / "config.json").is_file():
        return True
    config = read_config(folder)
    if "architecture" in config:
        return re.match(r"vit_|deit3?_", config["architecture"]) is not None
    return config.get("model_type") in (*CONFIG_CLASSES, *FAMILIES, SIGLIP_WITH_TEXT, DETR_FAMILY)


def load_image_processor(source: str | Path, revision: str | None = None, token: str | None = None) -> Any:
    """Loads the image processor of any checkpoint that `load` accepts.

    Args:
        source: Folder, file or Hub id of the checkpoint.
        revision: Branch, tag or commit on the Hub.
        token: Access token of the Hub; None uses the token of the login.
    """
    path = locate(source, revision, token)
    if path.is_dir() and (path / "preprocessor_config.json").is_file():
        return saved_processor(path)
    return open_checkpoint(source, revision=revision, token=token, verify=False).image_processor


__all__ = ["is_convertible", "load", "load_image_processor", "open_checkpoint"]
