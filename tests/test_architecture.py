"""The walls of the house: which room may know which, what is packaged, what is public."""

import ast
import re
import tomllib
from functools import cache
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
    "training": {"configuration", "modeling", "data", "hub"},
    "deployment": {"configuration", "modeling", "data", "hub", "training"},
    "comparison": {"configuration", "modeling", "data", "hub", "interpretability", "training"},
    "scripts": {"configuration", "modeling", "data", "hub", "interpretability", "training", "deployment", "comparison"},
}
# Each sub-room with those of its room that it may import from, "" for the files at the room's top.
INSIDE = {
    "training": {
        "recipe": set(),
        "optim": {"recipe", "runtime"},
        "runtime": {"recipe"},
        "tasks": {"recipe", "optim", "runtime"},
        "loop": {"recipe", "optim", "runtime", "tasks"},
        "trial": {"recipe", "optim", "runtime", "tasks", "loop"},
        "run_list": {"recipe", "runtime", "tasks", "loop"},
        "": {"recipe", "optim", "runtime", "tasks", "loop", "trial", "run_list"},
    },
    "hub": {
        "": {"conversion", "exported"},
        "conversion": {"", "bundle"},
        "bundle": {""},
        "exported": {""},
        "card": {"", "exported"},
        "push": {"", "conversion", "bundle", "card", "exported"},
    },
    "interpretability": {
        "capture": set(),
        "explanation": {"capture"},
        "analysis": {"capture"},
        "faithfulness": {"capture", "explanation", "analysis"},
        "demo": {"capture", "explanation"},
        "": set(),
    },
    "deployment": {
        "exports": set(),
        "preprocessing": {"exports"},
        "web": {"exports", "preprocessing"},
        "": {"exports", "preprocessing", "web"},
        "optimizing": {"", "exports"},
    },
    "comparison": {"": {"detection"}, "detection": {""}},
    "data": {
        "text": {""},
        "": {"text"},
        "pixels": {""},
        "labelled": {"", "text", "pixels"},
        "boxes": {"", "text", "labelled", "pixels"},
        "streaming": {"", "text", "labelled", "pixels"},
        "checking": {"", "text", "labelled", "pixels", "boxes", "streaming"},
    },
}
# The card templates are data that hub reads; the facade alone knows all rooms.
DATA_ONLY = {"model_cards"}
FLAT = {"configuration", "modeling", "scripts"}
MOST_FILES, MOST_LINES = 18, 400
FILES = sorted(file for room in BELOW for file in (ROOT / room).rglob("*.py") if "__pycache__" not in file.parts)


def parts_of(file: Path) -> tuple[str, ...]:
    """Room and sub-rooms of a file."""
    return file.relative_to(ROOT).parts[:-1]


