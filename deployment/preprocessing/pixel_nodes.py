"""Preprocessing of an image processor as ONNX operations: an image's own pixels in, the model's pixels out.

Resizing is ONNX's `Resize` with `antialias` on uint8, which ONNX Runtime computes as Pillow does: one axis after the
other, each rounded to whole levels, with weights in fixed point. It runs in ONNX Runtime and in its WebAssembly build.
Products with resampling matrices would run there too, but multiply mostly zeros and hold the whole image in fp32, which
for a photo of 12 million pixels is 144 MB.
"""

from pathlib import Path
from typing import Any

import numpy as np

from .nodes import Nodes, described, write_part
from .pixel_steps import MODES, PixelSteps

INPUT = "image"
PIXELS = "pixel_values"
_CUBIC = -0.5  # coefficient a of the cubic filter, in Pillow and in torch's antialiasing
_FLOAT, _INT64, _DOUBLE = 1, 7, 11  # numbers of ONNX for types of elements


def preprocessing_nodes(steps: PixelSteps) -> Nodes:
    """Nodes that map `image` (B, height, width, 3), uint8, to `pixel_values` (B, 3, height, width), fp32."""
    part = Nodes("preprocessing/")
    levels = part.add("Transpose", "levels", INPUT, perm=[0, 3, 1, 2])
    outer = part.add("Shape", "outer", levels, end=2)
    size = part.add("Concat", "size", outer, _sides(part, levels, steps), axis=0)
    levels = part.add(
        "Resize", "resized_levels", levels, "", "", size, mode=MODES[steps.interpolation],
        antialias=int(steps.antialias), cubic_coeff_a=_CUBIC, exclude_outside=int(steps.antialias),
        coordinate_transformation_mode="half_pixel",
    )  # fmt: skip
    if steps.crop_hw is not None:
        levels = _cropped(part, levels, steps)
    for name in ("mean", "std"):
        part.constants[part.prefix + name] = np.array(getattr(steps, name), np.float32)[:, None, None]
    real = part.add("Cast", "real", levels, to=_FLOAT)
    centred = part.add("Sub", "centred", real, part.prefix + "mean")
    part.add("Div", PIXELS, centred, part.prefix + "std", result=True)
    return part


def _sides(part: Nodes, levels: str, steps: PixelSteps) -> str:
    """Height and width (2,) to resize to, int64."""
    if steps.resized_hw is not None:
        return part.constant("resized", *steps.resized_hw)
    inner = part.add("Shape", "inner", levels, start=2)
    if steps.longest_edge is None and steps.most_hw is None:
        # whole numbers round down, as the processors do
        shorter = part.add("ReduceMin", "shorter", inner, keepdims=1)
        scaled = part.add("Mul", "scaled", inner, part.constant("edge", steps.shortest_edge or 0))
        sides = part.add("Div", "divided", scaled, shorter)
    else:
        given = part.add("Cast", "given", inner, to=_DOUBLE)  # Python's numbers, in which processors compute sizes
        found = _bounded(part, given, steps) if steps.most_hw is None else _fitted(part, given, steps)
        sides = part.add("Cast", "rounded_down", found, to=_INT64)
    if steps.multiple > 1:
        multiple = part.constant("multiple", steps.multiple)
        sides = part.add("Mul", "multiples", part.add("Div", "times", sides, multiple), multiple)
    return part.add("Max", "sides", sides, part.constant("one", 1))


def _bounded(part: Nodes, given: str, steps: PixelSteps) -> str:
    """Sides for a shorter side of `shortest_edge`, or of less where the longer would be beyond `longest_edge`.

    In the order of DETR's image processor, since each operation rounds.
    """
    least = part.add("ReduceMin", "least", given, keepdims=1)
    most = part.add("ReduceMax", "most", given, keepdims=1)
    wanted = part.constant("shortest_edge", steps.shortest_edge or 0, dtype=np.float64)
    limit = part.constant("longest_edge", steps.longest_edge or 0, dtype=np.float64)
    longer = part.add("Mul", "longer", part.add("Div", "proportion", most, least), wanted)
    beyond = part.add("Greater", "beyond", longer, limit)
    exact = part.add("Div", "exact", part.add("Mul", "limited", limit, least), most)
    scale = part.add("Where", "scale", beyond, exact, wanted)
    shorter = part.add("Round", "whole", scale)  # half to even, as Python's
    others = part.add("Div", "others", part.add("Mul", "scaled_sides", given, scale), least)
    found = part.add("Where", "either", part.add("Equal", "is_least", given, least), shorter, others)
    return part.add("Where", "found", part.add("Equal", "is_right", least, shorter), given, found)


def _fitted(part: Nodes, given: str, steps: PixelSteps) -> str:
    """Sides of the largest image of the same proportions within `most_hw`."""
    room = part.constant("most", *(steps.most_hw or ()), dtype=np.float64)
    scale = part.add("ReduceMin", "scale", part.add("Div", "scales", room, given), keepdims=1)
    return part.add("Mul", "found", given, scale)


def _cropped(part: Nodes, levels: str, steps: PixelSteps) -> str:
    assert steps.crop_hw is not None
    crop, two = part.constant("crop", *steps.crop_hw), part.constant("two", 2)
    room = part.add("Sub", "room", part.add("Shape", "room_in", levels, start=2), crop)
    begin = part.add("Div", "begin", room, two)
    if steps.half_to_even:
        odd = part.add("Mod", "odd", room, two)
        up = part.add("Mul", "up", odd, part.add("Mod", "odd_begin", begin, two))
        begin = part.add("Add", "even", begin, up)
    end = part.add("Add", "end", begin, crop)
    return part.add("Slice", "cropped", levels, begin, end, part.constant("axes", 2, 3))


def image_input() -> Any:
    """Description of the input: an image's own pixels."""
    return described(INPUT, "UINT8", ["batch", "height", "width", 3])


def write_preprocessing(file: Path, steps: PixelSteps) -> None:
    """Writes an ONNX file of the preprocessing alone."""
    sides = steps.image_hw or ("resized_height", "resized_width")
    output = described(PIXELS, "FLOAT", ["batch", 3, *sides])
    write_part(file, preprocessing_nodes(steps), [image_input()], [output])


__all__ = ["INPUT", "PIXELS", "image_input", "preprocessing_nodes", "write_preprocessing"]
