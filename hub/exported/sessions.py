"""Runtimes of exported forms: a file in, a function from pixels to named outputs out."""

import os
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from .forms import BackendError, Form, check_installed


class Session(Protocol):
    """Loaded file of an exported form."""

    outputs: list[str]  # names in order

    def __call__(self, inputs: torch.Tensor) -> list[torch.Tensor]:
        """Maps pixels to the outputs, in the order of `outputs`."""


class OnnxSession:
    """ONNX file in ONNX Runtime.

    Args:
        file: The `.onnx` file.
        threads: Number of threads; None takes ONNX Runtime's default.
    """

    def __init__(self, file: Path, threads: int | None = None) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors only
        if threads is not None:
            options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        self.outputs = [output.name for output in self.session.get_outputs()]
        self.input = self.session.get_inputs()[0].name

    def __call__(self, inputs: torch.Tensor) -> list[torch.Tensor]:
        """Maps pixels to the outputs, in the order of `outputs`."""
        values = self.session.run(None, {self.input: inputs.numpy(force=True)})
        return [torch.from_numpy(value) for value in values]


class OpenVinoSession:
    """OpenVINO file on the CPU.

    Args:
        file: The `.xml` file, with its `.bin` beside.
        precision: Precision to compute in. With "int8", what is not in int8 is computed in bf16 where the processor
            multiplies in it, else in fp32.
        threads: Number of threads; None takes OpenVINO's default.

    `computes_in` is the precision of what is not in int8: "bf16", "f16" or "f32".
    """

    def __init__(self, file: Path, precision: str, threads: int | None = None) -> None:
        import openvino

        settings: dict[str, Any] = {}
        if precision != "int8":  # of which OpenVINO's own choice is the right one
            settings["INFERENCE_PRECISION_HINT"] = {"bf16": "bf16", "fp16": "f16"}.get(precision, "f32")
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = threads
        model = openvino.Core().compile_model(str(file), "CPU", settings)
        self.computes_in = str(model.get_property("INFERENCE_PRECISION_HINT").get_type_name())
        self.outputs = [output.get_any_name() for output in model.outputs]
        self.request = model.create_infer_request()

    def __call__(self, inputs: torch.Tensor) -> list[torch.Tensor]:
        """Maps pixels to the outputs, in the order of `outputs`."""
        # the input is read where it lies: nobody changes it before the answer is there
        found = self.request.infer([np.ascontiguousarray(inputs.numpy(force=True))], share_inputs=True)
        return [torch.from_numpy(value.copy()) for value in found.values()]


def open_session(file: Path, form: Form, threads: int | None = None) -> Session:
    """Loads the file of a form.

    Args:
        file: Main file of the form.
        form: Format and precision.
        threads: Number of threads; None takes OMP_NUM_THREADS where it is set, else the runtime's default.

    Raises:
        BackendError: The runtime is not installed, or cannot read the file.
    """
    check_installed(form.format)
    if threads is None and (limit := os.environ.get("OMP_NUM_THREADS", "")).isdigit():
        threads = int(limit)
    try:
        if form.format == "onnx":
            return OnnxSession(file, threads)
        return OpenVinoSession(file, form.precision, threads)
    except Exception as error:  # the runtimes raise errors of their own kinds for a file of a newer version
        reason = " ".join(str(error).split())[:300]
        raise BackendError(f"{file} cannot be run by the installed {form.format} runtime: {reason}") from error


__all__ = ["OnnxSession", "OpenVinoSession", "Session", "open_session"]
