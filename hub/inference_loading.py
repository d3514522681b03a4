"""Strict loading of models for inference: complete, finite weights that fit the configuration, or an error.

transformers only warns when it fills missing tensors with random weights or ignores unknown tensors; a model used for
inference must have neither.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from PIL import Image
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import CONFIG_MAPPING, AutoConfig, AutoImageProcessor, AutoModel, PreTrainedModel

from ..modeling.modeling_base import HubPreTrainedModel
from .checkpoints import (
    INDEX,
    PICKLES,
    WEIGHTS,
    CheckpointError,
    listed,
    read_config,
    read_index,
    read_json,
    refuse_nonfinite,
)
from .processor_settings import check_processor_settings

PROCESSOR = "preprocessor_config.json"
_INTEGERS = ("I8", "I16", "I32", "I64", "U8", "U16", "U32", "U64", "BOOL")


def load_for_inference(auto_class: Any, folder: Path, what: str) -> PreTrainedModel:
    """Loads a model in evaluation mode, in the data type of its weights, with every tensor from the checkpoint.

    Args:
        auto_class: Auto class of transformers, such as `AutoModelForImageClassification`.
        folder: Local folder with `config.json` and safetensors weights.
        what: Kind of the model for messages, such as "an image classifier".

    Raises:
        CheckpointError: A file is missing or damaged, or a tensor is missing, unknown, of another shape or type, or
            not finite; the message names file and tensor.
    """
    refuse_unknown_type(folder)
    files = weight_files(folder)
    types = _stored_types(files)
    verbosity = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity_error()  # it reports missing tensors; here they are an error
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, **corrected_fields(folder))
        model, info = auto_class.from_pretrained(
            folder,
            config=config,
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except Exception as error:  # a damaged configuration lets transformers raise errors of any kind
        raise CheckpointError(f"{folder} could not be loaded as {what}: {first_line(error)}") from error
    finally:
        transformers.utils.logging.set_verbosity(verbosity)
    if model.main_input_name != "pixel_values":
        kind = type(model).__name__
        raise CheckpointError(
            f"{folder} could not be loaded as {what}: {kind} takes {model.main_input_name}, not pixel_values"
        )
    place = str(files[0]) if len(files) == 1 else str(folder / INDEX)
    _refuse_misfits(model, info, place, what, headless=auto_class is AutoModel)
    _refuse_types(model, types, place)
    refuse_nonfinite(model.state_dict(), place)
    _check_labels(model, folder)
    model.eval()
    assert isinstance(model, PreTrainedModel)
    return model


def corrected_fields(folder: Path) -> dict[str, Any]:
    """Fields for `AutoConfig.from_pretrained` in place of those that the loading of transformers 5.23 fails on.

    timm 1.0.31 states the number of classes again among the arguments of the architecture (`model_args`), and
    transformers passes both to `timm.create_model`, which raises "multiple values for keyword argument".

    Args:
        folder: Local folder with `config.json`.

    Returns:
        `model_args` without the repetition for a folder that timm saved so, otherwise nothing.
    """
    config = read_config(folder)
    arguments = config.get("model_args")
    if "architecture" in config and isinstance(arguments, dict) and "num_classes" in arguments:
        return {"model_args": {name: value for name, value in arguments.items() if name != "num_classes"}}
    return {}


def refuse_unknown_type(folder: Path) -> None:
    """Raises a `CheckpointError` where `config.json` names no model type, or one that transformers has no class for.

    transformers' own error says that the code beside the weights must be run, which is never done here.
    """
    config = read_config(folder)
    model_type = config.get("model_type")
    if model_type is None and "architecture" not in config:  # which timm's files state instead
        raise CheckpointError(f"{folder / 'config.json'} states no model_type, which says what the model is")
    if model_type is not None and model_type not in CONFIG_MAPPING:
        code = "; the code beside it is not run" if config.get("auto_map") else ""
        raise CheckpointError(
            f"{folder / 'config.json'}: model_type {model_type!r} is unknown to transformers "
            f"{transformers.__version__}{code}"
        )


def load_processor(folder: Path) -> Any:
    """Loads the image processor of a folder and tests it on a small image.

    Raises:
        CheckpointError: `preprocessor_config.json` is missing or damaged, or gives no usable processor.
    """
    file = folder / PROCESSOR
    if file.is_file():
        check_processor_settings(file, read_json(file))
    elif "architecture" in read_config(folder):  # timm states the preprocessing in config.json
        file = folder / "config.json"
    else:
        raise CheckpointError(
            f"{folder} holds no {PROCESSOR}, which says how an image becomes pixels: copy that of the checkpoint which "
            "the model was made from into the folder"
        )
    try:
        processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=False)
        pixels = processor(Image.new("RGB", (64, 48), (128, 64, 32)), return_tensors="pt")["pixel_values"]
    except Exception as error:  # a damaged field lets transformers raise errors of any kind
        raise CheckpointError(f"{file} gives no usable image processor: {first_line(error)}") from error
    if pixels.ndim != 4 or not bool(torch.isfinite(pixels).all()):
        raise CheckpointError(f"{file} gives no usable image processor: its pixels are {_described(pixels)}")
    return processor


def run_model(model: Any, source: str | Path, **inputs: Any) -> Any:
    """Runs a loaded model and turns failures into an error that names the model.

    Raises:
        CheckpointError: The model cannot be run on the pixels that its image processor produces.
    """
    try:
        return model(**inputs)
    except torch.OutOfMemoryError:
        raise
    except (ValueError, TypeError, RuntimeError, IndexError, KeyError) as error:
        shapes = ", ".join(f"{name} {tuple(value.shape)}" for name, value in inputs.items() if hasattr(value, "shape"))
        raise CheckpointError(
            f"{source}: the model cannot be run on what its {PROCESSOR} makes of an image ({shapes}): "
            f"{first_line(error)}"
        ) from error


def refuse_nonfinite_scores(logits: torch.Tensor, source: str | Path, name_of: Callable[[int], str]) -> None:
    """Raises a `CheckpointError` if scores are not finite.

    Args:
        logits: (B, ...), one row per image.
        source: Name or path of the model, for the message.
        name_of: Function from a row, 0 to B - 1, to the name of its image.
    """
    finite = torch.isfinite(logits).flatten(1).all(dim=1).tolist()
    if wrong := [name_of(row) for row, good in enumerate(finite) if not good]:
        raise CheckpointError(f"{source}: the model's scores are infinite or not a number, for {', '.join(wrong[:5])}")


def weight_files(folder: Path) -> list[Path]:
    """Safetensors files of a folder's weights.

    Raises:
        CheckpointError: The folder holds no weights, or its weight index is damaged or names a missing file.
    """
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        return [folder / shard for shard in sorted(set(read_index(folder).values()))]
    pickled = sorted(file.name for file in folder.iterdir() if file.suffix in PICKLES)
    more = f"; {', '.join(pickled)} can run code when read, convert it to {WEIGHTS} first" if pickled else ""
    raise CheckpointError(f"{folder} holds no {WEIGHTS}, the weights that belong to its config.json{more}")


def first_line(error: BaseException) -> str:
    """Message of an error of another library, in one line of at most 300 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:297]}..."


