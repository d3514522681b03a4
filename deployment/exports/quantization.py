"""int8 after training: calibration on real images, and layers that cost too much accuracy left in fp32.

Weights and the inputs of the products with weights are rounded to 8 bits; products of two activations (attention's)
are not, nor softmax, normalisation and activation functions. Weights use 7 of the 8 bits: processors without
instructions for int8 products (AVX2 and AVX-512 without VNNI) add two products in 16 bits, which 8 bits would overflow,
and a file should give the same answers wherever it runs.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...hub.exported.forms import BackendError, Form
from .graphs import Traced
from .writers import needs_two_files, openvino_model, quiet_converters, write_onnx

GROUPS = 4  # consecutive parts of the network whose layers are left in fp32 together


class Quantizer:
    """Writes int8 files of one graph, each with other layers left in fp32.

    Args:
        traced: Graph of the model.
        form: Form to write, of precision "int8".
        pixels: Calibration images, each (1, C, height, width).
    """

    def __init__(self, traced: Traced, form: Form, pixels: Sequence[torch.Tensor]) -> None:
        if not pixels:
            raise BackendError("int8 needs images to calibrate with: name a data set")
        self.traced, self.form, self.pixels = traced, form, pixels
        self.folder = Path(tempfile.mkdtemp(prefix="vithub-int8-"))
        self.float_file = self.folder / ("model.onnx" if form.format == "onnx" else "model.xml")
        try:
            with quiet_converters():
                if form.format == "onnx":
                    self._write_float_onnx()
                else:
                    import openvino

                    openvino.save_model(openvino_model(traced), self.float_file, compress_to_fp16=False)
        except BaseException:
            self.close()
            raise
        self.layers = self._layers()

    def __enter__(self) -> "Quantizer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Removes the temporary files."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def write(self, file: Path, left: Sequence[str] = ()) -> None:
        """Writes an int8 file.

        Args:
            file: File to write.
            left: Names of layers, among `layers`, that stay in fp32.
        """
        file.parent.mkdir(parents=True, exist_ok=True)
        with quiet_converters():
            if self.form.format == "onnx":
                self._write_onnx(file, left)
            else:
                self._write_openvino(file, left)

    def _write_float_onnx(self) -> None:
        from onnxruntime.quantization import quant_pre_process

        raw = self.folder / "raw.onnx"
        write_onnx(self.traced, raw)
        # folds constants and infers shapes, without which some products are not found; the symbolic inference of
        # ONNX Runtime does not know every operation of the newest opset
        quant_pre_process(
            str(raw), str(self.float_file), skip_symbolic_shape=True,
            save_as_external_data=needs_two_files(self.traced), external_data_location=f"{self.float_file.name}.data",
        )  # fmt: skip

    def _layers(self) -> list[str]:
        """Names of the products with weights, in the order of the computation."""
        if self.form.format == "onnx":
            import onnx

            graph = onnx.load(self.float_file, load_external_data=False).graph
            weights = {tensor.name for tensor in graph.initializer}
            return [
                node.name for node in graph.node
                if node.op_type in ("MatMul", "Gemm", "Conv") and set(node.input[1:2]) & weights
            ]  # fmt: skip
        import openvino

        model = openvino.Core().read_model(self.float_file)
        kinds = ("MatMul", "Convolution", "GroupConvolution")
        return [
            node.get_friendly_name() for node in model.get_ordered_ops()
            if node.get_type_name() in kinds and _has_weights(node)
        ]  # fmt: skip

    def _write_onnx(self, file: Path, left: Sequence[str]) -> None:
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

        quantize_static(
            str(self.float_file), str(file), _Reader(self.pixels), quant_format=QuantFormat.QDQ, per_channel=True,
            reduce_range=True, use_external_data_format=needs_two_files(self.traced),
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
            op_types_to_quantize=["MatMul", "Gemm", "Conv"], nodes_to_exclude=list(left),
            extra_options={"MatMulConstBOnly": True, "ActivationSymmetric": False},
        )  # fmt: skip

    def _write_openvino(self, file: Path, left: Sequence[str]) -> None:
        import nncf
        import openvino
        from nncf.quantization.advanced_parameters import OverflowFix

        model = openvino.Core().read_model(self.float_file)
        products = [
            node.get_friendly_name() for node in model.get_ordered_ops()
            if node.get_type_name() == "ScaledDotProductAttention"
            or (node.get_type_name() == "MatMul" and not _has_weights(node))
        ]  # fmt: skip
        ignored = [*left, *products]
        dataset = nncf.Dataset(list(self.pixels), lambda pixels: pixels.numpy())
        quantized = nncf.quantize(
            model, dataset, subset_size=len(self.pixels), model_type=nncf.ModelType.TRANSFORMER,
            ignored_scope=nncf.IgnoredScope(names=ignored) if ignored else None,
            advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=OverflowFix.ENABLE),
        )  # fmt: skip
        openvino.save_model(quantized, file, compress_to_fp16=False)


class _Reader:
    """Calibration images in the form that ONNX Runtime asks for."""

    def __init__(self, pixels: Sequence[torch.Tensor]) -> None:
        self.left: Iterator[torch.Tensor] = iter(pixels)

    def get_next(self) -> dict[str, Any] | None:
        """Returns the next image by the input's name; None after the last."""
        pixels = next(self.left, None)
        return None if pixels is None else {"pixel_values": pixels.numpy()}


