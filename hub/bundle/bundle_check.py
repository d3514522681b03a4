"""Check, before publication, that a folder loads without this package: it is loaded in a separate process."""

import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from PIL import Image
from transformers import AutoConfig, AutoImageProcessor, pipeline

from ..checkpoints import read_config
from ..progress_bars import quiet_transformers
from .clean_process import load_model, output_tensors
from .flat_sources import BundleError

_TASKS = {"AutoModelForImageClassification": "image-classification", "AutoModelForObjectDetection": "object-detection"}
_TIMEOUT = 900.0  # seconds
PACKAGES = ("torch", "transformers", "pillow")


@dataclass(frozen=True)
class BundleCheck:
    """Result of loading a folder in a process that could import torch, transformers and Pillow only.

    Args:
        folder: Folder that was loaded.
        classes: Module and class that each Auto class returned, by name of the Auto class.
        tensors: Names of the outputs that were identical to the bit.
        answers: Pipeline predictions for an image of noise, identical to the bit; None if there is no pipeline.
        versions: Versions of torch and transformers in that process.
    """

    folder: Path
    classes: dict[str, str]
    tensors: list[str]
    answers: list[dict[str, Any]] | None
    versions: dict[str, str]


def check_bundle(folder: str | Path) -> BundleCheck:
    """Loads a folder without this package, in a separate process, and compares all outputs to the bit.

    Raises:
        BundleError: The folder does not load there, or its outputs differ; the message names the difference.
    """
    folder = Path(folder)
    return check_bundles([folder], packages=needed_packages(folder))[0]


def needed_packages(folder: Path) -> tuple[str, ...]:
    """Packages that a folder's card requires: `PACKAGES`, plus timm and torchvision for a timm backbone."""
    config = read_config(folder) if (folder / "config.json").is_file() else {}
    backbone = config.get("backbone_config") or {}
    of_timm = ("timm", "torchvision") if backbone.get("model_type") == "timm_backbone" else ()
    return (*PACKAGES, *of_timm)


def check_bundles(
    folders: list[Path], python: str = sys.executable, packages: tuple[str, ...] = PACKAGES
) -> list[BundleCheck]:
    """Checks many folders in one process, each as `check_bundle` does.

    Args:
        folders: Folders with `config.json`, weights and, for a pipeline, `preprocessor_config.json`.
        python: Python interpreter of the process; its transformers may be of another version.
        packages: Packages that can be imported there, together with their dependencies. No version of transformers
            reads images without Pillow, and some versions need torchvision for that, whatever the model.
    """
    backend = "torchvision" if "torchvision" in packages else "pil"
    with tempfile.TemporaryDirectory(prefix="vithub-check-") as place, quiet_transformers():
        plans = [_plan(folder, Path(place) / str(number), backend) for number, folder in enumerate(folders)]
        content = {"threads": torch.get_num_threads(), "packages": packages, "requests": [p["request"] for p in plans]}
        lines = _run(content, Path(place), python)
        return [_compare(plan, json.loads(line)) for plan, line in zip(plans, lines, strict=True)]


def _plan(folder: Path, place: Path, backend: str) -> dict[str, Any]:
    """Request for the other process, and the outputs expected from it."""
    place.mkdir()
    config = AutoConfig.from_pretrained(folder)
    stated = getattr(config, "auto_map", None)
    if not stated:
        raise BundleError(f"{folder} holds no code bundle (config.json has no auto_map); save the model with vithub")
    names = _auto_classes(config, stated)
    draws = np.random.default_rng(0)
    processor = None
    if (folder / "preprocessor_config.json").is_file():
        processor = AutoImageProcessor.from_pretrained(folder, backend=backend)
        Image.fromarray(draws.integers(0, 256, (97, 131, 3), dtype=np.uint8)).save(place / "image.png")
    expected: dict[str, torch.Tensor] = {}
    pixel_values = _noise(config, draws)
    safetensors.torch.save_file({"pixel_values": pixel_values}, place / "inputs.safetensors")
    answers, task = None, None
    for name in names:
        model = load_model(name, str(folder))
        with torch.inference_mode():
            expected |= output_tensors(name, model(pixel_values))
        if processor is not None and name in _TASKS:
            task = _TASKS[name]
            answers = pipeline(task, model=model, image_processor=processor)(str(place / "image.png"))
    if processor is not None:
        with Image.open(place / "image.png") as image:
            expected["AutoImageProcessor.pixel_values"] = processor(image, return_tensors="pt")["pixel_values"]
    request = {
        "folder": str(folder.absolute()),
        "inputs": str(place / "inputs.safetensors"),
        "image": str(place / "image.png") if processor is not None else None,
        "models": names,
        "task": task,
        "outputs": str(place / "outputs.safetensors"),
    }
    return {"folder": folder, "request": request, "expected": expected, "answers": answers, "auto_map": stated}


