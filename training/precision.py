"""The number format of matrix products."""

from typing import Any

import torch


def resolve_precision(wanted: str, device: torch.device) -> str:
    """ "fp32", "bf16" or "fp16" for a recipe's precision: "auto" is bf16 where the device computes in it, else fp32."""
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


__all__ = ["has_fast_bf16", "resolve_precision"]
