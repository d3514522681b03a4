"""Choice of `optimize` kept beside the model, and used again while model, machine and versions are the same."""

import json
import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from ...data.text.json_text import json_text
from ...hub.checkpoints import CheckpointError
from ...hub.exported.forms import check_files, read_records
from ...hub.folders import new_folder
from ...hub.model_identity import model_identity
from .measuring import Measurement, Optimization

FOLDER, CHOICE = "fast", "choice.json"
_PACKAGES = ("vithub", "torch", "transformers", "onnxruntime", "openvino", "nncf")


def choice_key(folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Values of which a kept choice must have the same: hashes of the model, machine, versions, options."""
    return {
        "model": model_identity(folder, "torch"), "machine": machine(),
        "versions": {name: _version(name) for name in _PACKAGES}, "options": options,
    }  # fmt: skip


def machine() -> dict[str, Any]:
    """Description of the processor, of the cores that this process may use, and of the GPU if there is one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"processor": processor_name(), "cores": cores, "threads": torch.get_num_threads(), "gpu": gpu}


def processor_name() -> str:
    """Name of the processor, as Linux states it, else as Python does."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = {line.partition(":")[0].strip(): line.partition(":")[2].strip() for line in reversed(lines)}
    parts = [
        named.get("model name"),
        *(f"{field} {named[field]}" for field in ("cpu family", "model") if field in named),
    ]
    return ", ".join(part for part in parts if part) or platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def read_choice(folder: Path, key: dict[str, Any], given_images: bool) -> tuple[Optimization | None, str | None]:
    """Reads the choice kept beside a model.

    Args:
        folder: Folder of the model.
        key: Result of `choice_key`.
        given_images: Whether images to compare answers on are given now; a choice compared on random pixels is then
            not used.

    Returns:
        The measurements, and None; or None, and why a choice that is there is not used (None if there is none).
    """
    file = folder / FOLDER / CHOICE
    if not file.is_file():
        return None, None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        kept = content["key"]
        if other := [name for name in key if kept.get(name) != key[name]]:
            return None, f"it is of another {' and '.join(other)}"
        if given_images and not content["given_images"]:
            return None, "its answers were compared on random pixels only"
        rows = tuple(Measurement.from_dict(row) for row in content["measurements"])
        chosen = rows[content["chosen"]]
        form = chosen.candidate.form
        if form is not None:
            check_files(stored_folder(folder, form.name), form)
        return Optimization(rows, chosen, content["why"], content["compared_on"], 0.0, folder / FOLDER), None
    except (
        OSError,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        IndexError,
        RecursionError,
        CheckpointError,
    ) as error:
        return None, f"it cannot be used: {' '.join(str(error).split())[:200]}"


def stored_folder(folder: Path, form: str) -> Path:
    """Folder that holds the file of a form: that of the kept choice, or the model's own."""
    own = folder / FOLDER / form
    return own if form in read_records(own) else folder


def keep_choice(folder: Path, work: Path, key: dict[str, Any], found: Optimization, given_images: bool) -> Path:
    """Writes the measurements and the chosen candidate's exported file beside the model.

    Args:
        folder: Folder of the model.
        work: Folder with exported files.
        key: Result of `choice_key`.
        found: Measurements and choice.
        given_images: Whether answers were compared on given images.

    Returns:
        Folder of the choice.

    Raises:
        OSError: The folder cannot be written.
    """
    form = found.chosen.candidate.form
    content = {
        "key": key, "given_images": given_images, "compared_on": found.compared_on, "why": found.why,
        "chosen": found.measurements.index(found.chosen), "measurements": [row.to_dict() for row in found.measurements],
    }  # fmt: skip
    with new_folder(folder / FOLDER, overwrite=True) as staging:
        if form is not None and (work / form.name).is_dir():
            shutil.copytree(work / form.name, staging / form.name)
        (staging / CHOICE).write_text(json_text(content, indent=1) + "\n", encoding="utf-8")
    return folder / FOLDER


__all__ = [
    "CHOICE", "FOLDER", "choice_key", "keep_choice", "machine", "processor_name", "read_choice", "stored_folder"
]  # fmt: skip
