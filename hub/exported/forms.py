"""Exported forms of a model: their files, their records in `export.json`, and the choice of one.

Files lie where other tools look for them: `onnx/model.onnx` (transformers.js, Optimum), `openvino/openvino_model.xml`.
An ONNX file with preprocessing, which takes an image's own pixels, lies beside as `onnx/model_pixels.onnx`: the others
would not know its input. Each form's entry in `export.json` states how it was made and the hashes of its files.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ...data.text.json_text import json_text
from ..checkpoints import CheckpointError, locate, read_json

RECORD = "export.json"
SOURCE = "torch"  # name of the weights themselves, in place of a form's
FORMATS: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "onnx": ("fp32", "fp16", "int8"), "openvino": ("fp32", "bf16", "fp16", "int8")
})  # fmt: skip
_PIXELS = "pixels"  # in names of forms that preprocess images themselves
_STEMS = {"onnx": "onnx/model", "openvino": "openvino/openvino_model"}
_MODULES = {"onnx": "onnxruntime", "openvino": "openvino"}
# Names that transformers.js and Optimum give to the precisions; bf16 is a way to run a file of fp32 weights.
_ENDINGS = {
    "onnx": {"fp32": ".onnx", "fp16": "_fp16.onnx", "int8": "_quantized.onnx"},
    "openvino": {"fp32": ".xml", "bf16": "_bf16.xml", "fp16": "_fp16.xml", "int8": "_int8.xml"},
}


class BackendError(CheckpointError):
    """A form of a model that does not exist, was changed, or whose runtime is not installed."""


@dataclass(frozen=True)
class Form:
    """Exported form of a model.

    Args:
        format: "onnx" or "openvino".
        precision: "fp32", "bf16", "fp16" or "int8".
        pixels: Whether the file preprocesses images itself: it takes their uint8 pixels in any size.
    """

    format: str
    precision: str
    pixels: bool = False

    @property
    def name(self) -> str:
        """Name on the command line, such as "onnx-int8" or "onnx-pixels"; that of fp32 is the format's alone."""
        name = self.format if self.precision == "fp32" else f"{self.format}-{self.precision}"
        return f"{name}-{_PIXELS}" if self.pixels else name

    @property
    def file(self) -> str:
        """Path of the main file in the model's folder."""
        name = _STEMS[self.format] + _ENDINGS[self.format][self.precision]
        return name.replace(".onnx", f"_{_PIXELS}.onnx") if self.pixels else name

    @property
    def files(self) -> list[str]:
        """Paths of all files that the form may have, the main file first."""
        beside = self.file.replace(".xml", ".bin") if self.format == "openvino" else f"{self.file}.data"
        return [self.file, beside]


FORMS = tuple(Form(kind, precision) for kind, precisions in FORMATS.items() for precision in precisions)
PIXEL_FORMS = tuple(Form("onnx", precision, pixels=True) for precision in FORMATS["onnx"])


def form_of(name: str) -> Form:
    """Returns the form with a name such as "onnx" or "openvino-int8".

    Raises:
        BackendError: There is no such form.
    """
    forms = {form.name: form for form in (*FORMS, *PIXEL_FORMS)}
    if name not in forms:
        raise BackendError(f"there is no backend {name!r}; there are {', '.join([SOURCE, *forms])}")
    return forms[name]


def check_installed(kind: str) -> None:
    """Raises a `BackendError` if the runtime of a format is not installed."""
    if find_spec(_MODULES[kind]) is None:
        raise BackendError(f"{kind} needs the package {_MODULES[kind]}; pip install 'vithub[{kind}]'")


def read_records(folder: Path) -> dict[str, dict[str, Any]]:
    """Returns the entries of a folder's `export.json` by the form's name; empty where nothing was exported.

    Raises:
        CheckpointError: The file is damaged or names a form that this version does not know.
    """
    file = folder / RECORD
    if not file.is_file():
        return {}
    records = read_json(file).get("forms")
    if not isinstance(records, dict) or not all(isinstance(entry, dict) for entry in records.values()):
        raise BackendError(f"{file} has no table `forms` of what was exported; export the model again")
    for name in records:
        try:
            form_of(name)
        except BackendError as error:
            raise BackendError(f"{file}: {error}") from None
    return records


