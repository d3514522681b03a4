"""Files with preprocessing: the model's file with operations before and behind it, checked step by step."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ...hub.exported.forms import BackendError
from ...hub.exported.raw_pixels import RawPixels
from ...hub.exported.sessions import OnnxSession
from .pixel_nodes import INPUT, PIXELS, image_input, preprocessing_nodes, write_preprocessing
from .pixel_steps import PixelSteps
from .readings import SIZE, Reading, size_nodes

# Sizes (height, width) on which the graph is compared with the processor: odd, narrow, tiny, larger and smaller.
SIZES = ((240, 320), (333, 97), (31, 45), (120, 121), (1, 9))
# Largest difference from the processor. Libraries round at different places, each axis by one level; a cubic filter
# that enlarges a hard edge amplifies that of the first axis.
MOST_LEVELS, MOST_MEAN_LEVELS = 3.0, 0.1
MOST_PROBABILITY = 1e-4  # largest difference of the whole file from its parts
MOST_RUN = 3  # images on which a model of images of any size, which is slow, is run


def add_preprocessing(source: Path, target: Path, steps: PixelSteps, reading: Reading) -> None:
    """Writes a model's ONNX file again with preprocessing before it and a reading of its outputs behind it.

    Args:
        source: File with the input `pixel_values`; large weights may lie beside it.
        target: File to write, with the input `image`, and the outputs of the reading before the model's own.
        steps: Steps of the image processor.
        reading: Reading of the outputs.
    """
    import onnx

    model = onnx.load(source, load_external_data=False)
    graph = model.graph
    before, size, behind = preprocessing_nodes(steps), size_nodes(INPUT), reading.nodes(SIZE)
    parts = [before, size, behind] if any(SIZE in node.input for node in behind.nodes) else [before, behind]
    first = [node for part in parts if part is not behind for node in part.nodes]
    taken = {name for node in graph.node for name in node.output} | {tensor.name for tensor in graph.initializer}
    assert not taken & {name for part in parts for node in part.nodes for name in node.output}
    inner = list(graph.node)
    del graph.node[:]
    graph.node.extend([*first, *inner, *behind.nodes])
    graph.initializer.extend([tensor for part in parts for tensor in part.initializers])
    del graph.input[:]
    graph.input.append(image_input())
    outputs = list(graph.output)
    del graph.output[:]
    graph.output.extend([*reading.descriptions(), *outputs])
    beside, renamed = f"{source.name}.data", f"{target.name}.data"
    for tensor in graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location" and entry.value == beside:
                entry.value = renamed
    onnx.save(model, target)
    if (source.parent / beside).is_file():
        (source.parent / beside).replace(target.parent / renamed)


def sample_images(steps: PixelSteps) -> list[Image.Image]:
    """Images of smooth colours with hard edges and noise, of sizes for which sides and a crop are rounded."""
    side = steps.shortest_edge or max(steps.resized_hw or (0,))
    near = range(4) if steps.crop_hw is not None else (3,) if steps.shortest_edge else ()
    generator, images = np.random.default_rng(0), []
    for height, width in (*SIZES, *((side, side + more) for more in near)):
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
        try:
            wanted = processor(image, return_tensors="pt")["pixel_values"]
        except (RuntimeError, ValueError):  # of an image so narrow that a side would have no pixel
            continue
        found = session(raw(image, return_tensors="pt")["pixel_values"])[0]
        if found.shape != wanted.shape:
            largest, means = float("inf"), [float("inf")]
            break
        difference = (found - wanted).abs() * std
        largest = max(largest, float(difference.max()))
        means.append(float(difference.mean()))
    mean = sum(means) / max(1, len(means))
    if largest > MOST_LEVELS or mean > MOST_MEAN_LEVELS or not means:
        raise BackendError(
            f"preprocessing in the graph cannot express {type(processor).__name__}: its pixels differ by up to "
            f"{largest:.3g} levels of 255, on average {mean:.3g}"
        )
    return {"largest": largest, "mean": mean}


def fitted_preprocessing(file: Path, steps: PixelSteps, processor: Any) -> tuple[PixelSteps, dict[str, float]]:
    """Writes a file of the preprocessing alone, by the first variant of the steps that gives the processor's pixels.

    Args:
        file: File to write.
        steps: Steps that the settings of the image processor name.
        processor: Image processor.

    Returns:
        The steps, and their differences as `measure_preprocessing` gives them.

    Raises:
        BackendError: No variant gives the pixels of the image processor.
    """
    fault: BackendError | None = None
    for variant in steps.variants():
        write_preprocessing(file, variant)
        try:
            return variant, measure_preprocessing(OnnxSession(file, 1), processor, variant)
        except BackendError as error:
            fault = fault or error
    file.unlink()
    assert fault is not None
    raise fault


def preprocess_in_graph(
    source: Path, target: Path, steps: PixelSteps, processor: Any, reading: Reading, keep: Path | None = None
) -> dict[str, Any]:
    """Writes a model's file with preprocessing, and checks it step by step.

    The preprocessing is compared with the image processor, the reading with the outputs that are read, and the whole
    file with the preprocessing followed by the model's file.

    Args:
        source: File of a classifier or detector, with the input `pixel_values`.
        target: File to write.
        steps: Steps of the image processor.
        processor: Image processor.
        reading: Reading of the outputs.
        keep: File for the preprocessing alone; None keeps none.

    Returns:
        `largest_levels` and `mean_levels`, the difference of the model's pixels in levels of 0 to 255; `probabilities`,
        the largest difference from the answers on the processor's pixels, by images made for this check.

    Raises:
        BackendError: The preprocessing cannot be expressed, or the file computes something else.
    """
    alone = keep or target.with_name("preprocessing.onnx")
    steps, levels = fitted_preprocessing(alone, steps, processor)
    pixels_of, outputs_of = OnnxSession(alone, 1), OnnxSession(source, 1)
    add_preprocessing(source, target, steps, reading)
    whole, raw, worst = OnnxSession(target, 1), RawPixels(), 0.0
    for image in sample_images(steps)[: len(SIZES) if steps.image_hw is not None else MOST_RUN]:
        levels_in = raw(image, return_tensors="pt")["pixel_values"]
        parts = _named(outputs_of, pixels_of(levels_in)[0])
        found = _named(whole, levels_in)
        difference = max(reading.fault(found, (image.height, image.width)), reading.distance(found, parts))
        if not difference <= MOST_PROBABILITY:
            raise BackendError(
                f"the file with preprocessing gives probabilities that differ by {difference:.2g} from its parts'"
            )
        usual = _named(outputs_of, processor(image, return_tensors="pt")[PIXELS])
        worst = max(worst, reading.distance(found, usual))
    if keep is None:
        alone.unlink()
    return {"largest_levels": levels["largest"], "mean_levels": levels["mean"], "probabilities": worst}


def _named(session: OnnxSession, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
    values: Sequence[torch.Tensor] = session(pixels)
    return dict(zip(session.outputs, values, strict=True))


__all__ = [
    "add_preprocessing",
    "fitted_preprocessing",
    "measure_preprocessing",
    "preprocess_in_graph",
    "sample_images",
]
