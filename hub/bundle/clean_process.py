"""Loading of folders as by a user who has torch, transformers and Pillow only, run by path in a separate process:

    python -I hub/bundle/clean_process.py request.json

The file is on no import path of that process and imports nothing of the package. The request holds `requests`, a list
of objects with `folder`, `inputs` (safetensors file with `pixel_values`), `image` (image file, or null), `models`
(names of Auto classes), `task` (pipeline task, or null) and `outputs` (safetensors file to write). It also holds
`threads` and `packages`, the packages that can be imported together with their dependencies. The report of each folder
is printed as one line of JSON.
"""

import json
import sys
from importlib import metadata
from importlib.machinery import BuiltinImporter, FrozenImporter, ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def required(roots: list[str]) -> set[str]:
    """Normalised names of the installed distributions that `roots` require, including `roots` themselves."""
    from packaging.requirements import Requirement

    found: set[str] = set()
    due: list[tuple[str, str]] = [(root, "") for root in roots]
    seen = set(due)
    while due:
        name, extra = due.pop()
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        found.add(_normalised(name))
        for text in distribution.requires or []:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                more = {(requirement.name, wanted) for wanted in ("", *requirement.extras)} - seen
                seen |= more
                due += more
    return found


def _normalised(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


class OnlyThese:
    """Finder of the standard library, the named packages and published code only; nothing else can be imported."""

    def __init__(self, packages: set[str]) -> None:
        self.packages = packages | sys.stdlib_module_names | {"transformers_modules"}

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """The spec of an allowed module, or None."""
        top = name.partition(".")[0]
        if top not in self.packages and not top.startswith("_sysconfigdata"):
            return None
        return PathFinder.find_spec(name, path, target)

    find_distributions = staticmethod(PathFinder.find_distributions)
    invalidate_caches = staticmethod(PathFinder.invalidate_caches)


def forget_other_packages(kept: list[str]) -> None:
    """Restricts imports from now on to the distributions `kept` and their dependencies."""
    distributions = required(kept)
    packages = {
        package
        for package, names in metadata.packages_distributions().items()
        if distributions & {_normalised(name) for name in names}
    }
    sys.meta_path[:] = [BuiltinImporter, FrozenImporter, OnlyThese(packages)]


def load_model(name: str, folder: str, **trusted: bool) -> Any:
    """Loads the model of a folder by the Auto class of this name, in evaluation mode."""
    import transformers

    auto_class = getattr(transformers, name)
    if name != "AutoBackbone":
        return auto_class.from_pretrained(folder, **trusted).eval()
    # its `from_pretrained` asks the Hub whether a repository of this name exists, and takes no folders (5.4 to 5.23)
    config = transformers.AutoConfig.from_pretrained(folder, **trusted)
    return type(auto_class.from_config(config, **trusted)).from_pretrained(folder, config=config).eval()


def output_tensors(name: str, output: Any) -> dict[str, Any]:
    """Tensors of a model's output by `name` and their field; those of a tuple, such as feature maps, numbered."""
    import torch

    tensors: dict[str, Any] = {}
    for field, value in dict(output).items():
        parts = {f".{place}": part for place, part in enumerate(value)} if isinstance(value, tuple) else {"": value}
        tensors |= {f"{name}.{field}{place}": part for place, part in parts.items() if isinstance(part, torch.Tensor)}
    return tensors


def load(request: dict[str, Any]) -> dict[str, Any]:
    """Loads a folder, writes its output tensors to the file `outputs` and returns the report."""
    import safetensors.torch
    import torch
    import transformers
    from PIL import Image

    folder, trusted = request["folder"], {"trust_remote_code": True}
    tensors: dict[str, torch.Tensor] = {}
    pixel_values = safetensors.torch.load_file(request["inputs"])["pixel_values"]
    classes = {"AutoConfig": type(transformers.AutoConfig.from_pretrained(folder, **trusted))}
    for name in request["models"]:
        model = load_model(name, folder, **trusted)
        classes[name] = type(model)
        with torch.inference_mode():
            tensors |= output_tensors(name, model(pixel_values))
    answers = None
    if request["image"] is not None:
        processor = transformers.AutoImageProcessor.from_pretrained(folder, **trusted)
        classes["AutoImageProcessor"] = type(processor)
        with Image.open(request["image"]) as image:
            tensors["AutoImageProcessor.pixel_values"] = processor(image, return_tensors="pt")["pixel_values"]
        if request["task"] is not None:
            answers = transformers.pipeline(request["task"], model=folder, **trusted)(request["image"])
    safetensors.torch.save_file(
        {name: value.contiguous().clone() for name, value in tensors.items()}, request["outputs"]
    )
    return {
        "folder": folder,
        "classes": {name: f"{found.__module__}.{found.__name__}" for name, found in classes.items()},
        "answers": answers,
        "transformers": transformers.__version__,
        "torch": torch.__version__,
        "imported": sorted({name.partition(".")[0] for name in sys.modules}),
    }


def main(request_file: str) -> None:
    """Handles all requests of the file, in a process that can no longer import the package."""
    content = json.loads(Path(request_file).read_text(encoding="utf-8"))
    forget_other_packages(content["packages"])
    if find_spec("vithub") is not None or "vithub" in sys.modules:
        raise RuntimeError("vithub can still be imported here")
    import torch

    torch.set_num_threads(content["threads"])
    for request in content["requests"]:
        sys.stdout.write(json.dumps(load(request)) + "\n")


__all__ = ["forget_other_packages", "load", "load_model", "main", "output_tensors", "required"]

if __name__ == "__main__":
    main(sys.argv[1])
