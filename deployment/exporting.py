"""Export of a model to another runtime: the function behind `vithub export`."""

import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ..configuration.model_task import CLASSIFICATION, model_task
from ..data.argument_names import argument
from ..data.whole_files import whole_file, write_whole
from ..hub.any_model import load_any_model
from ..hub.calibration import calibration_to_export
from ..hub.card.model_card import CARD, write_card
from ..hub.checkpoints import locate
from ..hub.exported.exported_model import ExportedModel
from ..hub.exported.forms import (
    FORMATS,
    RECORD,
    BackendError,
    Form,
    check_files,
    file_hash,
    read_records,
    record_text,
)
from ..hub.exported.sessions import open_session
from ..hub.folders import new_folder, write_errors
from ..hub.model_identity import model_identity
from ..training.runtime.progress import QuietReporter, Reporter
from .exports.gate import Gate, GateResult
from .exports.graphs import Traced, trace
from .exports.parity import measure_parity
from .exports.quantization import Quantizer, Refused, quantize_within
from .exports.token_merging import merge_in
from .exports.writers import OPSET, check_converter, write_form
from .preprocessing.in_graph import preprocess_in_graph
from .preprocessing.pixel_nodes import INPUT
from .preprocessing.readings import check_preprocessing, reading_of
from .web.web_page import write_web
from .web.web_runtime import find_runtime

CALIBRATION_IMAGES = 100


@dataclass
class Export:
    """Exported form of a model.

    Args:
        folder: Folder that holds it, with `config.json` and `preprocessor_config.json`.
        form: Format and precision.
        record: Its entry in `export.json`.
    """

    folder: Path
    form: Form
    record: dict[str, Any]

    @property
    def file(self) -> Path:
        """Main file."""
        return self.folder / self.form.file


def export(
    model: str | Path,
    format: str = "onnx",  # noqa: A002  # the name of the command's option
    *,
    precision: str = "fp32",
    output: str | Path | None = None,
    data: Any = None,
    split: str | None = None,
    max_drop: float | None = None,
    dynamic_size: bool = False,
    with_preprocessing: bool = False,
    token_merging: int = 0,
    web: bool = False,
    web_runtime: str | Path | None = None,
    calibration_images: int = CALIBRATION_IMAGES,
    overwrite: bool = False,
    revision: str | None = None,
    reporter: Reporter | None = None,
) -> Export:
    """Exports a model to ONNX or OpenVINO, and keeps the file only if it computes what the model computes.

    The file's outputs are compared with the model's on random and, where data is given, on real pixels; with data, the
    file itself goes through the same evaluation as the model, on the same images.

    Args:
        model: Folder of a run or of any saved classifier, detector or backbone, or a Hub id.
        format: "onnx" or "openvino".
        precision: "fp32", "bf16" (OpenVINO only), "fp16" or "int8", which is calibrated with images of `data`.
        output: New folder to write; None adds the file to the model's own folder.
        data: Labelled images to calibrate with and to measure accuracy on, in any form that `evaluate` takes; None
            takes a run's own data for int8, and measures no accuracy otherwise.
        split: Name of the split to measure on; None takes the one that `evaluate` would take.
        max_drop: Largest accepted loss in percentage points of accuracy or AP50; None means 0.5 and 1.0.
        dynamic_size: Whether the graph of a ViT classifier or backbone takes images of any size. A detector's does
            anyway, unless its image processor gives all images one size.
        with_preprocessing: Whether the ONNX file of a classifier or detector resizes, crops and normalises images
            itself: it takes their uint8 pixels (batch, height, width, 3) of any size. A classifier's gives
            probabilities beside the logits, a detector's boxes in pixels of the image with scores and labels.
        token_merging: Number of tokens that the graph of a ViT or DeiT classifier of this package merges in each layer;
            0 merges none. What it loses is measured and bounded as for every form. See `merge_tokens`.
        web: Whether the new folder becomes a web page that runs the ONNX file of a classifier or detector in the
            visitor's browser.
        web_runtime: Folder that npm installed onnxruntime-web into; None takes the tested version from the cache, or
            else from the npm registry.
        calibration_images: Number of images to calibrate int8 with, at least 1.
        overwrite: Whether a form that is there already is replaced.
        revision: Branch, tag or commit of a Hub id.
        reporter: Receives the progress; None writes to the log.

    Returns:
        The export, with its entry in `export.json`: hashes and sizes of the files, versions, opset, parity, accuracy.

    Raises:
        BackendError: A package is missing, the model cannot be expressed, or the file computes something else.
        CheckpointError: The model cannot be loaded.
        DataError: The data cannot be used.
        ValueError: An argument is out of its range or goes with others, or tokens of this model cannot be merged.
    """
    form = _form(format, precision, with_preprocessing, dynamic_size)
    _check_web_options(form, web, web_runtime, output, dynamic_size)
    if calibration_images < 1:
        raise ValueError(f"{argument('calibration_images')} must be at least 1, got {calibration_images}")
    if max_drop is not None and max_drop < 0:
        raise ValueError(f"{argument('max_drop')} must be at least 0 points, got {max_drop}")
    if (split is not None or max_drop is not None) and data is None and precision != "int8":
        raise ValueError(
            f"{argument('split')} and {argument('max_drop')} need {argument('data')} to measure accuracy on"
        )
    check_converter(form.format)
    path = locate(model, revision)
    target = _target(model, path, output, form, overwrite)
    reporter = reporter or QuietReporter()
    source, processor = load_any_model(path)
    if isinstance(source, ExportedModel):
        raise BackendError(f"{model} holds exported forms and no weights: name the folder that they were exported from")
    source.eval().float()
    if token_merging:
        merge_in(source, token_merging)
    if with_preprocessing or web:
        check_preprocessing(source, processor, "web" if web else "with_preprocessing")
    runtime = find_runtime(web_runtime) if web else None
    gate = _gate(path, str(model), data, split, max_drop, form, reporter)
    with tempfile.TemporaryDirectory(prefix="vithub-export-") as folder, write_errors(path, within=path):
        work = Path(folder)
        record = _write_checked(work, form, source, processor, gate, dynamic_size, calibration_images)
        merged = {"token_merging": token_merging} if token_merging else {}
        calibration = None
        if model_task(source) == CLASSIFICATION:
            calibration = record["calibration"] = calibration_to_export(path, precision, token_merging)
        record = {**_origin(model, path), **merged, **record}
        if target is None:
            record["weights"] = {file.name: file_hash(file) for file in sorted(path.glob("*.safetensors"))}
            _add(work, path, form, record)
            if all((path / name).is_file() for name in (CARD, "recipe.yaml", "metrics.json")):
                write_card(path)
            return Export(path, form, record)
        with new_folder(target, overwrite) as staging:
            source.config.architectures = [type(source).__name__]
            source.config.save_pretrained(staging)
            processor.save_pretrained(staging)
            _add(work, staging, form, record)
            if runtime is not None:
                title = Path(model).name
                record["web"] = write_web(
                    staging, form, source, processor, title=title, runtime=runtime, calibration=calibration
                )
                write_whole(staging / RECORD, record_text({form.name: record}))
        return Export(Path(target).expanduser(), form, record)


