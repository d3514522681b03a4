"""Pickles under every loader, and folders with code of strangers: nothing of them may run.

Every pickle and every module makes a file when it is opened or imported, which is looked for after each case.
"""

import json
import pickle
import random
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from . import box_sets, damaging, stock
from .calling import command
from .case import Case, LostError, Place
from .folder_damage import COMMANDS, PHOTO
from .judging import strict_json

AREA = "foreign code"
MARK = "it-ran"
SHORT_EVERY = 80


class _Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def _plain(file: Path, mark: Path) -> None:
    file.write_bytes(pickle.dumps({"model": _Evil(mark)}))


def _first_protocol(file: Path, mark: Path) -> None:
    file.write_bytes(pickle.dumps(_Evil(mark), 0))


def _torch(file: Path, mark: Path) -> None:
    import torch

    torch.save({"model": _Evil(mark), "state": torch.zeros(2)}, file)


def _old_torch(file: Path, mark: Path) -> None:
    import torch

    torch.save({"model": _Evil(mark)}, file, _use_new_zipfile_serialization=False)


def _array(file: Path, mark: Path) -> None:
    import numpy as np

    with file.open("wb") as stream:
        np.save(stream, np.array([_Evil(mark)], dtype=object), allow_pickle=True)


def _arrays(file: Path, mark: Path) -> None:
    import numpy as np

    with file.open("wb") as stream:
        np.savez(stream, labels=np.array([_Evil(mark)], dtype=object))


PICKLES: dict[str, Callable[[Path, Path], None]] = {
    "a pickle": _plain, "a pickle of protocol 0": _first_protocol, "a file of torch": _torch,
    "an old file of torch": _old_torch, "an array of objects": _array, "arrays of objects": _arrays,
}  # fmt: skip
WEIGHTS = ("pytorch_model.bin", "model.bin", "model.pt", "model.pth", "model.ckpt", "model.pkl", "adapter_model.bin")
BESIDE = ("pytorch_model.bin", "training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth", "scaler.pt",
          "labels.cache", "preprocessor.pkl", "model.pickle")  # fmt: skip
REPLACED = ("model.safetensors", "config.json", "preprocessor_config.json", "metrics.json", "recipe.yaml", "README.md")
SUFFIXES = (".pkl", ".pickle", ".bin", ".pt", ".pth", ".ckpt", ".tar", ".npy", ".npz", ".safetensors", ".h5", "")
TABLES = (".pkl", ".pickle", ".npy", ".npz", ".pt", ".csv", ".tsv", ".parquet", ".arrow", ".json", ".jsonl", ".zip")


def _verify(folder: Path, place: Path, shared: Path) -> Any:
    return command("verify", folder)


def _export(folder: Path, place: Path, shared: Path) -> Any:
    return command("export", folder, "--output", place / "exported")


def _from_pretrained(folder: Path, place: Path, shared: Path) -> Any:
    import torch
    from vithub.data.text.terminal_text import visible
    from vithub.hub.checkpoints import CheckpointError

    import vithub

    try:
        model = vithub.HubDeiTForImageClassification.from_pretrained(folder, use_safetensors=True)
    except Exception as error:  # that of transformers, whose texts are not ours to judge
        raise CheckpointError(visible(str(error))) from error
    with torch.inference_mode():
        return model(pixel_values=torch.linspace(-1, 1, 432).reshape(1, 3, 12, 12)).logits.tolist()


def _trained(values: dict[str, Any], place: Path, shared: Path) -> Any:
    with stock.no_drawing():
        stock.train(stock.photos(shared), place / "trained", {"training.max_steps": 1, "training.epochs": 1} | values)
    return (place / "trained" / "model.safetensors").read_bytes()


def _source(folder: Path, place: Path, shared: Path) -> Any:
    values = {"model.fields": {}, "model.image_size": None, "model.source": str(folder)}
    return _trained(values, place, shared)


def _teacher(folder: Path, place: Path, shared: Path) -> Any:
    return _trained({"distillation.teacher": str(folder)}, place, shared)


def _check_model(folder: Path, place: Path, shared: Path) -> Any:
    said = strict_json(command("check-data", stock.photos(shared), "--model", folder, "--json"))
    return {name: value for name, value in said.items() if str(folder) not in str(value)}


