"""Atomic writing of files, which appear whole or not at all even if the process is killed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(file: Path, *, durable: bool = False) -> Iterator[Path]:
    """Context that yields a temporary hidden path beside a file and moves it to the file's place at its end.

    Where the block raises, the file stays as it was.

    Args:
        file: File to write or to replace.
        durable: Whether to wait until the content is on the disk, so that it survives a loss of power.
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
    """Writes a file atomically; text is encoded as UTF-8, and its newlines are not converted.

    Args:
        file: File to write or to replace.
        content: Whole content of the file.
        durable: Whether to wait until the content is on the disk, so that it survives a loss of power.
    """
    with whole_file(file, durable=durable) as staging:
        staging.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)


__all__ = ["whole_file", "write_whole"]
