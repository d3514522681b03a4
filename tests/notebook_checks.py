"""Checks of notebooks that are made from files in percent format, and the programs that make them as modules."""

import ast
import builtins
import importlib.util
import sys


def load_program(file, name):
    """A program of docs/, which is no package, as a module."""
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    before = list(sys.path)
    sys.modules[name] = module  # dataclasses look for their module
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[name]
        sys.path[:] = before
    return module


def check_outputs(cell):
    """Texts and pictures alone, and no warning among them."""
    for output in cell.outputs:
        assert output.output_type in ("stream", "display_data"), output
        assert output.get("name", "stdout") == "stdout", f"a warning: {output.text}"


def names_from_elsewhere(code):
    """Names that a text of Python reads and does not make."""
    names = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name | ast.arg | ast.alias)]
    made = {node.id for node in names if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
    made |= {node.arg for node in names if isinstance(node, ast.arg)}
    made |= {(node.asname or node.name).split(".")[0] for node in names if isinstance(node, ast.alias)}
    made |= {n.name for n in ast.walk(ast.parse(code)) if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    read = {node.id for node in names if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    return read - made - set(dir(builtins))
