"""Writers of exported files: ONNX through torch's exporter, OpenVINO through its converter."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ...hub.exported.forms import BackendError, Form, check_installed
from .graphs import Traced

OPSET = 20
LARGEST_IN_ONE_FILE = 1_500_000_000  # bytes of weights; a protobuf, which an ONNX file is, ends at 2 GiB


def write_form(traced: Traced, folder: Path, form: Form) -> None:
    """Writes the file of a form in fp32, bf16 or fp16 into a model's folder.

    Raises:
        BackendError: A package is missing, or an operation of the model cannot be expressed; the message names it.
    """
    file = folder / form.file
    file.parent.mkdir(parents=True, exist_ok=True)
    check_converter(form.format)
    try:
        with _quiet():
            if form.format == "onnx":
                write_onnx(traced, file, half=form.precision == "fp16")
            else:
                write_openvino(traced, file, half=form.precision in ("fp16", "bf16"))
    except BackendError:
        raise
    except Exception as error:  # the converters raise errors of their own kinds
        raise BackendError(f"{form.format} cannot express this model: {_operation(str(error))}") from error


def check_converter(kind: str) -> None:
    """Raises a `BackendError` if the packages that write a format are missing."""
    from importlib.util import find_spec

    check_installed(kind)
    for module in ("onnx", "onnxscript") if kind == "onnx" else ():
        if find_spec(module) is None:
            raise BackendError(f"writing ONNX needs the package {module}; pip install 'vithub[onnx]'")


def write_onnx(traced: Traced, file: Path, half: bool = False) -> None:
    """Writes an ONNX file; large weights go into a file beside it."""
    program = torch.onnx.export(
        traced.program, (traced.sample,), dynamo=True, opset_version=OPSET, input_names=["pixel_values"],
        output_names=traced.outputs, verbose=False,
    )  # fmt: skip
    assert program is not None
    program.save(file, external_data=needs_two_files(traced))
    if half:
        import onnx
        from onnxruntime.transformers.float16 import convert_float_to_float16

        # pixels and outputs stay fp32; LayerNorm sums in fp16 would overflow
        kept = ["LayerNormalization", "Resize", "Softmax"]
        model, beside = convert_float_to_float16(str(file), keep_io_types=True, op_block_list=kept), f"{file.name}.data"
        (file.parent / beside).unlink(missing_ok=True)
        onnx.save(model, file, save_as_external_data=needs_two_files(traced), location=beside)


def needs_two_files(traced: Traced) -> bool:
    """Returns True if a graph's weights exceed `LARGEST_IN_ONE_FILE` bytes and lie beside the ONNX file."""
    weights = traced.program.state_dict.values()
    return sum(tensor.numel() * tensor.element_size() for tensor in weights) > LARGEST_IN_ONE_FILE


def write_openvino(traced: Traced, file: Path, half: bool = False) -> None:
    """Writes an OpenVINO model, an `.xml` and a `.bin` file, its weights in 16 bits if `half`."""
    import openvino

    openvino.save_model(openvino_model(traced), file, compress_to_fp16=half)


def openvino_model(traced: Traced) -> Any:
    """Converts a graph to OpenVINO's model, with the names of its input and outputs and its fixed image size."""
    import openvino

    model = openvino.convert_model(traced.program)
    model.inputs[0].set_names({"pixel_values"})
    for output, name in zip(model.outputs, traced.outputs, strict=True):
        output.set_names({name})
    sides = [-1, -1] if traced.image_hw is None else list(traced.image_hw)
    model.reshape([-1, traced.sample.shape[1], *sides])
    return model


def _operation(text: str) -> str:
    """Shortens a converter's message to the lines that name an operation, or to its beginning."""
    lines = [line.strip() for line in text.splitlines() if "aten." in line or "No conversion" in line]
    return " ".join(" ".join(lines or [text]).split())[:300]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Holds back what the converters print, log and warn about their own code."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "nncf", "root")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


quiet_converters = _quiet

__all__ = [
    "OPSET",
    "check_converter",
    "needs_two_files",
    "openvino_model",
    "quiet_converters",
    "write_form",
    "write_onnx",
    "write_openvino",
]