@cache
def imported(file: Path) -> set[tuple[str, ...]]:
    """Paths of the modules of this package that a file imports, ("vithub",) for the facade."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            here = parts_of(file)
            assert node.level <= len(here) + 1, f"{file}: relative import beyond the package"
            base = here[: len(here) - node.level + 1]
            found.add((*base, *(node.module.split(".") if node.module else ())) or ("vithub",))
            continue
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            module = node.module or ""
            names = [f"{module}.{alias.name}" for alias in node.names] if module == "vithub" else [module]
        for name in names:
            first, *rest = name.split(".")
            if first == "vithub":
                found.add(tuple(rest) if rest and rest[0] in BELOW else ("vithub",))
            elif first in BELOW:
                found.add((f"top-level {first}",))
    return found


def sub_room(path: tuple[str, ...]) -> str:
    """The sub-room of a module's path, "" for the room's top."""
    room, *rest = path
    return rest[0] if rest and rest[0] in INSIDE.get(room, {}) and len(path) > 2 else ""


def named(file: Path) -> str:
    return str(file.relative_to(ROOT))


@pytest.mark.parametrize("file", FILES, ids=named)
def test_a_room_imports_only_the_rooms_below_it(file):
    room = parts_of(file)[0]
    assert {path[0] for path in imported(file)} <= BELOW[room] | {room}


@pytest.mark.parametrize("file", [file for file in FILES if parts_of(file)[0] in INSIDE], ids=named)
def test_a_sub_room_imports_only_those_below_it(file):
    room, *rest = parts_of(file)
    own = rest[0] if rest else ""
    used = {sub_room(path) for path in imported(file) if path[0] == room}
    assert used <= INSIDE[room][own] | {own}


def test_no_task_knows_another():
    tasks = sorted(folder.name for folder in (ROOT / "training/tasks").iterdir() if (folder / "kind.py").is_file())
    assert tasks == ["classification", "detection", "pretraining"]
    for file in FILES:
        if parts_of(file)[:2] != ("training", "tasks"):
            continue
        others = {path[2] for path in imported(file) if path[:2] == ("training", "tasks") and len(path) > 3}
        allowed = set(tasks) if file.name == "registry.py" else {file.parent.name} | set(parts_of(file)[2:])
        assert others & set(tasks) <= allowed, file


def test_rooms_import_relatively_and_scripts_absolutely():
    for file in FILES:
        nodes = [node for node in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(node, ast.ImportFrom)]
        relative = any(node.level for node in nodes)
        absolute = any((node.module or "").split(".")[0] == "vithub" for node in nodes if not node.level)
        assert not (relative if parts_of(file)[0] == "scripts" else absolute), file


def test_every_room_is_packaged_and_nothing_else():
    settings = PROJECT["tool"]["setuptools"]
    rooms = {file.parent.name for file in ROOT.glob("*/__init__.py") if file.parent.name != "tests"}
    assert rooms == set(BELOW) | DATA_ONLY
    folders = {
        parts_of(file) for room in rooms for file in (ROOT / room).rglob("*.py") if "__pycache__" not in file.parts
    }
    assert all((ROOT.joinpath(*parts) / "__init__.py").is_file() for parts in folders)
    assert sorted(settings["packages"]) == sorted(["vithub", *(".".join(("vithub", *parts)) for parts in folders)])
    assert settings["package-dir"] == {"vithub": "src/vithub", **{f"vithub.{name}": name for name in rooms}}


def test_what_the_bundle_takes_is_flat_with_names_of_its_own():
    files = [
        file for file in FILES if parts_of(file)[0] in ("configuration", "modeling") and file.name != "__init__.py"
    ]
    names = [file.name for file in files]
    assert len(names) == len(set(names)), sorted(name for name in names if names.count(name) > 1)
    assert all(len(parts_of(file)) == 1 for file in FILES if parts_of(file)[0] in FLAT)


def test_folders_and_files_are_small():
    inside: dict[tuple[str, ...], int] = {}
    for file in FILES:
        if file.name != "__init__.py":
            inside[parts_of(file)] = inside.get(parts_of(file), 0) + 1
    crowded = {parts for parts, count in inside.items() if count > MOST_FILES}
    assert crowded <= {("modeling",), ("comparison",), ("scripts",)}  # scripts/ has a file for each command
    lines = {named(file): len(file.read_text("utf-8").splitlines()) for file in FILES}
    assert {name: count for name, count in lines.items() if count > MOST_LINES} == {}


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


@pytest.mark.parametrize("file", [file for file in FILES if file.name != "__init__.py"], ids=named)
def test_every_file_lists_what_it_offers(file):
    tree = ast.parse(file.read_text("utf-8"))
    listed = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets)
    ]
    if parts_of(file)[0] == "scripts":
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


def test_the_map_for_contributors_names_every_folder_and_files_that_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("| ")]
    folders = {re.search("`(.+)/`", row[0])[1] for row in rows if row[0].strip().startswith("`")}
    there = {"/".join(parts_of(file)) for file in FILES if file.name != "__init__.py"} | DATA_ONLY
    unnamed = {
        folder for folder in there if not any(folder == name or folder.startswith(f"{name}/") for name in folders)
    }
    assert unnamed == set()
    assert folders <= there
    named = set(re.findall(r"`([\w/]+\.py|[\w/]+/)`", "\n".join(row[-1] for row in rows)))
    missing = {path for path in named if path.count("/") and not (ROOT / path).exists()}
    assert missing - {"readers/"} == set()
