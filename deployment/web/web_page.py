"""Folder of a static web page that runs an exported classifier in the visitor's browser."""

import json
from collections.abc import Mapping
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from ...configuration.model_task import CLASSIFICATION, model_task
from ...data.argument_names import argument
from ...data.image_processing import RESAMPLING
from ...data.text.json_text import json_text
from ...hub.exported.forms import BackendError, Form
from ...hub.inference_loading import PROCESSOR
from ..preprocessing.preprocessing import PixelSteps, pixel_steps, preprocess_in_graph, write_preprocessing
from .web_runtime import VERSION

PREPROCESSING = "onnx/preprocessing.onnx"
PAGE = ("index.html", "page.css", "page.js", "worker.js")
# What transformers.js calls the precisions; it looks for the files under the names that a form has.
_DTYPES = {"fp32": "fp32", "fp16": "fp16", "int8": "q8"}
_README = """---
title: {title}
sdk: static
app_file: index.html
{models}---

A page that classifies pictures in the visitor's browser. They stay there: the page sends nothing anywhere.

It needs a web server, be it only `python -m http.server` in this folder.
"""


def check_web(model: Any, processor: Any) -> PixelSteps:
    """Returns the preprocessing of a model that a page can run.

    Raises:
        BackendError: The model is no classifier, or its preprocessing cannot be expressed as a graph.
    """
    if model_task(model) != CLASSIFICATION:
        raise BackendError(f"{argument('web')} is for image classifiers, and {type(model).__name__} is none")
    return pixel_steps(processor)


def write_web(
    folder: Path,
    form: Form,
    config: Any,
    processor: Any,
    *,
    title: str,
    runtime: Mapping[str, bytes],
) -> dict[str, Any]:
    """Adds a page to a folder with an exported classifier, and configuration files that transformers.js reads.

    Args:
        folder: Folder that holds the form's file; `config.json` and `preprocessor_config.json` are written anew.
        form: ONNX form to run, without preprocessing.
        config: Configuration of the classifier.
        processor: Its image processor.
        title: Name of the model, shown on the page.
        runtime: Content of the runtime's files by name, as `find_runtime` returns it.

    Returns:
        How the preprocessing in the graph differs from the image processor; see `preprocess_in_graph`.

    Raises:
        BackendError: The preprocessing cannot be expressed, or the model is too large for one file.
    """
    model = folder / form.file
    if (folder / form.files[1]).is_file():
        raise BackendError(f"{model.name} keeps its weights in a second file, which is more than a browser takes")
    steps, several = pixel_steps(processor), config.problem_type == "multi_label_classification"
    whole = folder / "onnx" / ".whole.onnx"
    try:
        checked = preprocess_in_graph(model, whole, steps, processor, several)
    finally:
        whole.unlink(missing_ok=True)
    write_preprocessing(folder / PREPROCESSING, steps)
    for name in PAGE:
        (folder / name).write_bytes((files(__package__) / "page" / name).read_bytes())
    (folder / "runtime").mkdir()
    for name, content in runtime.items():
        (folder / "runtime" / name).write_bytes(content)
    labels = [config.id2label[number] for number in range(config.num_labels)]
    page = {
        "title": title,
        "labels": labels,
        "multi_label": several,
        "model": form.file,
        "bytes": model.stat().st_size,
        "precision": form.precision,
        "preprocessing": PREPROCESSING,
        "runtime_bytes": sum(len(content) for name, content in runtime.items() if name.startswith("ort")),
        "runtime_tested": VERSION,
        "vithub": version("vithub"),
    }
    _write_json(folder / "page.json", page)
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


__all__ = ["PAGE", "PREPROCESSING", "check_web", "write_space_card", "write_web"]
