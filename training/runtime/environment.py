"""Hardware and software versions of a run."""

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

PACKAGES = ("vithub", "torch", "torchvision", "transformers", "accelerate", "datasets", "timm", "safetensors")


def software_versions() -> dict[str, str]:
    """Returns the versions of Python and of each package that affects results."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def hardware(device: str) -> str:
    """Describes the processor, and the GPUs of a run on the device type "cuda", in a few words."""
    name = platform.processor() or platform.machine()
    cpu_info = Path("/proc/cpuinfo")
    if cpu_info.is_file():
        models = [line.split(":", 1)[1].strip() for line in cpu_info.read_text().splitlines() if "model name" in line]
        name = f"{models[0]}, {len(models)} cores" if models else name
    if device == "cuda":
        name = f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}; {name}"
    return name


__all__ = ["hardware", "software_versions"]