def _demo(folder: Path, place: Path, shared: Path) -> Any:
    from PIL import Image
    from vithub.hub.any_model import load_any_model
    from vithub.interpretability.demo.model import DemoModel

    with Image.open(stock.photos(shared) / PHOTO) as image:
        return DemoModel("model", *load_any_model(folder)).look(image.convert("RGB")).scores


LOADERS: dict[str, Callable[[Path, Path, Path], Any]] = {
    **COMMANDS, "verify": _verify, "from_pretrained": _from_pretrained, "finetune from": _source, "teacher": _teacher,
    "check-data --model": _check_model, "demo": _demo,
}  # fmt: skip
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".cache")


def _ran(act: Callable[[Place], Any], place: Place) -> Any:
    """Does something, and looks whether anything ran meanwhile."""
    try:
        return act(place)
    finally:
        if (place.folder / MARK).exists():
            raise LostError("code of the file was run")


def _load(loader: str, place: Place) -> Any:
    return _undamaged(loader, place.shared), LOADERS[loader](place.folder / "model", place.folder, place.shared)


_ANSWERS: dict[str, Any] = {}


def _undamaged(loader: str, shared: Path) -> Any:
    import tempfile

    if loader not in _ANSWERS and loader != "verify":
        with tempfile.TemporaryDirectory() as place:
            _ANSWERS[loader] = LOADERS[loader](stock.run(shared), Path(place), shared)
    return _ANSWERS.get(loader)


def _same(loader: str, answer: Any) -> str | None:
    whole, found = answer
    if loader == "publish --dry-run":
        sent = [path for path in found if path.endswith(_PICKLED)]
        return f"{sent} would be published" if sent else None
    return None if repr(found) == repr(whole) else f"answered otherwise than without the file: {repr(found)[:100]}"


def _any(answer: Any) -> str | None:
    return None


def _none(answer: Any) -> str | None:
    return "answered, although what it needs is a pickle"


def _folder(change: Callable[[Path, Path], None], place: Place) -> None:
    folder = damaging.copy(stock.run(place.shared), place.folder / "model")
    change(folder, place.folder / MARK)


def _instead(kind: str, name: str, folder: Path, mark: Path) -> None:
    """A pickle in place of the weights."""
    (folder / "model.safetensors").unlink()
    PICKLES[kind](folder / name, mark)


def _in_index(kind: str, folder: Path, mark: Path) -> None:
    """An index that names a pickle as its shard."""
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", "pt") as stored:
        names = list(stored.keys())
    _instead(kind, "pytorch_model-00001-of-00001.bin", folder, mark)
    for index in ("model.safetensors.index.json", "pytorch_model.bin.index.json"):
        shards = dict.fromkeys(names, "pytorch_model-00001-of-00001.bin")
        (folder / index).write_text(json.dumps({"metadata": {}, "weight_map": shards}))


def _file(kind: str, name: str, folder: Path, mark: Path) -> None:
    PICKLES[kind](folder / name, mark)


def _of_pickles(draws: random.Random) -> Iterator[tuple[str, Any, Callable[[Place], None], Any, tuple[str, ...]]]:
    """Name, act, prepare, right and names of cases with pickles in a model's folder."""
    kinds = list(PICKLES)
    for loader in LOADERS:
        load = partial(_load, loader)
        for name in WEIGHTS:
            kind = draws.choice(kinds)
            right = partial(_same, loader) if loader == "publish --dry-run" else _none
            yield (f"{loader}, weights that are {kind} named {name}", load,
                   partial(_folder, partial(_instead, kind, name)), right, ())  # fmt: skip
        kind = draws.choice(kinds)
        yield (f"{loader}, an index of {kind}", load, partial(_folder, partial(_in_index, kind)), _none, ())
        for name in BESIDE:
            kind = draws.choice(kinds)
            yield (f"{loader}, {kind} named {name} beside the weights", load,
                   partial(_folder, partial(_file, kind, name)), partial(_same, loader), ())  # fmt: skip
        for name in REPLACED:
            kind = draws.choice(kinds)
            yield (f"{loader}, {name} that is {kind}", load, partial(_folder, partial(_file, kind, name)),
                   partial(_same, loader), ())  # fmt: skip