def _form(format: str, precision: str, with_preprocessing: bool, dynamic_size: bool) -> Form:  # noqa: A002
    if format not in FORMATS:
        raise ValueError(f"{argument('format')} must be one of {', '.join(FORMATS)}, got {format!r}")
    if precision not in FORMATS[format]:
        raise ValueError(
            f"{argument('precision')} of {format} must be one of {', '.join(FORMATS[format])}, got {precision!r}"
        )
    if with_preprocessing and format != "onnx":
        raise ValueError(f"{argument('with_preprocessing')} is for onnx, got {format!r}")
    if with_preprocessing and dynamic_size:
        raise ValueError(
            f"{argument('with_preprocessing')} resizes images of any size to the model's, and takes no "
            f"{argument('dynamic_size')}"
        )
    return Form(format, precision, with_preprocessing)


def _check_web_options(form: Form, web: bool, web_runtime: Any, output: Any, dynamic_size: bool) -> None:
    if web_runtime is not None and not web:
        raise ValueError(f"{argument('web_runtime')} goes with {argument('web')}")
    if web and (form.format != "onnx" or form.pixels or dynamic_size):
        raise ValueError(
            f"{argument('web')} is for onnx, with the preprocessing in a graph of its own: it takes no "
            f"{argument('with_preprocessing')} and no {argument('dynamic_size')}"
        )
    if web and output is None:
        raise ValueError(f"{argument('web')} makes a new folder: name it as the {argument('output')}")


def _target(model: str | Path, path: Path, output: Any, form: Form, overwrite: bool) -> Path | None:
    """Folder to make; None where the form is added to the model's own folder."""
    if output is not None and Path(output).expanduser().absolute() != path.absolute():
        return Path(output)
    if not Path(model).expanduser().is_dir():
        raise ValueError(f"{argument('output')} must name a new folder for {model}, which is no local folder")
    if form.name in read_records(path) and not overwrite:
        raise BackendError(f"{path} holds {form.file} already; {argument('overwrite')} replaces it")
    return None


def _gate(
    path: Path, name: str, data: Any, split: str | None, max_drop: float | None, form: Form, reporter: Reporter
) -> Gate | None:
    if data is None and form.precision != "int8":
        return None
    if data is None and not (path / "recipe.yaml").is_file():
        raise BackendError(
            f"int8 is calibrated and measured with images, and {name} is no run with data of its own: name "
            f"{argument('data')}"
        )
    return Gate(path, name, data, split, max_drop, reporter=reporter)


