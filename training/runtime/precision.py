"""Number format of matrix products: choice of precision, and removal of autocast from a model."""

from typing import Any

import torch
from torch import nn

from .compat import ORIGINAL_FORWARD


def resolve_precision(wanted: str, device: torch.device) -> str:
    """Returns "fp32", "bf16" or "fp16"; "auto" is "bf16" if the device has instructions for it, else "fp32"."""
    if wanted != "auto":
        return wanted
    return "bf16" if has_fast_bf16(device) else "fp32"


def has_fast_bf16(device: torch.device) -> bool:
    """Whether the device has instructions for bf16 matrix products."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("amx_tile"))
    return False


def undo_autocast(model: nn.Module) -> None:
    """Makes a model compute in the dtype of its weights again.

    `Accelerator.prepare` puts an autocasting `forward` into the model itself, not only into the returned object.
    """
    own = vars(model)
    original = own.pop(ORIGINAL_FORWARD, None)
    if original is None or "forward" not in own:
        return
    del own["forward"]
    if model.forward != original:  # the replaced forward was set on the model itself, not defined by its class
        model.forward = original


__all__ = ["has_fast_bf16", "resolve_precision", "undo_autocast"]
