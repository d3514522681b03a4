"""Reading of checkpoints as data: configuration, tensors and image processor, never code or pickled objects."""

import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # public, without `as`
from torch import nn
from transformers import PreTrainedModel

from ..configuration.config_base import FORMAT_FIELD, check_format
from ..data.text.terminal_text import visible
from .known_models import known_source, near_name
from .missing_models import without_config

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".tar")
# transformers reads "file.Class", or "user/name--file.Class" for code of another repository.
_CODE_REFERENCE = re.compile(r"(?:[\w.-]+(?:/[\w.-]+)?--)?[^\W\d]\w*\.[^\W\d]\w*")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")  # which torch puts into its errors


class CheckpointError(ValueError):
    """The checkpoint is missing, incomplete or not safe to read; the message names the file."""


@dataclass
class Checkpoint:
    """Content of a checkpoint.

    Args:
        name: Origin of the checkpoint, for messages.
        state: Tensors by name.
        config: Content of `config.json`; empty for a bare file of weights.
        processor: Content of `preprocessor_config.json`, or None if the file is missing.
        folder: Local folder of the checkpoint, or None for a bare file.
    """

    name: str
    state: dict[str, torch.Tensor]
    config: dict[str, Any]
    processor: dict[str, Any] | None = None
    folder: Path | None = None


def locate(
    source: str | Path,
    revision: str | None = None,
    token: str | None = None,
    *,
    field: str | None = None,
    more: Sequence[str] = (),
) -> Path:
    """The local file or folder of a source: the path itself, or the downloaded snapshot of a Hub id.

    Args:
        source: Path, Hub id, or short name in `KNOWN_MODELS`.
        revision: Branch, tag or commit on the Hub.
        token: Access token of the Hub; None uses the token of the login.
        field: Setting that names the source, for messages; None where the source is an argument.
        more: Paths of files of a Hub id to download beside its configuration and weights.

    Raises:
        CheckpointError: The source is neither a path nor a Hub id, or the folder's `config.json` or weight index is
            damaged.
    """
    path = Path(source).expanduser()
    stated = "" if field is None else f"{field}: "
    if path.exists():
        if revision is not None:
            raise CheckpointError(f"{stated}{source} is a local path, which has no revision {revision!r}")
        return _checked(path)
    name = str(known_source(source)).removeprefix("hf-hub:").removeprefix("hf_hub:")
    try:
        validate_repo_id(name)
    except HFValidationError:
        raise CheckpointError(f"{stated}{source} is no file or folder, and no Hub id (user/name)") from None
    if name.count("/") != 1:
        raise CheckpointError(f"{stated}{source} is no file or folder; a Hub id looks like user/name{near_name(name)}")
    files = ["*.json", "*.safetensors", *more]
    return _checked(Path(snapshot_download(name, revision=revision, token=token, allow_patterns=files)))


def _checked(path: Path) -> Path:
    """Returns the path after checking the JSON files that other libraries read without checks of their own."""
    if path.is_dir():
        if (path / "config.json").is_file():
            read_config(path)
        if (path / "preprocessor_config.json").is_file():
            read_json(path / "preprocessor_config.json")
        if (path / INDEX).is_file() and not (path / WEIGHTS).is_file():
            read_index(path)
    return path


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads a checkpoint from a folder with `config.json`, or from a bare `.safetensors` or DeiT `.pth` file."""
    if path.is_file():
        return Checkpoint(str(path), read_weight_file(path), {}, folder=None)
    if not (path / "config.json").is_file():
        raise CheckpointError(without_config(path))
    config = read_config(path)
    processor_file = path / "preprocessor_config.json"
    return Checkpoint(
        name=str(path),
        state=_read_weights(path),
        config=config,
        processor=read_json(processor_file) if processor_file.is_file() else None,
        folder=path,
    )


def read_json(file: Path) -> dict[str, Any]:
    """Reads a JSON object from a file; any other content raises a `CheckpointError` that names the file."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{file} is no readable JSON: {error}") from error
    except RecursionError:
        raise CheckpointError(f"{file} is no readable JSON: it is nested too deeply") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{file} must hold a JSON object, got {type(content).__name__}")
    return content


