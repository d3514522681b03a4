"""Folders as a stranger may put on the Hub: indices of shards that point elsewhere, fields of the wrong type."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from . import damaging, stock
from .case import Case, Place
from .folder_damage import COMMANDS, folder_case

AREA = "folders of strangers"
INDEX = "model.safetensors.index.json"
WHOLE = "model.safetensors"
NEEDED = ("predict", "load", "convert", "publish --dry-run")
TYPES: dict[str, Any] = {
    "null": None, "text": "HubDeiTForImageClassification", "unknown text": "evil", "a number": 5, "true": True,
    "an empty list": [], "a list of numbers": [5], "a list of nulls": [None], "a list of lists": [["a"]],
    "an empty object": {}, "an object": {"a": 5}, "an object of lists": {"AutoModel": [1]},
    "a path": {"AutoModelForImageClassification": "../../evil.Model"},
    "code of another": {"AutoModelForImageClassification": "evil/repo--modeling.Model"},
}  # fmt: skip
FIELDS = ("architectures", "auto_map", "model_type", "id2label", "label2id", "problem_type", "dtype", "pool")
# Without `architectures` it is not said what a model is: it is taken for a backbone, as transformers does.
CODE = ("architectures", "auto_map")  # which code a model is
# Fields that may be so: no code is named, and none sent, or that of another repository.
_LEGAL = {("auto_map", what): ("publish --dry-run",)
          for what in ("null", "an empty list", "an empty object", "code of another")}  # fmt: skip
SHORT = {("architectures", "a number"), ("architectures", "an object"), ("dtype", "unknown text"),
         ("dtype", "a list of numbers"), ("id2label", "null"), ("model_type", "unknown text")}  # fmt: skip
_SHARD = "model-00001-of-"


def _shard(folder: Path) -> Path:
    return sorted(folder.glob(f"{_SHARD}*"))[0]


def _elsewhere(where: str, command: str, place: Place) -> None:
    """Moves a shard out of the folder, and names it there."""
    folder = damaging.copy(stock.sharded(place.shared), place.folder / "model")
    shard = _shard(folder)
    outside = place.folder / "outside.safetensors"
    shard.rename(outside)
    named = {
        "above": "../outside.safetensors",
        "absolute": str(outside),
        "through a folder": "a/../../outside.safetensors",
    }
    text = (folder / INDEX).read_text()
    (folder / INDEX).write_text(text.replace(f'"{shard.name}"', f'"{named[where]}"'))


def _link(command: str, place: Place) -> None:
    """Makes a shard a link to a file outside."""
    folder = damaging.copy(stock.sharded(place.shared), place.folder / "model")
    shard = _shard(folder)
    outside = place.folder / "outside.safetensors"
    outside.write_bytes(b"a person's secret")
    shard.unlink()
    shard.symlink_to(outside)


def _of_all(value: Any) -> damaging.Damage:
    """Gives every tensor the same place in the index."""

    def damage(file: Path) -> None:
        import json

        content = json.loads(file.read_text())
        content["weight_map"] = dict.fromkeys(content["weight_map"], value)
        file.write_text(json.dumps(content))

    return damage


def _run(command: str, place: Place) -> Any:
    return COMMANDS[command](place.folder / "model", place.folder, place.shared)


def cases(seed: int) -> Iterator[Case]:
    """Indices and shards, then fields of `config.json` that say which code a model is."""
    for command in NEEDED:
        for where in ("above", "absolute", "through a folder"):
            name = f"{command}, a shard that is {where}"
            yield Case(AREA, name, f"vithub {command} FOLDER  (weight_map names a shard {where})",
                       partial(_run, command), partial(_elsewhere, where, command),
                       lambda answer: "a file outside the folder was read", (INDEX, "outside.safetensors"), True,
                       short=where == "above" and command == "load")  # fmt: skip
        name = f"{command}, a shard that is a link to a file outside"
        yield Case(AREA, name, f"vithub {name}", partial(_run, command), partial(_link, command),
                   lambda answer: "answered", (_SHARD,), True)  # fmt: skip
        for what, damage in damaging.JSON_FORMS.items():
            yield folder_case(command, what, INDEX, damage, stocked="sharded", area=AREA, also=(WHOLE,))
        for what in ("missing", "empty", "cut in half", "random bytes", "a folder"):
            if what != "missing":
                yield folder_case(
                    command, what, INDEX, damaging.DAMAGES[what], stocked="sharded", area=AREA, also=(WHOLE,)
                )
        for what, value in {"a number": 5, "null": None, "a list": ["a"], "an object": {}, "empty": "", ".": ".",
                            "no such file": "none.safetensors", "config.json": "config.json"}.items():  # fmt: skip
            yield folder_case(command, f"with shards named by {what}", INDEX, _of_all(value), stocked="sharded",
                              area=AREA, fault=False, also=(str(value),))  # fmt: skip
        for what, value in {"null": None, "a list": [1], "text": "x", "empty": {}}.items():
            yield folder_case(command, f"with weight_map {what}", INDEX, damaging.with_value(("weight_map",), value),
                              stocked="sharded", area=AREA, fault=False)  # fmt: skip
    for field in FIELDS:
        for what, value in TYPES.items():
            for command in (
                ("predict", "explain", "load", "publish --dry-run") if field in CODE else ("predict", "load")
            ):
                if not (field == "architectures" and value in (None, []) and command in ("explain", "load")):
                    yield _field(command, field, what, value)


def _field(command: str, field: str, what: str, value: Any) -> Case:
    short = (field, what) in SHORT and command == "load"
    return folder_case(
        command, f"with {field} {what}", "config.json", damaging.with_value((field,), value), area=AREA, fault=False,
        also=(field,), short=short, same=None if command in _LEGAL.get((field, what), ()) else True,
    )  # fmt: skip


__all__ = ["cases"]