def choose_form(folder: Path, backend: str | None) -> Form | None:
    """Returns the form to run, or None for the weights themselves.

    Args:
        folder: Folder of the model.
        backend: Name of a form, "torch" for the weights, or None for the weights if they are there, else the only form.
            A form's name also stands for the one with preprocessing where there is no other.

    Raises:
        BackendError: The form is not there, or there are several and none was named.
    """
    if backend == SOURCE:
        return None
    records = read_records(folder)
    if backend is not None:
        form = form_of(backend)
        if form.name not in records and replace(form, pixels=True).name in records:
            form = replace(form, pixels=True)
        if form.name not in records:
            there = ", ".join(records) or "none"
            raise BackendError(f"{folder} has no {form.name} form ({form.file}); exported forms there: {there}")
        return form
    if not records or any(folder.glob("*.safetensors")):
        return None
    if len(records) > 1:
        raise BackendError(f"{folder} has no weights but the forms {', '.join(records)}: name one as the backend")
    return form_of(next(iter(records)))


def locate_model(
    source: str | Path, backend: Any = None, revision: str | None = None, token: str | None = None
) -> Path:
    """Local folder or file of a source, with the files of the exported form that is to run.

    Of a Hub id `locate` downloads configuration and weights; the files of one form are added to them here.

    Args:
        source: Path, Hub id, or short name of a known model.
        backend: Name of a form, "torch", None as for `choose_form`, or a loaded model, which needs no files.
        revision: Branch, tag or commit on the Hub.
        token: Access token of the Hub; None uses the token of the login.

    Raises:
        BackendError: The form is not there, or there are several and none was named.
        CheckpointError: As for `locate`.
    """
    path = locate(source, revision, token)
    if not isinstance(backend, str | None) or not path.is_dir() or Path(source).expanduser().exists():
        return path
    form = choose_form(path, backend)
    return path if form is None else locate(source, revision, token, more=form.files)


def changed_weights(folder: Path, entry: Mapping[str, Any]) -> str | None:
    """Name of a weight file of a folder that is not the one that a form was exported from; None if there is none.

    Args:
        folder: Folder of the model.
        entry: Entry of the form in `export.json`; `weights` holds the hashes of the files that lay beside it.
    """
    weights = entry.get("weights")
    for name, wanted in weights.items() if isinstance(weights, dict) else ():
        file = folder / Path(name).name
        if file.is_file() and file_hash(file) != wanted:
            return file.name
    return None


def check_files(folder: Path, form: Form) -> dict[str, Any]:
    """Returns a form's entry of `export.json`, after a check that its files are those that were exported.

    Raises:
        BackendError: A file is missing or was changed since, or the weights beside it were.
    """
    entry = read_records(folder)[form.name]
    hashes = entry.get("files")
    if not isinstance(hashes, dict) or form.file not in hashes:
        raise BackendError(f"{folder / RECORD}: the entry of {form.name} lists no file {form.file}; export it again")
    for name, wanted in hashes.items():
        if name not in form.files:
            raise BackendError(f"{folder / RECORD}: {name!r} is no file of the form {form.name}")
        if not (folder / name).is_file():
            raise BackendError(f"{folder / name} is missing, which {RECORD} lists; export the model again")
        if file_hash(folder / name) != wanted:
            raise BackendError(f"{folder / name} was changed since it was exported and checked; export the model again")
    if (other := changed_weights(folder, entry)) is not None:
        raise BackendError(
            f"{folder / form.file} was exported from other weights than those in {folder / other}; export the model "
            "again"
        )
    return entry


def file_hash(file: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def record_text(records: Mapping[str, Any]) -> str:
    """Text of an `export.json`."""
    return json_text({"forms": dict(records)}, indent=1) + "\n"


__all__ = [
    "FORMATS",
    "FORMS",
    "PIXEL_FORMS",
    "RECORD",
    "SOURCE",
    "BackendError",
    "Form",
    "changed_weights",
    "check_files",
    "check_installed",
    "choose_form",
    "file_hash",
    "form_of",
    "locate_model",
    "read_records",
    "record_text",
]
