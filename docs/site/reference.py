"""The reference: public names from their docstrings, commands from their `--help`; none of it is written by hand."""

import inspect
import re

import typer
from vithub.scripts.command_line import app as command_line

import vithub

WIDTH = 92  # characters of a line of help
# Headings of the rooms that public names come from, in the order of the page.
_ROOMS = {
    "training": "Train, evaluate, predict",
    "hub": "Load, convert, publish",
    "deployment": "Export and speed",
    "interpretability": "Explain and look inside",
    "comparison": "Compare",
    "configuration": "Configurations",
    "modeling": "Models",
}


def extend(_app, page, source):
    """Appends to the two pages of the reference what they are there for."""
    if page == "reference/python":
        source[0] += public_names()
    elif page == "reference/commands":
        source[0] += commands()


def public_names():
    """Directives for all that `vithub` offers, in Markdown."""
    lines = []
    for room, heading in _ROOMS.items():
        names = [name for name in vithub.__all__ if vithub._HOMES[name].startswith(f"{room}.")]
        directives = [line for name in names for line in _directive(name)]
        lines += ["", f"## {heading}", "", "```{eval-rst}", *directives, "```"]
    missing = [name for name in vithub.__all__ if vithub._HOMES[name].split(".")[0] not in _ROOMS]
    if missing:
        raise ValueError(f"the reference has no heading for the rooms of {', '.join(missing)}: add it to _ROOMS")
    return "\n".join([*lines, ""])


def _directive(name):
    value = getattr(vithub, name)
    if inspect.isclass(value):
        return [f".. autoclass:: vithub.{name}", "   :members:", ""]
    if inspect.isfunction(value):
        return [f".. autofunction:: vithub.{name}", ""]
    return [f".. autodata:: vithub.{name}", "   :no-value:", ""]


def commands():
    """The help of every command, in Markdown."""
    group = typer.main.get_command(command_line)
    around = group.context_class(group, info_name="vithub", terminal_width=WIDTH, **group.context_settings)
    lines = ["", "```text", group.get_help(around), "```"]
    for name, command in group.commands.items():
        context = command.context_class(command, info_name=name, parent=around)
        lines += ["", f"## vithub {name}", "", "```text", command.get_help(context), "```"]
    return "\n".join([*lines, ""])


def to_restructured_text(_app, _what, _name, _object, _options, lines):
    """Turns the Markdown of docstrings, code in backticks, into the markup that autodoc reads, in place."""
    text = re.sub(r"(?<!`)`([^`\n]+)`(?!`)", r"``\1``", "\n".join(lines))
    lines[:] = text.split("\n")
