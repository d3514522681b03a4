"""Parts of an ONNX graph that are written by hand: nodes with their constants, and files of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..exports.writers import OPSET


class Nodes:
    """Nodes of a part of a graph, and the constants that they use.

    Args:
        prefix: Beginning of the names of what the part computes, so that they differ from the model's own.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.nodes: list[Any] = []
        self.constants: dict[str, np.ndarray] = {}

    def constant(self, name: str, *values: float, dtype: Any = np.int64) -> str:
        """Adds a constant vector, once, and returns its name."""
        self.constants[self.prefix + name] = np.array(values, dtype)
        return self.prefix + name

    def add(self, kind: str, output: str, *inputs: str, result: bool = False, **attributes: Any) -> str:
        """Adds an operation with one output and returns the output's name.

        Args:
            kind: Name of the ONNX operation.
            output: Name of the output, within the part.
            *inputs: Names of the inputs; empty for one that is left out.
            result: Whether the output leaves the part, under its own name.
            **attributes: Attributes of the operation.
        """
        return self.add_several(kind, [output], *inputs, result=result, **attributes)[0]

    def add_several(
        self, kind: str, outputs: Sequence[str], *inputs: str, result: bool = False, **attributes: Any
    ) -> list[str]:
        """Adds an operation with several outputs and returns their names; the arguments are those of `add`."""
        from onnx import helper

        names = [output if result else self.prefix + output for output in outputs]
        self.nodes.append(helper.make_node(kind, list(inputs), names, name=f"{names[0]}/{kind}", **attributes))
        return names

    @property
    def initializers(self) -> list[Any]:
        """The constants as ONNX tensors."""
        from onnx import numpy_helper

        return [numpy_helper.from_array(value, name) for name, value in self.constants.items()]


def described(name: str, element: str, shape: Sequence[str | int]) -> Any:
    """Description of an input or output.

    Args:
        name: Name of the value.
        element: Type of its elements, such as "FLOAT", "UINT8" or "INT64".
        shape: Size of each dimension, by a name where it may differ.
    """
    from onnx import TensorProto, helper

    return helper.make_tensor_value_info(name, getattr(TensorProto, element), list(shape))


def write_part(file: Path, part: Nodes, inputs: Sequence[Any], outputs: Sequence[Any], opset: int = OPSET) -> None:
    """Writes an ONNX file of a part alone.

    Args:
        file: File to write.
        part: Nodes of the part.
        inputs: Descriptions of its inputs.
        outputs: Descriptions of its outputs.
        opset: Version of the ONNX operations.
    """
    import onnx
    from onnx import helper

    graph = helper.make_graph(part.nodes, part.prefix.strip("/"), list(inputs), list(outputs), part.initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], producer_name="vithub")
    model.ir_version = helper.find_min_ir_version_for(model.opset_import)
    onnx.checker.check_model(model)
    file.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, file)


__all__ = ["Nodes", "described", "write_part"]
