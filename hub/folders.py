"""Writing a folder so that it is either whole or not there."""

import os
import shutil
import tempfile
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
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        raise TargetError(f"cannot write {target}: {error.strerror or error}") from error
    try:
        yield staging
        staging.chmod(0o777 & ~_umask())
        if target.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{target.name}-old-", dir=target.parent))
            target.replace(old)
            staging.replace(target)
            shutil.rmtree(old)
        else:
            staging.replace(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def check_target(target: Path, overwrite: bool = False) -> None:
    """Raises a `TargetError` when the folder holds files already (and may not be replaced) or is a file."""
    if target.is_file():
        raise TargetError(f"{target} is a file; name a folder")
    if target.is_dir() and any(target.iterdir()) and not overwrite:
        raise TargetError(f"{target} holds files already; name another folder, or allow it to be overwritten")


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


__all__ = ["TargetError", "check_target", "new_folder"]
