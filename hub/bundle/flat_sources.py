"""Flat source files of a model class, in one folder, that import only torch, transformers and the standard library."""

import ast
import re
import sys
from collections.abc import Iterable
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

PACKAGE = __name__.split(".")[0]
ROOMS = ("configuration", "modeling")
LIBRARIES = ("torch", "transformers")
_RELATIVE = re.compile(r"from \.+(?:\w+\.)*(\w+) import\b")
_HEADER = re.compile(rf"# \w+\.py of {PACKAGE} \S+ \(")


class BundleError(RuntimeError):
    """The model's code cannot be published, or does not load without the package; the message says why."""


def flat_sources(modules: Iterable[str]) -> dict[str, str]:
    """Flattens the named modules and all modules of the package that they import, each to one file.

    `from ..configuration.configuration_vit import X` becomes `from .configuration_vit import X`. The first line states
    version and licence. Lines at the end of the named modules import their indirect dependencies, because older
    versions of transformers copy only those files of a folder that the loaded file itself imports.

    Args:
        modules: Full module names, as in the `__module__` of a class.

    Returns:
        Text by file name, sorted by name. The same package gives the same bytes.

    Raises:
        BundleError: A file lies in a subpackage that is not published, or imports something other than `torch`,
            `transformers` or the standard library. Imports inside a `try` or an `if is_..._available()` are exempt,
            because the loader of transformers allows them.
    """
    named = sorted(set(modules))
    texts: dict[str, str] = {}
    imports: dict[str, set[str]] = {}
    due = list(named)
    while due:
        name = due.pop()
        if name in texts:
            continue
        package, *rooms = name.split(".")[:-1]
        if package != PACKAGE or len(rooms) != 1 or rooms[0] not in ROOMS:
            raise BundleError(f"{name} cannot be published with a model: it lies in none of the rooms {list(ROOMS)}")
        texts[name], imports[name] = _flattened(name, Path(str(import_module(name).__file__)))
        due += imports[name]
    for name in named:
        if indirect := sorted(_last(other) for other in _all_needed(name, imports) - imports[name] - {name}):
            texts[name] += (
                "\n# Needed by the files above; older versions of transformers copy only what is named here.\n"
            )
            texts[name] += "".join(
                f"from .{other} import __all__ as _{other}  # noqa: E402, F401\n" for other in indirect
            )
    return {f"{_last(name)}.py": texts[name] for name in sorted(texts, key=_last)}


def _all_needed(name: str, imports: dict[str, set[str]]) -> set[str]:
    needed, due = set[str](), [name]
    while due:
        new = imports[due.pop()] - needed
        needed |= new
        due += new
    return needed


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def is_flat_source(text: str) -> bool:
    """Whether a text is that of a file written by any version of `flat_sources`."""
    return _HEADER.match(text) is not None


def _flattened(name: str, file: Path) -> tuple[str, set[str]]:
    """Text of a file with rewritten imports, and the modules of the package that it imports."""
    text = file.read_text(encoding="utf-8")
    tree, lines, needed = ast.parse(text), text.splitlines(keepends=True), set[str]()
    parents = name.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            if node.module is None or node.level > len(parents):
                raise BundleError(f"line {node.lineno} of {file.name} must import names from a file of the package")
            needed.add(".".join([*parents[: len(parents) - node.level + 1], node.module]))
            line, count = _RELATIVE.subn(r"from .\1 import", lines[node.lineno - 1], count=1)
            if not count:
                raise BundleError(f"line {node.lineno} of {file.name} is no import that can be flattened: {line!r}")
            lines[node.lineno - 1] = line
    if foreign := sorted(_foreign(tree)):
        raise BundleError(
            f"{file.name} imports {', '.join(foreign)}; published files may import {', '.join(LIBRARIES)} and the "
            "standard library only (others in a `try` or behind `is_..._available()`)"
        )
    header = f"# {file.name} of {PACKAGE} {version(PACKAGE)} (Apache-2.0), one of the files that load without it.\n"
    return header + "".join(lines), needed


def _foreign(node: ast.AST) -> set[str]:
    """Imported packages whose absence would make the loader of transformers fail."""
    found: set[str] = set()
    if isinstance(node, ast.Try) or (isinstance(node, ast.If) and "_available(" in ast.unparse(node.test)):
        return found
    if isinstance(node, ast.Import):
        found |= {alias.name.split(".")[0] for alias in node.names}
    elif isinstance(node, ast.ImportFrom) and not node.level:
        found.add(str(node.module).split(".")[0])
    for child in ast.iter_child_nodes(node):
        found |= _foreign(child)
    return found - sys.stdlib_module_names - set(LIBRARIES)


__all__ = ["BundleError", "flat_sources", "is_flat_source"]
