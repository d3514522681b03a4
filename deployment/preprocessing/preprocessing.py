"""Preprocessing of an image processor as ONNX operations: an image's own pixels in, the model's pixels out.

Resizing is ONNX's `Resize` with `antialias` on uint8, which ONNX Runtime computes as Pillow does: one axis after the
other, each rounded to whole levels, with weights in fixed point. It runs in ONNX Runtime and in its WebAssembly build.
Products with resampling matrices would run there too, but multiply mostly zeros and hold the whole image in fp32, which
for a photo of 12 million pixels is 144 MB.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ...data.image_processing import RESAMPLING
from ...hub.exported.exported_model import PROBABILITIES
from ...hub.exported.forms import BackendError
from ...hub.exported.raw_pixels import RawPixels
from ...hub.exported.sessions import OnnxSession
from ..exports.writers import OPSET

INPUT = "image"
PIXELS = "pixel_values"
_PREFIX = "preprocessing/"
_MODES = {"bilinear": "linear", "bicubic": "cubic"}
_CUBIC = -0.5  # coefficient a of the cubic filter, in Pillow and in torch's antialiasing
# Sizes (height, width) on which the graph is compared with the processor: odd, narrow, tiny, larger and smaller.
SIZES = ((240, 320), (333, 97), (31, 45), (120, 121), (1, 9))
# Largest difference from the processor. Libraries round at different places, each axis by one level; a cubic filter
# that enlarges a hard edge amplifies that of the first axis.
MOST_LEVELS, MOST_MEAN_LEVELS = 3.0, 0.1
MOST_PROBABILITY = 1e-4  # largest difference of the whole file from its two parts


@dataclass(frozen=True)
class PixelSteps:
    """Steps of an image processor.

    Args:
        shortest_edge: Length in pixels to which the shorter side is resized, the proportions kept; None if unused.
        resized_hw: Size (height, width) in pixels to which images are resized; None keeps the proportions.
        interpolation: "bilinear" or "bicubic".
        crop_hw: Size (height, width) in pixels of the central crop; None cuts nothing.
        mean: Mean of each channel that is subtracted, in levels.
        std: Standard deviation of each channel that is divided by, in levels.
        half_to_even: Whether a crop that is half a pixel off the middle is rounded to an even offset, as torchvision
            does; otherwise it is rounded down.
    """

    shortest_edge: int | None
    resized_hw: tuple[int, int] | None
    interpolation: str
    crop_hw: tuple[int, int] | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    half_to_even: bool = False

    @property
    def image_hw(self) -> tuple[int, int] | None:
        """Size (height, width) of the result; None where it depends on the image."""
        return self.crop_hw or self.resized_hw


def pixel_steps(processor: Any) -> PixelSteps:
    """Steps of a classifier's image processor, stock or of timm.

    Raises:
        BackendError: The processor has a step that the graph cannot express; the message names it.
    """
    name = type(processor).__name__
    if isinstance(timm := getattr(processor, "data_config", None), dict):
        steps = _timm_steps(timm, name)
    else:
        steps = _stock_steps(processor.to_dict(), name)
    if len(steps.mean) != 3:
        raise BackendError(f"preprocessing in the graph needs images of 3 channels, {name} has {len(steps.mean)}")
    if steps.image_hw is None:
        raise BackendError(f"preprocessing in the graph needs one size of the model's images, {name} gives several")
    if steps.crop_hw is not None:
        least = (steps.shortest_edge, steps.shortest_edge) if steps.shortest_edge else steps.resized_hw
        if least is not None and any(side < cut for side, cut in zip(least, steps.crop_hw, strict=True) if side):
            raise BackendError(
                f"preprocessing in the graph does not pad: {name} resizes to {least[0]} x {least[1]} pixels and crops "
                f"{steps.crop_hw[0]} x {steps.crop_hw[1]}"
            )
    return steps


def _timm_steps(config: dict[str, Any], name: str) -> PixelSteps:
    _, height, width = config["input_size"]
    ratio = float(config.get("crop_pct") or 1.0)
    if config.get("crop_mode", "center") != "center" or height != width:
        raise BackendError(
            f"preprocessing in the graph takes timm's square central crop, {name} has {config.get('crop_mode')!r} of "
            f"{height} x {width}"
        )
    mean, std = (tuple(255 * float(value) for value in config[key]) for key in ("mean", "std"))
    return PixelSteps(
        int(height / ratio), None, _interpolation(config["interpolation"], name), (height, width), mean, std,
        half_to_even=True,
    )  # fmt: skip


def _stock_steps(values: dict[str, Any], name: str) -> PixelSteps:
    size, crop = values.get("size") or {}, values.get("crop_size") or {}
    resizes = bool(values.get("do_resize"))
    if not resizes or values.get("do_pad") or not ("height" in size or set(size) == {"shortest_edge"}):
        done = f"resizes to {size}" if resizes else "does not resize"
        raise BackendError(
            f"preprocessing in the graph resizes to a height and width or to a shortest_edge and does not pad; {name} "
            f"{done}{' and pads' if values.get('do_pad') else ''}"
        )
    names = {number: text for text, number in RESAMPLING.items()}
    resample = values.get("resample")
    interpolation = _interpolation(names.get(int(resample), str(resample)) if resample is not None else "", name)
    factor = float(values.get("rescale_factor") or 1 / 255) if values.get("do_rescale") else 1.0
    mean, std = values.get("image_mean"), values.get("image_std")
    if not values.get("do_normalize") or mean is None or std is None:
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    return PixelSteps(
        None if "height" in size else int(size["shortest_edge"]),
        (int(size["height"]), int(size["width"])) if "height" in size else None,
        interpolation,
        (int(crop["height"]), int(crop["width"])) if values.get("do_center_crop") else None,
        tuple(float(value) / factor for value in mean),
        tuple(float(value) / factor for value in std),
    )


def _interpolation(name: str, processor: str) -> str:
    if name not in _MODES:
        raise BackendError(
            f"preprocessing in the graph resizes by {' or '.join(_MODES)}, and {processor} by "
            f"{name or 'no named method'}"
        )
    return name


def preprocessing_nodes(steps: PixelSteps) -> tuple[list[Any], list[Any]]:
    """Nodes and constants that map `image` (B, height, width, 3), uint8, to `pixel_values`, fp32."""
    from onnx import helper, numpy_helper

    constants: dict[str, Any] = {}
    nodes: list[Any] = []

    def constant(name: str, *values: int) -> str:
        constants[_PREFIX + name] = np.array(values, np.int64)
        return _PREFIX + name

    def add(kind: str, output: str, *inputs: str, **attributes: Any) -> str:
        output = output if output == PIXELS else _PREFIX + output
        nodes.append(helper.make_node(kind, list(inputs), [output], name=f"{output}/{kind}", **attributes))
        return output

    levels = add("Transpose", "levels", INPUT, perm=[0, 3, 1, 2])
    outer = add("Shape", "outer", levels, end=2)
    if steps.resized_hw is not None:
        size = add("Concat", "size", outer, constant("resized", *steps.resized_hw), axis=0)
    else:
        assert steps.shortest_edge is not None
        inner = add("Shape", "inner", levels, start=2)
        shorter = add("ReduceMin", "shorter", inner, keepdims=1)
        # whole numbers round down, as the processors do
        scaled = add("Mul", "scaled", inner, constant("edge", steps.shortest_edge))
        sides = add("Max", "sides", add("Div", "divided", scaled, shorter), constant("one", 1))
        size = add("Concat", "size", outer, sides, axis=0)
    levels = add(
        "Resize", "resized_levels", levels, "", "", size, mode=_MODES[steps.interpolation], antialias=1,
        cubic_coeff_a=_CUBIC, exclude_outside=1, coordinate_transformation_mode="half_pixel",
    )  # fmt: skip
    if steps.crop_hw is not None:
        room = add("Sub", "room", add("Shape", "room_in", levels, start=2), constant("crop", *steps.crop_hw))
        begin = add("Div", "begin", room, constant("two", 2))
        if steps.half_to_even:
            odd = add("Mod", "odd", room, _PREFIX + "two")
            begin = add("Add", "even", begin, add("Mul", "up", odd, add("Mod", "odd_begin", begin, _PREFIX + "two")))
        end = add("Add", "end", begin, _PREFIX + "crop")
        levels = add("Slice", "cropped", levels, begin, end, constant("axes", 2, 3))
    for name in ("mean", "std"):
        constants[_PREFIX + name] = np.array(getattr(steps, name), np.float32)[:, None, None]
    real = add("Cast", "real", levels, to=1)  # fp32
    add("Div", PIXELS, add("Sub", "centred", real, _PREFIX + "mean"), _PREFIX + "std")
    return nodes, [numpy_helper.from_array(value, name) for name, value in constants.items()]


def write_preprocessing(file: Path, steps: PixelSteps, opset: int = OPSET) -> None:
    """Writes an ONNX file of the preprocessing alone."""
    import onnx
    from onnx import TensorProto, helper

    nodes, constants = preprocessing_nodes(steps)
    output = helper.make_tensor_value_info(PIXELS, TensorProto.FLOAT, ["batch", 3, *_sides(steps)])
    graph = helper.make_graph(nodes, "preprocessing", [_input()], [output], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], producer_name="vithub")
    model.ir_version = onnx.helper.find_min_ir_version_for(model.opset_import)
    onnx.checker.check_model(model)
    file.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, file)


def add_preprocessing(source: Path, target: Path, steps: PixelSteps, multi_label: bool) -> None:
    """Writes a classifier's ONNX file again with preprocessing before it and probabilities behind it.

    Args:
        source: File with the input `pixel_values` and the output `logits`; large weights may lie beside it.
        target: File to write, with the input `image` and the outputs `probabilities` and `logits`.
        steps: Steps of the image processor.
        multi_label: Whether each class has a probability of its own; otherwise they sum to 1.
    """
    import onnx
    from onnx import TensorProto, helper

    model = onnx.load(source, load_external_data=False)
    graph = model.graph
    nodes, constants = preprocessing_nodes(steps)
    taken = {name for node in graph.node for name in node.output} | {tensor.name for tensor in graph.initializer}
    assert not taken & {name for node in nodes for name in node.output}
    inner = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *inner])
    graph.initializer.extend(constants)
    del graph.input[:]
    graph.input.append(_input())
    kind = "Sigmoid" if multi_label else "Softmax"
    attributes: dict[str, Any] = {} if multi_label else {"axis": -1}
    graph.node.append(helper.make_node(kind, ["logits"], [PROBABILITIES], name=PROBABILITIES, **attributes))
    outputs = list(graph.output)
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(PROBABILITIES, TensorProto.FLOAT, ["batch", "classes"]))
    graph.output.extend(outputs)
    beside, renamed = f"{source.name}.data", f"{target.name}.data"
    for tensor in graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location" and entry.value == beside:
                entry.value = renamed
    onnx.save(model, target)
    if (source.parent / beside).is_file():
        (source.parent / beside).replace(target.parent / renamed)


def _input() -> Any:
    from onnx import TensorProto, helper

    return helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["batch", "height", "width", 3])


def _sides(steps: PixelSteps) -> Sequence[int]:
    assert steps.image_hw is not None
    return steps.image_hw


def sample_images(steps: PixelSteps) -> list[Image.Image]:
    """Images of smooth colours with hard edges and noise, of sizes for which a crop is rounded in every way."""
    side = steps.shortest_edge or max(steps.resized_hw or (0,))
    generator, images = np.random.default_rng(0), []
    for height, width in (*SIZES, *((side, side + more) for more in range(4))):
        rows, columns = np.mgrid[0:height, 0:width]
        smooth = np.stack([rows * 255 / height, columns * 255 / width, (rows + columns) % 256], axis=-1)
        smooth[(rows // 7 + columns // 5) % 2 == 0] *= 0.3
        smooth[: height // 3] = generator.integers(0, 256, (height // 3, width, 3))
        images.append(Image.fromarray(smooth.astype(np.uint8)))
    return images


def measure_preprocessing(session: Any, processor: Any, steps: PixelSteps) -> dict[str, float]:
    """Compares a file of the preprocessing with the image processor on images of several sizes.

    Args:
        session: Loaded file; called with pixels it gives a list with `pixel_values`.
        processor: Image processor.
        steps: Its steps.

    Returns:
        `largest` and `mean` absolute difference, in levels of 0 to 255.

    Raises:
        BackendError: They differ by more than rounding.
    """
    raw, std = RawPixels(), torch.tensor(steps.std)[:, None, None]
    largest, means = 0.0, []
    for image in sample_images(steps):
        wanted = processor(image, return_tensors="pt")["pixel_values"]
        found = session(raw(image, return_tensors="pt")["pixel_values"])[0]
        if found.shape != wanted.shape:
            largest, means = float("inf"), [float("inf")]
            break
        difference = (found - wanted).abs() * std
        largest = max(largest, float(difference.max()))
        means.append(float(difference.mean()))
    mean = sum(means) / len(means)
    if largest > MOST_LEVELS or mean > MOST_MEAN_LEVELS:
        raise BackendError(
            f"preprocessing in the graph cannot express {type(processor).__name__}: its pixels differ by up to "
            f"{largest:.3g} levels of 255, on average {mean:.3g}"
        )
    return {"largest": largest, "mean": mean}


def preprocess_in_graph(
    source: Path, target: Path, steps: PixelSteps, processor: Any, multi_label: bool
) -> dict[str, Any]:
    """Writes a classifier's file with preprocessing, and checks it step by step.

    The preprocessing is compared with the image processor, and the whole file with the preprocessing followed by the
    classifier's file.

    Args:
        source: Classifier's file, with the input `pixel_values`.
        target: File to write.
        steps: Steps of the image processor.
        processor: Image processor.
        multi_label: Whether each class has a probability of its own; otherwise they sum to 1.

    Returns:
        `largest_levels` and `mean_levels`, the difference of the model's pixels in levels of 0 to 255; `probabilities`,
        the largest difference from the answers on the processor's pixels, by images made for this check.

    Raises:
        BackendError: The preprocessing cannot be expressed, or the file computes something else.
    """
    alone = target.with_name("preprocessing.onnx")
    write_preprocessing(alone, steps)
    pixels_of, logits_of = OnnxSession(alone, 1), OnnxSession(source, 1)
    levels = measure_preprocessing(pixels_of, processor, steps)
    add_preprocessing(source, target, steps, multi_label)
    whole, raw, worst = OnnxSession(target, 1), RawPixels(), 0.0
    for image in sample_images(steps)[: len(SIZES)]:
        levels_in = raw(image, return_tensors="pt")["pixel_values"]
        (logits,) = logits_of(pixels_of(levels_in)[0])
        found = dict(zip(whole.outputs, whole(levels_in), strict=True))
        wanted = logits.sigmoid() if multi_label else logits.softmax(-1)
        difference = float((found[PROBABILITIES] - wanted).abs().max())
        if not difference <= MOST_PROBABILITY:
            raise BackendError(
                f"the file with preprocessing gives probabilities that differ by {difference:.2g} from its parts'"
            )
        (reference,) = logits_of(processor(image, return_tensors="pt")["pixel_values"])
        usual = reference.sigmoid() if multi_label else reference.softmax(-1)
        worst = max(worst, float((found[PROBABILITIES] - usual).abs().max()))
    alone.unlink()
    return {"largest_levels": levels["largest"], "mean_levels": levels["mean"], "probabilities": worst}


__all__ = [
    "INPUT",
    "PixelSteps",
    "add_preprocessing",
    "measure_preprocessing",
    "pixel_steps",
    "preprocess_in_graph",
    "preprocessing_nodes",
    "sample_images",
    "write_preprocessing",
]