def _lone(kind: str, name: str, place: Place) -> None:
    stock.run(place.shared), stock.photos(place.shared)
    PICKLES[kind](place.folder / name, place.folder / MARK)


def _of_files(draws: random.Random) -> Iterator[tuple[str, Any, Callable[[Place], None], Any, tuple[str, ...]]]:
    """Cases with a single file as model, as data, or among data."""
    kinds = list(PICKLES)
    models: dict[str, Callable[[Path, Place], Any]] = {
        "load": lambda file, place: __import__("vithub").load(file),
        "convert": lambda file, place: command("convert", file, place.folder / "out"),
        "predict": lambda file, place: command("predict", file, stock.photos(place.shared) / PHOTO),
        "finetune from": lambda file, place: _source(file, place.folder, place.shared),
        "teacher": lambda file, place: _teacher(file, place.folder, place.shared),
    }
    data: dict[str, Callable[[Path, Place], Any]] = {
        "finetune --data": lambda file, place: stock.train(file, place.folder / "out"),
        "evaluate --data": lambda file, place: command("evaluate", stock.run(place.shared), "--data", file),
        "predict --data": lambda file, place: command("predict", stock.run(place.shared), "--data", file, "--output",
                                                      place.folder / "out"),
        "check-data": lambda file, place: command("check-data", file),
        "check-data --streaming": lambda file, place: command("check-data", file, "--streaming", "--task",
                                                              "classification"),
        "predict": lambda file, place: command("predict", stock.run(place.shared), file),
        "finetune --recipe": lambda file, place: command("finetune", "--recipe", file, "--output",
                                                         place.folder / "out"),
    }  # fmt: skip
    for ways, suffixes in ((models, SUFFIXES), (data, TABLES)):
        for way, act in ways.items():
            for suffix in suffixes:
                kind, name = draws.choice(kinds), f"given{suffix}"
                yield (f"{way}, a file {name} that is {kind}", partial(_with_file, act, name),
                       partial(_lone, kind, name), _none, (name, "given", "column"))  # fmt: skip
    for name in ("cat/z.png", "labels.cache", "dataset_dict.json", "state.json", "photos.py", "cat.npy"):
        kind = draws.choice(kinds)
        yield (f"finetune --data, {name} among photos that is {kind}", _train_on_photos,
               partial(_among_photos, kind, name), _any, ())  # fmt: skip
    for name in ("labels/train.cache", "labels.cache", "labels/train/1.npy", "images/train/1.npy"):
        kind = draws.choice(kinds)
        yield f"check-data, {name} in a YOLO set that is {kind}", _yolo, partial(_in_yolo, kind, name), _same_boxes, ()
    for name in ("optimizer.pt", "rng_state.pth", "scheduler.bin", "model.safetensors", "optimizer.safetensors",
                 "ema.safetensors", "state.json"):  # fmt: skip
        kind = draws.choice(kinds)
        yield (f"finetune --resume, {name} of the last checkpoint that is {kind}", _resume,
               partial(_in_checkpoint, kind, name), _as_unbroken, ("checkpoints", name))  # fmt: skip


def _with_file(act: Callable[[Path, Place], Any], name: str, place: Place) -> Any:
    return act(place.folder / name, place)


def _among_photos(kind: str, name: str, place: Place) -> None:
    folder = damaging.copy(stock.photos(place.shared), place.folder / "photos")
    PICKLES[kind](folder / name, place.folder / MARK)


def _train_on_photos(place: Place) -> Any:
    with stock.no_drawing():
        return stock.train(place.folder / "photos", place.folder / "run", {"training.epochs": 1})


def _in_yolo(kind: str, name: str, place: Place) -> None:
    folder = damaging.copy(box_sets._yolo(place.shared), place.folder / "set")
    PICKLES[kind](folder / name, place.folder / MARK)


def _yolo(place: Place) -> Any:
    command("check-data", place.folder / "set")
    return box_sets._boxes(place.folder / "set"), box_sets._boxes(box_sets._yolo(place.shared))


def _same_boxes(answer: Any) -> str | None:
    return None if answer[0] == answer[1] else "other boxes than without the file"


