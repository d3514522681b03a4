"""Prints lines and formats log records so that nothing in a name acts on the terminal."""

import logging

import typer
from vithub.data.text.terminal_text import visible, visible_lines


def say(text: object, err: bool = False) -> None:
    """Prints a line, or several; control characters in it are shown, not obeyed."""
    typer.echo(visible_lines(str(text)), err=err)


class LineFormatter(logging.Formatter):
    """A record of this package as one line, whatever names it holds; others keep their lines."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, with control characters shown."""
        text = super().format(record)
        return visible(text) if record.name.startswith("vithub") and not record.exc_info else visible_lines(text)


__all__ = ["LineFormatter", "say"]