def read_config(folder: Path) -> dict[str, Any]:
    """Reads a folder's `config.json` and checks the types of the fields that identify the model.

    Raises:
        CheckpointError: A field has a wrong type, `auto_map` names something other than a class in a file of the
            folder, or a newer version of this package wrote the file; the message names file, field and value.
    """
    file = folder / "config.json"
    config = read_json(file)
    for name in ("model_type", "architecture"):
        if not isinstance(config.get(name, ""), str):
            raise wrong_value(file, name, "a text", config[name])
    names = config.get("architectures")
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise wrong_value(file, "architectures", "a list of class names", names)
    stated = config.get("auto_map", {})
    if not isinstance(stated, dict):
        raise wrong_value(file, "auto_map", "an object", stated)
    for name, value in stated.items():
        for reference in code_references({name: value}):
            if not isinstance(reference, str) or not _CODE_REFERENCE.fullmatch(reference):
                raise wrong_value(file, f"auto_map.{name}", "FILE.CLASS, such as modeling_x.Model", reference)
    if not isinstance(config.get("backbone_config") or {}, dict):
        raise wrong_value(file, "backbone_config", "an object", config["backbone_config"])
    for name in ("dtype", "torch_dtype"):
        _check_dtype(file, name, config.get(name))
    try:
        check_format(config.get(FORMAT_FIELD, 1), str(file))
    except ValueError as error:
        raise CheckpointError(str(error)) from None
    labels = config.get("id2label")
    if labels is not None and not (isinstance(labels, dict) and all(number.isdecimal() for number in labels)):
        raise wrong_value(file, "id2label", "an object that names each number", labels)
    return config


def _check_dtype(file: Path, name: str, stated: Any) -> None:
    """Raises unless a data type is absent, names one of torch, or is an object of them, as of models in parts."""
    if stated is None or isinstance(stated, dict):
        return
    found = getattr(torch, stated.removeprefix("torch."), None) if isinstance(stated, str) else None
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise wrong_value(file, name, "a floating-point type of torch, such as float32", stated)


def code_references(stated: dict[str, Any]) -> list[Any]:
    """References in the values of an `auto_map`: each value is one reference or a list, in which null means none."""
    values = [value if isinstance(value, list) else [value] for value in stated.values()]
    return [reference for listed in values for reference in listed if reference is not None]


def read_index(folder: Path) -> dict[str, str]:
    """File name by tensor name of a sharded model, from its `model.safetensors.index.json`.

    Raises:
        CheckpointError: The index has a wrong form, or names a file that is not in the folder itself.
    """
    file = folder / INDEX
    weight_map = read_json(file).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise wrong_value(file, "weight_map", "an object that names the file of each tensor", weight_map)
    for tensor, shard in weight_map.items():
        if not isinstance(shard, str) or not re.fullmatch(r"[^/\\\0]+\.safetensors", shard):
            raise wrong_value(file, f"weight_map of {tensor!r}", "the name of a .safetensors file beside it", shard)
        if not (folder / shard).is_file():
            raise CheckpointError(f"{file} names {shard!r}, which is not in the folder")
    return weight_map


def wrong_value(file: Path, field: str, expected: str, got: Any) -> CheckpointError:
    """Error for a wrong value of a field in a file."""
    shown = repr(got)
    return CheckpointError(
        f"{file}: {field} must be {expected}, got {shown if len(shown) < 80 else shown[:76] + ' ...'}"
    )


def _read_weights(folder: Path) -> dict[str, torch.Tensor]:
    if (folder / WEIGHTS).is_file():
        return read_weight_file(folder / WEIGHTS)
    if (folder / INDEX).is_file():
        weight_map = read_index(folder)
        state: dict[str, torch.Tensor] = {}
        for shard in sorted(set(weight_map.values())):
            held = read_weight_file(folder / shard)
            if lacking := [name for name, place in weight_map.items() if place == shard and name not in held]:
                raise CheckpointError(f"{folder / INDEX} says that {shard} holds {lacking[0]!r}, which it does not")
            state |= held
        return state
    pickled = sorted(file.name for file in folder.iterdir() if file.suffix in PICKLES)
    if pickled:
        raise CheckpointError(
            f"{folder} holds weights only as a pickle ({', '.join(pickled)}), which can run code when read; "
            f"convert them to {WEIGHTS} first"
        )
    raise CheckpointError(f"{folder} holds no {WEIGHTS}, the weights that belong to its config.json")


