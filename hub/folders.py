"""Writing a folder so that it is either whole or not there."""

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class TargetError(OSError):
    """A folder that must not, or cannot, be written; the message names it."""


@contextmanager
def new_folder(target: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """A temporary folder beside `target` that takes its place when the block ends well, and is removed when not.

    Args:
        target: The folder to make. It may exist empty.
        overwrite: Replace a folder that holds files.

    Raises:
        TargetError: The target holds files and `overwrite` is False, is a file, or cannot be written.
    """
    target = Path(target).expanduser().absolute()
    check_target(target, overwrite)
    # the name is known before the folder is made: an interruption between the two leaves nothing
    staging, old = (target.parent / f".{target.name}-{secrets.token_hex(4)}{end}" for end in ("", "-old"))
    try:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            staging.mkdir()
        except OSError as error:
            raise TargetError(f"cannot write {target}: {error.strerror or error}") from error
        yield staging
        if target.exists():
            target.replace(old)
        staging.replace(target)
    finally:
        if old.exists() and not target.exists():  # interrupted between the two
            old.replace(target)
        shutil.rmtree(staging, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def check_target(target: Path, overwrite: bool = False) -> None:
    """Raises a `TargetError` when the folder holds files already (and may not be replaced) or is a file."""
    if target.is_file():
        raise TargetError(f"{target} is a file; name a folder")
    if target.is_dir() and any(target.iterdir()) and not overwrite:
        raise TargetError(f"{target} holds files already; name another folder, or allow it to be overwritten")


__all__ = ["TargetError", "check_target", "new_folder"]
