"""Output of lines and log records in which control characters are shown instead of sent to the terminal."""

import logging

import typer
from vithub.data.text.terminal_text import visible, visible_lines


def say(text: object, err: bool = False) -> None:
    """Prints one or more lines; control characters are shown, not obeyed."""
    typer.echo(visible_lines(str(text)), err=err)


class LineFormatter(logging.Formatter):
    """Formatter that writes a record of this package as one line; records of others keep their lines."""

    def format(self, record: logging.LogRecord) -> str:
        """Formats a record, with control characters shown."""
        text = super().format(record)
        return visible(text) if record.name.startswith("vithub") and not record.exc_info else visible_lines(text)


__all__ = ["LineFormatter", "say"]