def read_weight_file(file: Path) -> dict[str, torch.Tensor]:
    """Tensors of a `.safetensors` file, or of a `.pth` file of DeiT's authors (read with `weights_only`)."""
    if file.suffix == ".safetensors":
        try:
            state = safetensors.torch.load_file(file)
        except (safetensors.SafetensorError, OSError) as error:
            raise CheckpointError(f"{file} is no readable safetensors file: {error}") from error
        _refuse_integers(state, file)
        refuse_nonfinite(state, str(file))
        return state
    if file.suffix not in (".pth", ".pt"):
        raise CheckpointError(f"{file} must be a .safetensors file or a .pth of DeiT's authors, got {file.suffix!r}")
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises pickle, zip, runtime and other errors here
        reason = visible(_COLOURS.sub("", str(error)).splitlines()[0]) if str(error) else type(error).__name__
        raise CheckpointError(f"{file} holds more than tensors, or is damaged, and was not loaded: {reason}") from error
    state = content.get("model", content) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not state or not all(isinstance(t, torch.Tensor) for t in state.values()):
        raise CheckpointError(f"{file} must hold tensors by name, by themselves or under 'model'")
    _refuse_integers(state, file)
    refuse_nonfinite(state, str(file))
    return state


def _refuse_integers(state: Mapping[str, torch.Tensor], file: Path) -> None:
    """Refuses weights and biases stored as integers, which torch would convert without a word."""
    for name, tensor in state.items():
        if name.endswith((".weight", ".bias")) and not tensor.is_floating_point():
            raise CheckpointError(f"{file}: {name} is stored as {tensor.dtype}, and should be floating-point numbers")


def refuse_nonfinite(state: Mapping[str, torch.Tensor], place: str) -> None:
    """Refuses weights that are not finite: no output can be computed from them, and no training repairs them.

    Args:
        state: Tensors by name; tensors on the meta device are skipped.
        place: File or model, for the message.

    Raises:
        CheckpointError: Floating-point tensors are infinite or not a number; the message names the first of them.
    """
    wrong = [
        name
        for name, tensor in state.items()
        if tensor.is_floating_point() and not tensor.is_meta and not bool(torch.isfinite(tensor).all())
    ]
    if wrong:
        raise CheckpointError(f"{place}: weights are infinite or not a number in {listed(wrong)}")


def listed(names: Sequence[str]) -> str:
    """The first four names, followed by the number of the remaining ones.

    Example:
        >>> listed(["a", "b", "c", "d", "e"])
        'a, b, c, d and 1 more'
    """
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def floating_dtype(state: dict[str, torch.Tensor]) -> torch.dtype:
    """Data type of the first floating-point tensor, fp32 if there is none; counters and masks are integers."""
    return next((tensor.dtype for tensor in state.values() if tensor.is_floating_point()), torch.float32)


def checkpoint_of(model: nn.Module) -> Checkpoint:
    """Checkpoint that `save_pretrained` of a transformers model in memory would write."""
    if not isinstance(model, PreTrainedModel):
        raise TypeError(f"expected a model of transformers, got {type(model).__name__}")
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        checkpoint = read_checkpoint(Path(folder))
    checkpoint.name, checkpoint.folder = type(model).__name__, None
    return checkpoint


__all__ = [
    "WEIGHTS",
    "Checkpoint",
    "CheckpointError",
    "checkpoint_of",
    "code_references",
    "floating_dtype",
    "listed",
    "locate",
    "read_checkpoint",
    "read_config",
    "read_index",
    "read_json",
    "read_weight_file",
    "refuse_nonfinite",
    "wrong_value",
]
