"""Settings of torch for CUDA that a recipe states, applied for a run and then restored."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch

from ..recipe.sections import TrainingSettings

# cuBLAS gives the same bits only with a workspace of fixed buffers (NVIDIA's documentation, "Results reproducibility").
WORKSPACE, FIXED_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
_NO_FORM = re.compile(r"^(\S+) does not have a deterministic implementation")  # torch has no error type for it


class NotDeterministicError(RuntimeError):
    """Error raised where `training.deterministic` is set and an operation has no deterministic form."""


@contextmanager
def deterministic_algorithms(settings: TrainingSettings, device: torch.device) -> Iterator[None]:
    """Context in which CUDA computes the same bits from run to run, if the recipe asks for it.

    Other devices are left as they are; on a CPU equal runs give the same bits anyway.

    Raises:
        NotDeterministicError: An operation has no deterministic form; the message names it.
    """
    if not settings.deterministic or device.type != "cuda":
        yield
        return
    with all_deterministic():
        yield


@contextmanager
def all_deterministic() -> Iterator[None]:
    """Context of torch's deterministic algorithms, on every device; see `deterministic_algorithms`."""
    cuda = torch.backends.cuda
    with ExitStack() as stack:
        for read, write, value in (
            (torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms, True),
            # Of the fused kernels of attention only flash attention has a deterministic backward pass in every version.
            (cuda.mem_efficient_sdp_enabled, cuda.enable_mem_efficient_sdp, False),
            (cuda.cudnn_sdp_enabled, cuda.enable_cudnn_sdp, False),
            (lambda: torch.backends.cudnn.deterministic, _set_cudnn_deterministic, True),
            (lambda: torch.backends.cudnn.benchmark, _set_cudnn_benchmark, False),
            (lambda: os.environ.get(WORKSPACE), _set_workspace, os.environ.get(WORKSPACE, FIXED_WORKSPACE)),
        ):
            _set_until_end(stack, read, write, value)
        try:
            yield
        except RuntimeError as error:
            if (found := _NO_FORM.match(str(error))) is None:
                raise
            raise NotDeterministicError(
                f"training.deterministic: {found[1]} has no deterministic form; leave the option out, or the model, "
                "augmentation or loss that uses this operation"
            ) from error


@contextmanager
def fast_arithmetic(settings: TrainingSettings, device: torch.device) -> Iterator[None]:
    """Context of the recipe's TF32 and cuDNN benchmark on CUDA; other devices are left as they are."""
    if device.type != "cuda":
        yield
        return
    with cuda_arithmetic(settings):
        yield


@contextmanager
def cuda_arithmetic(settings: TrainingSettings) -> Iterator[None]:
    """Context of the recipe's TF32 and cuDNN benchmark, whatever the device; see `fast_arithmetic`."""
    precision = "high" if settings.tf32 else "highest"
    with ExitStack() as stack:
        _set_until_end(stack, torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, precision)
        _set_until_end(stack, lambda: torch.backends.cudnn.allow_tf32, _set_cudnn_tf32, settings.tf32)
        _set_until_end(stack, lambda: torch.backends.cudnn.benchmark, _set_cudnn_benchmark, settings.cudnn_benchmark)
        yield


def cuda_facts(settings: TrainingSettings, device: torch.device) -> dict[str, bool]:
    """Returns the settings that are in force on a device, for `metrics.json`."""
    names = ("tf32", "cudnn_benchmark", "deterministic")
    return {name: device.type == "cuda" and getattr(settings, name) for name in names}


def without_effect(settings: TrainingSettings, device: torch.device) -> list[str]:
    """Names the options for CUDA that are set and do nothing on another device, each with the reason."""
    if device.type == "cuda":
        return []
    found = []
    if settings.deterministic:
        found.append(
            f"training.deterministic does nothing on {device.type}: equal runs give the same bits there anyway"
        )
    if settings.cudnn_benchmark:
        found.append(f"training.cudnn_benchmark does nothing on {device.type}, which has no cuDNN")
    return found


def _set_until_end(stack: ExitStack, read: Callable[[], object], write: Callable[..., object], value: object) -> None:
    before = read()
    write(value)
    stack.callback(write, before)


def _set_cudnn_deterministic(value: bool) -> None:
    torch.backends.cudnn.deterministic = value


def _set_cudnn_benchmark(value: bool) -> None:
    torch.backends.cudnn.benchmark = value


def _set_cudnn_tf32(value: bool) -> None:
    torch.backends.cudnn.allow_tf32 = value


def _set_workspace(value: str | None) -> None:
    if value is None:
        os.environ.pop(WORKSPACE, None)
    else:
        os.environ[WORKSPACE] = value


__all__ = [
    "NotDeterministicError",
    "all_deterministic",
    "cuda_arithmetic",
    "cuda_facts",
    "deterministic_algorithms",
    "fast_arithmetic",
    "without_effect",
]