def _write_checked(
    work: Path, form: Form, source: Any, processor: Any, gate: Gate | None, dynamic_size: bool, calibration_images: int
) -> dict[str, Any]:
    """Writes a form into a temporary folder and checks it; returns its entry in `export.json`."""
    core = replace(form, pixels=False)
    traced = trace(source, processor, dynamic_size)
    pixels = [_random_pixels(traced, processor)]
    if gate is not None:
        real = gate.calibration_pixels(calibration_images)
        pixels += real[:4]
    record: dict[str, Any] = {
        "format": form.format,
        "precision": form.precision,
        "image_hw": None if traced.image_hw is None else list(traced.image_hw),
        "outputs": traced.outputs,
        **({"opset": OPSET} if form.format == "onnx" else {}),
        "versions": _versions(form.format),
        "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }

    def opened(file: Path) -> ExportedModel:
        return ExportedModel(source.config, open_session(file, form), record, file.name, processor).eval()

    file, accuracy = work / core.file, None
    if form.precision == "int8":
        assert gate is not None
        with Quantizer(traced, core, real) as quantizer:
            left, refused, accuracy = _quantize(quantizer, file, gate, source, opened, pixels)
            record["int8"] = {
                "calibration_images": len(real), "calibrated_on": gate.calibrated_on,
                "layers": len(quantizer.layers), "layers_in_fp32": left,
                "refused": [{"layers_in_fp32": choice.left, "reason": choice.reason} for choice in refused],
            }  # fmt: skip
    else:
        write_form(traced, work, core)
    exported = opened(file)
    record["largest_difference"] = measure_parity(source, exported, pixels, form.precision)
    if form.pixels:
        steps, reading = check_preprocessing(source, processor), reading_of(source, processor, traced.sample)
        record["preprocessing"] = preprocess_in_graph(file, work / form.file, steps, processor, reading)
        record["input"] = {"name": INPUT, "type": "uint8", "shape": ["batch", "height", "width", 3]}
        record["outputs"] = [*reading.outputs, *record["outputs"]]
        exported, accuracy = opened(work / form.file), None
    if gate is not None:
        accuracy = accuracy or gate.measure(exported)
        gate.check(accuracy)
        record["accuracy"] = accuracy.to_dict()
    files = [name for name in form.files if (work / name).is_file()]
    record["files"] = {name: file_hash(work / name) for name in files}
    record["bytes"] = sum((work / name).stat().st_size for name in files)
    return record


def _quantize(
    quantizer: Quantizer, file: Path, gate: Gate, source: Any, opened: Any, pixels: Sequence[torch.Tensor]
) -> tuple[list[str], list[Refused], GateResult]:
    """Writes the int8 file with the fewest layers in fp32 that passes the gate."""
    results: list[GateResult] = []

    def fault(candidate: Path) -> str | None:
        results.append(gate.measure(opened(candidate)))
        result, limit = results[-1], gate.limit(results[-1])
        return None if result.drop <= limit else f"{result.drop:.2f} points of {result.measure} less"

    def error(candidate: Path) -> float:
        differences = measure_parity(source, opened(candidate), pixels, "int8")
        return max(value for name, value in differences.items() if name != "batch")

    left, refused = quantize_within(quantizer, file, fault, error)
    return left, refused, results[-1]


def _random_pixels(traced: Traced, processor: Any) -> torch.Tensor:
    """Noise as an image processor sees it; for a detector of another shape than the one that was traced."""
    if traced.image_hw is not None:
        return torch.randn(2, *traced.sample.shape[1:], generator=torch.Generator().manual_seed(1))
    noise = torch.randint(256, (160, 128, 3), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    pixels: torch.Tensor = processor(Image.fromarray(noise.numpy()), return_tensors="pt")["pixel_values"]
    return pixels


def _add(work: Path, folder: Path, form: Form, record: dict[str, Any]) -> None:
    """Moves the files of a form into a model's folder; `export.json`, which lists them, comes last."""
    records = read_records(folder) | {form.name: record}
    for name in form.files:
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if (work / name).is_file():
            with whole_file(place) as part:
                shutil.copyfile(work / name, part)
        else:
            place.unlink(missing_ok=True)
    write_whole(folder / RECORD, record_text(records))
    check_files(folder, form)


def _origin(model: str | Path, path: Path) -> dict[str, Any]:
    """Name of a model, without the path to it, its commit on the Hub, and the hashes of its files."""
    local = Path(model).expanduser()
    origin: dict[str, Any] = {"source": local.absolute().name if local.exists() else str(model)}
    if path.parent.name == "snapshots":  # where the Hub's client keeps a commit
        origin["source_commit"] = path.name
    return {**origin, "source_hashes": model_identity(path) if (path / "config.json").is_file() else {}}


def _versions(kind: str) -> dict[str, str]:
    packages = [
        "vithub",
        "torch",
        "transformers",
        *(["onnx", "onnxruntime"] if kind == "onnx" else ["openvino", "nncf"]),
    ]
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


__all__ = ["Export", "export"]