def _stored_types(files: Iterable[Path]) -> dict[str, str]:
    """Stored data type by tensor name, such as "F32"."""
    types: dict[str, str] = {}
    for file in files:
        try:
            with safe_open(file, framework="pt") as stored:
                types |= {name: str(stored.get_slice(name).get_dtype()) for name in stored.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{file} is no readable safetensors file: {first_line(error)}") from error
    return types


def _refuse_misfits(model: PreTrainedModel, info: dict[str, Any], place: str, what: str, headless: bool) -> None:
    shapes = [f"{name} {tuple(stored)} (the model's is {tuple(own)})" for name, stored, own in info["mismatched_keys"]]
    if shapes:
        raise CheckpointError(f"{place}: other shapes than config.json says: {listed(sorted(shapes))}")
    # neither is used: batch norm counts batches in training only, and explanations do not need the pooler
    unused = r"num_batches_tracked$" + (r"|(^|\.)pooler\." if headless else "")
    if missing := sorted(name for name in info["missing_keys"] if not re.search(unused, name)):
        raise CheckpointError(
            f"{place} is not the whole of {what}: {type(model).__name__} needs {listed(missing)}, which it lacks"
        )
    unknown = sorted(info["unexpected_keys"])
    if not isinstance(model, HubPreTrainedModel):
        unknown = _of_more_layers(unknown, set(model.state_dict()))
    if unknown:
        raise CheckpointError(f"{place} holds tensors for which config.json has no place: {listed(unknown)}")


def _of_more_layers(unknown: Sequence[str], known: set[str]) -> list[str]:
    """Unknown tensors whose names differ from known ones in the layer number only.

    Such tensors mean that the configuration states too few layers. Other unknown tensors are common in checkpoints of
    transformers: poolers, counters of batch norm.
    """
    layers = {re.sub(r"(?<=\.)\d+(?=\.)", "*", name) for name in known}
    return [name for name in unknown if re.sub(r"(?<=\.)\d+(?=\.)", "*", name) in layers]


def _refuse_types(model: nn.Module, types: dict[str, str], place: str) -> None:
    own = model.state_dict()
    for name, kind in types.items():
        found = [key for key in own if key == name or key.endswith(f".{name}")]
        real = any(own[key].is_floating_point() for key in found) or (not found and name.endswith((".weight", ".bias")))
        if real and kind in _INTEGERS:
            raise CheckpointError(f"{place}: {name} is stored as {kind}, and should be floating-point numbers")
    if {"F16", "BF16"} <= set(types.values()):
        rarer = min(("F16", "BF16"), key=list(types.values()).count)
        names = [name for name, kind in types.items() if kind == rarer]
        raise CheckpointError(f"{place} holds tensors of both F16 and BF16; {rarer} are {listed(names)}")


def _check_labels(model: Any, folder: Path) -> None:
    names, count = model.config.id2label, model.config.num_labels
    if sorted(names) != list(range(count)):
        raise CheckpointError(f"{folder / 'config.json'}: id2label must name the classes 0 to {count - 1}, got {names}")


def _described(pixels: torch.Tensor) -> str:
    return f"of shape {tuple(pixels.shape)}" if pixels.ndim != 4 else "infinite or not a number"


__all__ = [
    "PROCESSOR",
    "corrected_fields",
    "first_line",
    "load_for_inference",
    "load_processor",
    "refuse_nonfinite_scores",
    "refuse_unknown_type",
    "run_model",
    "weight_files",
]
