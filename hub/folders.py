"""Atomic writing of folders: the target is either complete or absent, and an earlier one stays until then."""

import ctypes
import errno
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

_OF_DISKS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_HERE, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux's renameat2


class TargetError(OSError):
    """The target folder must not or cannot be written; the message names it."""


@contextmanager
def new_folder(target: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """Yields a temporary folder beside `target` that replaces it if the block succeeds and is removed otherwise.

    Temporary folders of killed processes are removed. On Linux an earlier folder is replaced in one operation of the
    file system, so that there is a complete one at any time.

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
    held: list[int] = []
    try:
        with write_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            with _locked(target.parent):
                _remove_abandoned(target)
                check_target(target, overwrite)
                staging.mkdir()
                held += _lock(staging)
        with write_errors(target, within=staging):
            yield staging
        with write_errors(target), _locked(target.parent):
            check_target(target, overwrite)  # another process may have written it meanwhile
            if not (target.exists() and _exchange(staging, target)):
                if target.exists():
                    target.replace(old)
                staging.replace(target)
    finally:
        if old.exists() and not target.exists():  # interrupted between the two calls of `replace`
            old.replace(target)
        _remove(staging)
        _remove(old)
        for descriptor in held:
            os.close(descriptor)


@contextmanager
def write_errors(target: Path, within: Path | None = None) -> Iterator[None]:
    """Context that turns errors of writing, such as a full disk, into a `TargetError` that names the target.

    Args:
        target: Folder or file to name.
        within: Temporary folder that is written in its place; errors of files elsewhere are left as they are. None
            takes all errors to be of the target.
    """
    try:
        yield
    except TargetError:
        raise
    except SafetensorError as error:
        if "os error" not in str(error):  # not of the system but of a file that is read
            raise
        raise TargetError(f"cannot write {target}: {error}") from error
    except OSError as error:
        place = error.filename if isinstance(error.filename, str) else None
        ours = error.errno in _OF_DISKS if place is None else within is None or Path(place).is_relative_to(within)
        if not ours:
            raise
        raise TargetError(f"cannot write {target}: {error.strerror or error}") from error


@contextmanager
def staged_files(folder: Path, last: str) -> Iterator[Path]:
    """Yields a hidden folder within a folder, whose files replace those of the same names when the block succeeds.

    An error or a kill while the files are made leaves the folder as it was; moving them takes no space.

    Args:
        folder: Existing folder.
        last: Name of the file that is moved last, which says that the others are there.

    Raises:
        TargetError: The files cannot be written.
    """
    staging = folder / ".staged"
    with write_errors(folder):
        try:
            _remove(staging)
            staging.mkdir()
            yield staging
            files = [path for path in staging.rglob("*") if path.is_file()]
            for path in sorted(files, key=lambda path: (path.name == last, path)):
                place = folder / path.relative_to(staging)
                place.parent.mkdir(parents=True, exist_ok=True)
                path.replace(place)
        finally:
            _remove(staging)


def _exchange(staging: Path, target: Path) -> bool:
    """Lets two folders change places in one operation; False where the system or its file system has none."""
    try:
        rename = ctypes.CDLL(None).renameat2
    except AttributeError:
        return False
    return bool(rename(_HERE, os.fsencode(staging), _HERE, os.fsencode(target), _EXCHANGE) == 0)


def _lock(folder: Path, wait: bool = False) -> list[int]:
    """Locks a folder until the descriptor is closed, at the latest when the process ends; empty where it cannot be.

    Another process may hold it, or the file system may have no locks.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        os.close(descriptor)
        return []
    return [descriptor]


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Context in which no other process makes or removes temporary folders in a folder."""
    held = _lock(folder, wait=True)
    try:
        yield
    finally:
        for descriptor in held:
            os.close(descriptor)


def _remove_abandoned(target: Path) -> None:
    """Removes temporary folders of killed processes, and puts back an earlier target that one of them had moved."""
    name = re.compile(rf"(\.{re.escape(target.name)}-[0-9a-f]{{8}})(-old)?")
    for path in sorted(target.parent.iterdir()):
        if not (found := name.fullmatch(path.name)):
            continue
        owner = path.with_name(found[1])
        held = _lock(owner)
        try:
            if not held and owner.exists():
                continue  # of a process that lives
            if found[2] and not target.exists():
                path.replace(target)
            else:
                _remove(path)
        finally:
            for descriptor in held:
                os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_symlink():
        with suppress(OSError):
            path.unlink()
    shutil.rmtree(path, ignore_errors=True)


def check_target(target: Path, overwrite: bool = False) -> None:
    """Raises a `TargetError` if the target is a file, or holds files and may not be overwritten."""
    if target.is_file():
        raise TargetError(f"{target} is a file; name a folder")
    if target.is_dir() and any(target.iterdir()) and not overwrite:
        raise TargetError(f"{target} holds files already; name another folder, or allow it to be overwritten")


__all__ = ["TargetError", "check_target", "new_folder", "staged_files", "write_errors"]
