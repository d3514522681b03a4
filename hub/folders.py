"""Atomic writing of folders: the target is either complete or absent."""

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class TargetError(OSError):
    """The target folder must not or cannot be written; the message names it."""


@contextmanager
def new_folder(target: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """Yields a temporary folder beside `target` that replaces it if the block succeeds and is removed otherwise.

    Args:
        target: Folder to create; it may exist if it is empty.
        overwrite: Whether to replace a folder that holds files; False by default.

    Raises:
        TargetError: The target holds files and `overwrite` is False, is a file, or cannot be written.
    """
    target = Path(target).expanduser().absolute()
    check_target(target, overwrite)
    # the names are chosen before the folder is created, so that an interruption in between leaves nothing behind
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
        if old.exists() and not target.exists():  # interrupted between the two calls of `replace`
            old.replace(target)
        shutil.rmtree(staging, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def check_target(target: Path, overwrite: bool = False) -> None:
    """Raises a `TargetError` if the target is a file, or holds files and may not be overwritten."""
    if target.is_file():
        raise TargetError(f"{target} is a file; name a folder")
    if target.is_dir() and any(target.iterdir()) and not overwrite:
        raise TargetError(f"{target} holds files already; name another folder, or allow it to be overwritten")


__all__ = ["TargetError", "check_target", "new_folder"]
