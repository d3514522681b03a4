"""Loading of any supported checkpoint as a model of this package."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import AutoImageProcessor, PreTrainedModel

from ...configuration.configuration_detr import HubDetrConfig
from ...data.argument_names import argument
from ...data.image_processing import resize_image_processor
from ..bundle.remote_code import load_trusted, refuse_code, remote_classes
from ..checkpoints import locate, read_config
from .converted import Conversion
from .detr_checkpoints import DETR_FAMILY
from .model_classes import CONFIG_CLASSES, TASKS
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
        CheckpointError: The source is missing, damaged or a pickle, or holds weights that are not finite.
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
    """Whether a folder holds one of our models, or one of a family that becomes one of ours."""
    if not (folder / "config.json").is_file():
        return True
    config = read_config(folder)
    if "architecture" in config:
        return re.match(r"vit_|deit3?_", config["architecture"]) is not None
    return config.get("model_type") in (*CONFIG_CLASSES, *FAMILIES, DETR_FAMILY)


def load_image_processor(source: str | Path, revision: str | None = None, token: str | None = None) -> Any:
    """The image processor of any checkpoint that `load` accepts."""
    path = locate(source, revision, token)
    if path.is_dir() and (path / "preprocessor_config.json").is_file():
        return AutoImageProcessor.from_pretrained(path)
    return open_checkpoint(source, revision=revision, token=token, verify=False).image_processor


__all__ = ["is_convertible", "load", "load_image_processor", "open_checkpoint"]
