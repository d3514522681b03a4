"""Writing of files that appear whole or not at all, whatever ends the process."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(file: Path, *, durable: bool = False) -> Iterator[Path]:
    """A hidden path beside a file, which takes the file's place at the end.

    Where the block raises, the file stays as it was.

    Args:
        file: The file to write or to replace.
        durable: Wait until the content is on the disk, so that it survives a loss of power.
    """
    staging = file.with_name(f".{file.name}.new")
    try:
        yield staging
        if durable:
            with staging.open("rb") as content:
                os.fsync(content.fileno())
        staging.replace(file)
    finally:
        staging.unlink(missing_ok=True)


def write_whole(file: Path, content: str | bytes, *, durable: bool = False) -> None:
    """Writes a file, text as UTF-8 with its newlines as they are.

    Args:
        file: The file to write or to replace.
        content: All of it.
        durable: As `whole_file`.
    """
    with whole_file(file, durable=durable) as staging:
        staging.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)


__all__ = ["whole_file", "write_whole"]