def _has_weights(node: Any) -> bool:
    """Whether an OpenVINO product has constant weights, possibly behind a conversion, reshape or transpose."""
    source = node.input_value(1).get_node()
    while source.get_type_name() in ("Convert", "Reshape", "Transpose", "Multiply"):
        source = source.input_value(0).get_node()
    return str(source.get_type_name()) == "Constant"


@dataclass(frozen=True)
class Refused:
    """int8 file that did not pass.

    Args:
        left: Names of the layers that were in fp32.
        reason: Why it did not pass.
    """

    left: list[str]
    reason: str


def quantize_within(
    quantizer: Quantizer, file: Path, fault: Callable[[Path], str | None], error: Callable[[Path], float]
) -> tuple[list[str], list[Refused]]:
    """Writes the int8 file with the fewest layers in fp32 that passes, of a bounded number of choices.

    The choices: all layers in int8; the first and the last in fp32; besides, of four consecutive parts of the network
    the one that reduces the error most when it is left in fp32, then the second, and the third.

    Args:
        quantizer: Quantizer of the graph.
        file: File to write.
        fault: Why a file does not pass; None if it does.
        error: Distance of a file's answers from the source's.

    Returns:
        Names of the layers that were left in fp32, and the choices that did not pass, in their order.

    Raises:
        BackendError: No choice passes; the message says what was tried.
    """
    layers = quantizer.layers
    if not layers:
        raise BackendError("the graph has no products with weights to compute in int8")
    refused: list[Refused] = []

    def passes(left: list[str]) -> bool:
        quantizer.write(file, left)
        if (reason := fault(file)) is not None:
            refused.append(Refused(left, reason))
        return reason is None

    ends = list(dict.fromkeys([layers[0], layers[-1]]))
    for left in ([], ends):
        if passes(left):
            return left, refused
    size = -(-len(layers) // GROUPS)
    groups = [layers[first : first + size] for first in range(0, len(layers), size)]
    errors = []
    for group in groups:
        trial = quantizer.folder / f"trial{file.suffix}"
        quantizer.write(trial, [*ends, *group])
        errors.append(error(trial))
    left = ends
    for number in sorted(range(len(groups)), key=lambda place: errors[place])[: len(groups) - 1]:
        left = list(dict.fromkeys([*left, *groups[number]]))
        if passes(left):
            return left, refused
    tried = "; ".join(f"{_places(choice.left, layers)} in fp32, {choice.reason}" for choice in refused)
    raise BackendError(
        f"int8 loses too much accuracy with these calibration images, even with {len(left)} of {len(layers)} layers in "
        f"fp32: {tried}"
    )


def _places(left: Sequence[str], layers: Sequence[str]) -> str:
    """Numbers of some layers, such as "layers 1, 20 to 38, 74"; layers are counted from 1."""
    runs: list[list[int]] = []
    for place in sorted(layers.index(name) + 1 for name in left):
        if runs and place == runs[-1][-1] + 1:
            runs[-1].append(place)
        else:
            runs.append([place])
    texts = [str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs]
    return f"layers {', '.join(texts)}" if texts else "no layer"


__all__ = ["GROUPS", "Quantizer", "Refused", "quantize_within"]
