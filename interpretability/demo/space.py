"""Export of the demo page as a folder for a Space of the Hub.

The folder holds the code of this package as it is installed, so that the Space behaves as the page does locally; the
dependencies are listed, and the Hub installs them.
"""

import shutil
from collections.abc import Sequence
from importlib.metadata import distribution, version
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from ...data.text.json_reading import read_json
from ...data.text.json_text import json_text
from .page import DemoError

_PACKAGE = __name__.partition(".")[0]
# All subpackages but the command line.
_ROOMS = (
    "configuration", "modeling", "data", "hub", "interpretability", "training", "deployment", "comparison",
    "model_cards",
)  # fmt: skip
_APP = '''"""The page of `vithub demo {names}`."""

from pathlib import Path

from vithub.hub.any_model import load_any_model
from vithub.hub.calibration import calibration_of
from vithub.interpretability.demo.model import DemoModel
from vithub.interpretability.demo.page import build_page, serve_page

MODELS = {models!r}
HERE = Path(__file__).parent


def load(source):
    """A model beside this file, or one of the Hub."""
    path = HERE / source if (HERE / source).is_dir() else source
    model, processor = load_any_model(path)
    return DemoModel(Path(source).name, model, processor, calibration_of(model, path))


page = build_page([load(source) for source in MODELS], sorted((HERE / "examples").glob("*")))

if __name__ == "__main__":
    serve_page(page, "0.0.0.0", announce=print)
'''
_README = """---
title: {title}
sdk: gradio
sdk_version: {gradio}
app_file: app.py
license: apache-2.0
models:
{models}
---

The page of `vithub demo`: drop a picture, see the answer and where in the picture it came from.
"""
_METRICS = "metrics.json"
_WEIGHTS = ("config.json", "model.safetensors", "preprocessor_config.json")


def write_space(target: str | Path, models: Sequence[str | Path], examples: Sequence[str | Path] = ()) -> Path:
    """Writes a new folder that runs as a Space.

    Args:
        target: Folder to write; it must not exist.
        models: One or two models: Hub ids, which the Space downloads, or local folders, whose weights, configuration
            and image processor are copied.
        examples: Image files offered as examples; they are copied.

    Returns:
        Path of the folder.

    Raises:
        DemoError: The folder exists, or a model's folder lacks a file.
    """
    target = Path(target).expanduser()
    if target.exists():
        raise DemoError(f"{target} exists; name a new folder for the Space")
    folders = {str(model): Path(model).expanduser() for model in models if Path(model).expanduser().is_dir()}
    for given in folders.values():
        if missing := [name for name in _WEIGHTS if not (given / name).is_file()]:
            raise DemoError(f"{given} has no {' and no '.join(missing)}; a Space needs {', '.join(_WEIGHTS)}")
    target.mkdir(parents=True)
    sources = []
    for model in map(str, models):
        folder = folders.get(model)
        if folder is not None:
            for name in _WEIGHTS:
                _copied(folder / name, target / folder.name / name)
            _copy_calibration(folder, target / folder.name)
        sources.append(folder.name if folder else model)
    for number, example in enumerate(examples):
        _copied(Path(example), target / "examples" / f"{number:02}{Path(example).suffix.lower()}")
    _copy_package(target)
    names = " ".join(sources)
    (target / "app.py").write_text(_APP.format(names=names, models=sources), encoding="utf-8")
    (target / "requirements.txt").write_text("\n".join(_requirements()) + "\n", encoding="utf-8")
    hub_ids = [f"- {source}" for source in sources if source not in {folder.name for folder in folders.values()}]
    readme = _README.format(title=f"Why {names}?"[:60], gradio=version("gradio"), models="\n".join(hub_ids) or "[]")
    (target / "README.md").write_text(readme.replace("models:\n[]", "models: []"), encoding="utf-8")
    return target


def _copy_calibration(folder: Path, target: Path) -> None:
    """Copies the temperature that a training measured, without its other results."""
    if not (folder / _METRICS).is_file():
        return
    content = read_json(folder / _METRICS)
    if isinstance(content, dict) and (found := content.get("calibration")) is not None:
        (target / _METRICS).write_text(json_text({"calibration": found}, indent=1) + "\n", encoding="utf-8")


def _copy_package(target: Path) -> None:
    """Copies this package and its metadata, in the layout of `pip install --target`."""
    root = Path(str(files(_PACKAGE)))
    rooms = {"": root} | {room: _home(room) for room in _ROOMS}
    for name, folder in rooms.items():
        for file in sorted(folder.rglob("*")):
            inside = file.relative_to(folder)
            if file.is_file() and file.suffix != ".pyc" and "__pycache__" not in inside.parts:
                _copied(file, target / _PACKAGE / name / inside)
    information = target / f"{_PACKAGE}-{version(_PACKAGE)}.dist-info"
    information.mkdir()
    metadata = distribution(_PACKAGE).read_text("METADATA") or ""
    (information / "METADATA").write_text(metadata.partition("\n\n")[0] + "\n", encoding="utf-8")


def _home(room: str) -> Path:
    """Folder of a subpackage, also in an editable install."""
    spec = find_spec(f"{_PACKAGE}.{room}")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def _requirements() -> list[str]:
    """Dependencies of the package and of the demo page, without those of other extras."""
    found = []
    for line in distribution(_PACKAGE).requires or []:
        requirement, _, condition = line.partition(";")
        if "extra" not in condition or "demo" in condition:
            found.append(requirement.strip())
    return sorted(set(found))


def _copied(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


__all__ = ["write_space"]
