"""Folder of a static web page that runs an exported classifier or detector in the visitor's browser."""

import json
from collections.abc import Mapping
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from PIL import Image

from ...data.image_processing import RESAMPLING
from ...data.text.json_text import json_text
from ...hub.exported.forms import BackendError, Form
from ...hub.inference_loading import PROCESSOR
from ..preprocessing.in_graph import preprocess_in_graph
from ..preprocessing.pixel_steps import PixelSteps
from ..preprocessing.readings import BoxReading, check_preprocessing, reading_of, write_reading
from .web_runtime import VERSION

PREPROCESSING = "onnx/preprocessing.onnx"
READING = "onnx/reading.onnx"  # from a detector's outputs to boxes
PAGE = ("index.html", "page.css", "page.js", "classes.js", "elements.js", "objects.js", "worker.js")
# What transformers.js calls the precisions; it looks for the files under the names that a form has.
_DTYPES = {"fp32": "fp32", "fp16": "fp16", "int8": "q8"}
_README = """---
title: {title}
sdk: static
app_file: index.html
{models}---

A page that runs an image model in the visitor's browser. Pictures stay there: the page sends nothing anywhere.

It needs a web server, be it only `python -m http.server` in this folder.
"""


def write_web(
    folder: Path,
    form: Form,
    model: Any,
    processor: Any,
    *,
    title: str,
    runtime: Mapping[str, bytes],
    calibration: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Adds a page to a folder with an exported classifier or detector, and configurations that transformers.js reads.

    Args:
        folder: Folder that holds the form's file; `config.json` and `preprocessor_config.json` are written anew.
        form: ONNX form to run, without preprocessing.
        model: Classifier or detector that was exported.
        processor: Its image processor.
        title: Name of the model, shown on the page.
        runtime: Content of the runtime's files by name, as `find_runtime` returns it.
        calibration: A classifier's entry `calibration` of `export.json`, by whose temperature the page divides logits.

    Returns:
        How the preprocessing in the graph differs from the image processor; see `preprocess_in_graph`.

    Raises:
        BackendError: The preprocessing cannot be expressed, or the model is too large for one file.
    """
    file, config = folder / form.file, model.config
    if (folder / form.files[1]).is_file():
        raise BackendError(f"{file.name} keeps its weights in a second file, which is more than a browser takes")
    steps = check_preprocessing(model, processor, "web")
    pixels = processor(Image.new("RGB", (64, 48)), return_tensors="pt")["pixel_values"]
    reading = reading_of(model, processor, pixels)
    whole = folder / "onnx" / ".whole.onnx"
    try:
        checked = preprocess_in_graph(file, whole, steps, processor, reading, keep=folder / PREPROCESSING)
    finally:
        whole.unlink(missing_ok=True)
    detects = isinstance(reading, BoxReading)
    if detects:
        write_reading(folder / READING, reading)
    for name in PAGE:
        (folder / name).write_bytes((files(__package__) / "page" / name).read_bytes())
    (folder / "runtime").mkdir()
    for name, content in runtime.items():
        (folder / "runtime" / name).write_bytes(content)
    labels = [config.id2label[number] for number in range(config.num_labels)]
    page = {
        "title": title,
        "labels": labels,
        "multi_label": config.problem_type == "multi_label_classification",
        "model": form.file,
        "bytes": file.stat().st_size,
        "precision": form.precision,
        "calibration": calibration,
        "preprocessing": PREPROCESSING,
        "reading": READING if detects else None,
        "runtime_bytes": sum(len(content) for name, content in runtime.items() if name.startswith("ort")),
        "runtime_tested": VERSION,
        "vithub": version("vithub"),
    }
    _write_json(folder / "page.json", page)
    if isinstance(reading, BoxReading):
        _write_json(folder / "config.json", _detector_config(config, reading, form, labels))
    else:
        _write_json(folder / "config.json", _web_config(config, steps, form, labels))
        _write_json(folder / PROCESSOR, _web_processor(steps))
    write_space_card(folder, title)
    return checked


def write_space_card(folder: Path, title: str, hub_id: str | None = None) -> None:
    """Writes the `README.md` with which the Hub shows a page's folder as a static Space.

    Args:
        folder: Folder of the page.
        title: Name of the model.
        hub_id: Model repository to link to; None links to none.
    """
    models = f"models:\n- {json.dumps(hub_id)}\n" if hub_id else ""
    readme = _README.format(title=json.dumps(title[:60]), models=models)
    (folder / "README.md").write_text(readme, encoding="utf-8")


def _web_config(config: Any, steps: PixelSteps, form: Form, labels: list[str]) -> dict[str, Any]:
    """Configuration for transformers.js, which refuses model types that it does not know.

    For a classifier it reads the labels and runs the graph, whatever that computes; "vit" is such a type.
    """
    assert steps.image_hw is not None
    height, width = steps.image_hw
    return {
        "architectures": ["ViTForImageClassification"],
        "model_type": "vit",
        "image_size": height if height == width else [height, width],
        "num_channels": 3,
        "id2label": {str(number): label for number, label in enumerate(labels)},
        "label2id": {label: number for number, label in enumerate(labels)},
        "problem_type": config.problem_type,
        "transformers.js_config": {"dtype": _DTYPES[form.precision]},
        "exported_from": config.model_type,
    }


def _detector_config(config: Any, reading: BoxReading, form: Form, labels: list[str]) -> dict[str, Any]:
    """Configuration of a detector for transformers.js, under the type of DETR if it is one of this package.

    A detector of this package with a sigmoid for each class keeps its type: transformers.js knows no DETR of that kind.
    """
    found: dict[str, Any] = config.to_dict()
    if found["model_type"].startswith("vithub") and reading.no_object:
        found = {
            "architectures": ["DetrForObjectDetection"],
            "model_type": "detr",
            "id2label": {str(number): label for number, label in enumerate(labels)},
            "label2id": {label: number for number, label in enumerate(labels)},
            "exported_from": config.model_type,
        }
    return {**found, "transformers.js_config": {"dtype": _DTYPES[form.precision]}}


def _web_processor(steps: PixelSteps) -> dict[str, Any]:
    """Settings of a stock image processor that transformers and transformers.js read alike."""
    resized, crop = steps.resized_hw, steps.crop_hw
    return {
        "image_processor_type": "BitImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": steps.shortest_edge} if resized is None else _size(resized),
        "resample": RESAMPLING[steps.interpolation],
        "do_center_crop": crop is not None,
        **({"crop_size": _size(crop)} if crop is not None else {}),
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [value / 255 for value in steps.mean],
        "image_std": [value / 255 for value in steps.std],
    }


def _size(image_hw: tuple[int, int]) -> dict[str, int]:
    return {"height": image_hw[0], "width": image_hw[1]}


def _write_json(file: Path, content: Mapping[str, Any]) -> None:
    file.write_text(json_text(dict(content), indent=1) + "\n", encoding="utf-8")


__all__ = ["PAGE", "PREPROCESSING", "READING", "write_space_card", "write_web"]