def _in_checkpoint(kind: str, name: str, place: Place) -> None:
    folder = stock.copied_run(place.shared, place.folder / "run")
    PICKLES[kind](folder / "checkpoints" / "step-00000004" / name, place.folder / MARK)
    (folder / "model.safetensors").unlink()


def _resume(place: Place) -> Any:
    with stock.no_drawing():
        command("finetune", "--output", place.folder / "run", "--resume")
    return [(folder / "model.safetensors").read_bytes() for folder in (place.folder / "run", stock.run(place.shared))]


def _as_unbroken(answer: Any) -> str | None:
    return None if answer[0] == answer[1] else "other weights than the unbroken run's"


# Modules that a stranger's folder brings, and what its files say of them.
MODULES = {
    "only torch and transformers": "import torch\nfrom transformers import PreTrainedModel\n",
    "requests": "import requests\n",
    "a package that is nowhere": "import a_package_that_is_nowhere\n",
    "subprocess": "import subprocess\nsubprocess.run(['true'])\n",
    "a module of the folder": "from .helper import Model\n",
    "code at its end": "class Model:\n    pass\n\n\n__getattr__ = lambda name: None\n",
}


def _module(text: str, mark: Path) -> str:
    return f"from pathlib import Path\n\nPath({str(mark)!r}).touch()\n{text}\n\nclass Model:\n    pass\n"


def _stated(file: str, values: dict[str, Any], folder: Path) -> None:
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(content | values))


WAYS: dict[str, Callable[[Path], None]] = {
    "auto_map of all": lambda folder: _stated("config.json", {"auto_map": {
        "AutoConfig": "evil.Model", "AutoModel": "evil.Model", "AutoModelForImageClassification": "evil.Model"}},
        folder),
    "auto_map and a type that is unknown": lambda folder: _stated("config.json", {"model_type": "evil", "auto_map": {
        "AutoConfig": "evil.Model", "AutoModelForImageClassification": "evil.Model"}}, folder),
    "auto_map in a folder below": lambda folder: (
        (folder / "below").mkdir(), shutil.copy(folder / "evil.py", folder / "below" / "evil.py"),
        _stated("config.json", {"auto_map": {"AutoModel": "below.evil.Model"}}, folder))[-1],
    "the image processor's auto_map": lambda folder: _stated("preprocessor_config.json", {
        "image_processor_type": "Evil", "auto_map": {"AutoImageProcessor": "evil.Model"}}, folder),
    "files beside": lambda folder: [shutil.copy(folder / "evil.py", folder / name) for name in (
        "handler.py", "setup.py", "conftest.py", "torch.py", "sitecustomize.py", "__init__.py")] and None,
    "requirements": lambda folder: (folder / "requirements.txt").write_text("a-package-that-is-nowhere\n") and None,
}  # fmt: skip


def _strange(text: str, way: str, place: Place) -> None:
    folder = damaging.copy(stock.run(place.shared), place.folder / "model")
    for name in ("evil.py", "helper.py", "modeling_deit.py"):
        (folder / name).write_text(_module(text if name != "helper.py" else "", place.folder / MARK))
    WAYS[way](folder)


def _verified(answer: Any) -> str:
    return "is said to be what this version writes"


def cases(seed: int) -> Iterator[Case]:
    """Pickles in folders of models and as files, then modules of strangers."""
    draws = random.Random(f"{seed} pickles")
    found = [*_of_pickles(draws), *_of_files(draws)]
    for loader in LOADERS:
        for way in WAYS:
            asked = draws.choice(list(MODULES))
            found.append((f"{loader}, {way}, code that asks for {asked}", partial(_load, loader),
                          partial(_strange, MODULES[asked], way), partial(_same, loader), ()))  # fmt: skip
    for number, (name, act, prepare, right, names) in enumerate(found):
        right = _verified if name.startswith("verify, ") else right
        quick = not any(word in name for word in ("finetune", "teacher", "check-data", "export"))
        yield Case(
            AREA, name, f"vithub {name}", partial(_ran, act), prepare, right, names, False, 60,
            number % SHORT_EVERY == 0 and quick,
        )  # fmt: skip


__all__ = ["cases"]