def _auto_classes(config: Any, stated: dict[str, str]) -> list[str]:
    """Auto classes whose weights the folder holds: `AutoModel` and the one of the saved class."""
    saved = {name for name, reference in stated.items() if reference.rpartition(".")[2] in (config.architectures or [])}
    return sorted({"AutoModel", *saved})


def _noise(config: Any, draws: np.random.Generator) -> torch.Tensor:
    """Random normalised pixels (2, C, height, width) at the model's input size."""
    height, width = getattr(config, "image_hw", None) or (64, 64)
    channels = getattr(config, "num_channels", 3)
    return torch.from_numpy(draws.standard_normal((2, channels, height, width), dtype=np.float32))


def _run(content: dict[str, Any], place: Path, python: str) -> list[str]:
    requests = content["requests"]
    (place / "request.json").write_text(json.dumps(content), encoding="utf-8")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTHON", "TRANSFORMERS"))}
    quiet = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(place / "home"), "HF_MODULES_CACHE": str(place / "modules")}
    command = [python, "-I", "-W", "ignore", str(Path(__file__).with_name("clean_process.py")), "request.json"]
    try:
        done = subprocess.run(  # noqa: S603
            command, cwd=place, env=kept | quiet, capture_output=True, text=True, timeout=_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        raise BundleError(f"loading {requests[0]['folder']} without vithub took over {_TIMEOUT:.0f} seconds") from None
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"folder"')]
    if done.returncode or len(lines) != len(requests):
        failed = requests[min(len(lines), len(requests) - 1)]["folder"]
        raise BundleError(f"{failed} does not load where vithub is missing: {_reason(done.stderr, done.returncode)}")
    return lines


def _reason(stderr: str, code: int) -> str:
    """Exception that ended a process, in one line of at most 500 characters."""
    raised = list(re.finditer(r"^[\w.]*(?:Error|Exception|Interrupt|Exit)\b.*", stderr, re.MULTILINE))
    text = " ".join((stderr[raised[-1].start() :] if raised else stderr).split())
    return text[:500] or f"its process ended with {code}"


def _compare(plan: dict[str, Any], report: dict[str, Any]) -> BundleCheck:
    folder, expected = plan["folder"], plan["expected"]
    for name in ("AutoConfig", *plan["request"]["models"]):
        found, stated = report["classes"][name], plan["auto_map"][name]
        if not found.startswith("transformers_modules.") or not found.endswith(f".{stated}"):
            raise BundleError(f"{folder}: {name} gave {found} without vithub, not the bundle's {stated}")
    tensors = safetensors.torch.load_file(plan["request"]["outputs"])
    if tensors.keys() != expected.keys():
        raise BundleError(f"{folder}: without vithub it gives {sorted(tensors)}, not {sorted(expected)}")
    for name, tensor in expected.items():
        if not torch.equal(tensors[name], tensor):
            difference = (tensors[name].double() - tensor.double()).abs().max().item()
            raise BundleError(f"{folder}: without vithub, {name} differs by up to {difference:.3g}")
    if report["answers"] != json.loads(json.dumps(plan["answers"])):
        raise BundleError(f"{folder}: without vithub its pipeline answers {report['answers']}, not {plan['answers']}")
    return BundleCheck(
        folder=folder,
        classes=report["classes"],
        tensors=sorted(tensors),
        answers=report["answers"],
        versions={"torch": report["torch"], "transformers": report["transformers"]},
    )


__all__ = ["PACKAGES", "BundleCheck", "check_bundle", "check_bundles", "needed_packages"]
