"""Ways to compute a model's answers faster, which `optimize` measures against each other."""

import os
import shutil
import sys
from dataclasses import dataclass
from importlib.util import find_spec

import torch

from ...hub.exported.forms import Form

_PACKAGES = {"onnx": ("onnxruntime", "onnx", "onnxscript"), "openvino": ("openvino",)}
_INT8_PACKAGES = {"onnx": (), "openvino": ("nncf",)}


@dataclass(frozen=True)
class Candidate:
    """Way to compute a model's answers.

    Args:
        engine: "torch", "onnx" (ONNX Runtime) or "openvino".
        precision: "fp32", "bf16" or "int8".
        compiled: Whether torch compiles the model.
        token_merging: Number of tokens that are merged in each layer; 0 merges none.
    """

    engine: str
    precision: str = "fp32"
    compiled: bool = False
    token_merging: int = 0

    @property
    def name(self) -> str:
        """Name in tables, such as "torch bf16, compiled"."""
        more = (", compiled" if self.compiled else "") + (
            f", {self.token_merging} tokens merged" if self.token_merging else ""
        )
        return f"{self.engine} {self.precision}{more}"

    @property
    def form(self) -> Form | None:
        """Exported form that is run; None for torch."""
        return None if self.engine == "torch" else Form(self.engine, self.precision)

    def missing(self) -> str | None:
        """Names the compiler or package that a candidate lacks on this machine; None if nothing is missing."""
        if self.compiled and not torch.cuda.is_available() and (compiler := missing_compiler()):
            return f"not installed: a C++ compiler ({compiler}), which torch compiles with"
        needed = _PACKAGES.get(self.engine, ()) + (
            _INT8_PACKAGES.get(self.engine, ()) if self.precision == "int8" else ()
        )
        absent = [package for package in needed if find_spec(package) is None]
        if not absent:
            return None
        return f"not installed: {', '.join(absent)}; pip install 'vithub[{self.engine}]'"


REFERENCE = Candidate("torch")


def missing_compiler() -> str | None:
    """Name of the C++ compiler that torch would call; None if it is there."""
    usual = {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    name = os.environ.get("CXX") or usual
    return None if shutil.which(name) else name


def computes_bf16() -> bool:
    """True if the GPU, or else the processor, multiplies in bf16; other machines emulate it, which is slow."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    found: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    names = ("amx_bf16", "amx_tile", "avx512_bf16", "bf16")
    return any(bool(found.get(name)) for name in names)


def candidates_for(token_merging: int, int8: bool, compiled: bool) -> list[Candidate]:
    """Candidates besides `REFERENCE`, the most promising first.

    Args:
        token_merging: Number of tokens to merge in each layer; 0 merges none.
        int8: Whether int8 is measured too.
        compiled: Whether the compiled model is measured too.
    """
    plain = Candidate("torch", token_merging=token_merging)
    half = Candidate("torch", "bf16", token_merging=token_merging)
    fast_half = computes_bf16()
    found = [plain] if token_merging else []
    found += [half] if fast_half else []
    if not torch.cuda.is_available():  # the exported forms run on the CPU
        precisions = [("openvino", "fp32"), ("onnx", "fp32")]
        if int8:
            precisions = [("openvino", "int8"), *precisions, ("onnx", "int8")]
        if fast_half:
            precisions = [("openvino", "bf16"), *precisions]
        found += [Candidate(engine, precision, token_merging=token_merging) for engine, precision in precisions]
    found += [] if fast_half else [half]
    if compiled:
        found.append(Candidate("torch", "bf16" if fast_half else "fp32", True, token_merging))
    return found


__all__ = ["REFERENCE", "Candidate", "candidates_for", "computes_bf16", "missing_compiler"]
