"""The walls of the house: which room may know which, what is packaged, what is public."""

import ast
import tomllib
from pathlib import Path

import pytest

import vithub

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
# Each room with those that it may import from.
BELOW = {
    "configuration": set(),
    "modeling": {"configuration"},
    "data": {"configuration"},
    "hub": {"configuration", "modeling", "data"},
    "interpretability": {"configuration", "modeling", "data"},
    "training": {"configuration", "modeling", "data", "hub", "interpretability"},
    "comparison": {"configuration", "modeling", "data", "hub", "interpretability", "training"},
    "scripts": {"configuration", "modeling", "data", "hub", "interpretability", "training", "comparison"},
}
# The card templates are data that hub reads; the facade alone knows all rooms.
DATA_ONLY = {"model_cards"}
FILES = sorted(file for room in BELOW for file in (ROOT / room).glob("*.py"))


def imported_rooms(file: Path) -> set[str]:
    """Rooms that a file imports from, "vithub" for the facade; a room's own name for relative imports inside it."""
    room, found = file.parent.name, set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                assert node.level <= 2, f"{file}: relative import beyond the package"
                path = [room] if node.level == 1 else []
                found.add([*path, *(module.split(".") if module else ["vithub"])][0])
                continue
            names = [f"{module}.{alias.name}" for alias in node.names] if module == "vithub" else [module]
        for name in names:
            first, *rest = name.split(".")
            if first == "vithub":
                found.add(rest[0] if rest and rest[0] in BELOW else "vithub")
            elif first in BELOW:
                found.add(f"top-level {first}")
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_a_room_imports_only_the_rooms_below_it(file):
    room = file.parent.name
    assert imported_rooms(file) <= BELOW[room] | {room}


def test_rooms_import_relatively_and_scripts_absolutely():
    for file in FILES:
        relative = any(
            isinstance(node, ast.ImportFrom) and node.level for node in ast.walk(ast.parse(file.read_text("utf-8")))
        )
        absolute = any(
            isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "vithub"
            for node in ast.walk(ast.parse(file.read_text("utf-8")))
        )
        assert not (relative if file.parent.name == "scripts" else absolute), file


def test_every_room_is_packaged_and_nothing_else():
    settings = PROJECT["tool"]["setuptools"]
    folders = {file.parent.name for file in ROOT.glob("*/__init__.py") if file.parent.name != "tests"}
    assert folders == set(BELOW) | DATA_ONLY
    assert sorted(settings["packages"]) == sorted(["vithub", *(f"vithub.{name}" for name in folders)])
    assert settings["package-dir"] == {"vithub": "src/vithub", **{f"vithub.{name}": name for name in folders}}
    nested = [file for name in folders for file in (ROOT / name).glob("*/**/*.py") if "__pycache__" not in file.parts]
    assert nested == []


def test_file_names_are_unique_across_rooms():
    names = [file.name for file in FILES if file.name != "__init__.py"]
    assert len(names) == len(set(names)), sorted(name for name in names if names.count(name) > 1)


def test_no_file_is_named_after_a_library():
    libraries = {"accelerate", "datasets", "evaluate", "torch", "timm", "transformers", "typer", "rich", "utils"}
    assert not libraries & {file.stem for file in FILES}


def test_no_room_bears_the_name_of_a_public_function():
    assert not set(BELOW) & set(vithub.__all__)


def test_the_facade_lists_all_that_it_offers_and_offers_all_that_it_lists():
    assert vithub.__all__ == sorted(vithub.__all__)
    tree = ast.parse((ROOT / "src/vithub/__init__.py").read_text("utf-8"))
    own = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level
        for alias in node.names
    }
    assert own == set(vithub.__all__)
    assert all(hasattr(vithub, name) for name in vithub.__all__)
    assert set(vithub.__all__) <= set(dir(vithub))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        vithub.nothing  # noqa: B018


@pytest.mark.parametrize(
    "file", [f for f in FILES if f.name != "__init__.py"], ids=lambda f: f"{f.parent.name}/{f.name}"
)
def test_every_file_lists_what_it_offers(file):
    tree = ast.parse(file.read_text("utf-8"))
    listed = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets)
    ]
    if file.parent.name == "scripts":
        return
    assert len(listed) == 1, "exactly one __all__"
    defined = {node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    for node in tree.body:
        for target in getattr(node, "targets", [getattr(node, "target", None)]):
            for name in ast.walk(target) if target is not None else ():
                if isinstance(name, ast.Name):
                    defined.add(name.id)
    unknown = set(listed[0]) - defined
    assert not unknown, f"listed but not defined here: {unknown}"


def test_only_the_facade_and_the_mark_of_types_are_in_the_package_root():
    assert sorted(file.name for file in (ROOT / "src/vithub").iterdir() if file.name != "__pycache__") == [
        "__init__.py",
        "py.typed",
    ]
