"""Distinction of files, folders and Hub ids by the names that users give, without asking the Hub."""

from pathlib import Path

# Extensions that mark a name as a file rather than a Hub id.
_FILE_ENDINGS = {".safetensors", ".pth", ".pt", ".bin", ".csv", ".tsv", ".parquet", ".json", ".yaml", ".yml"}
_RUNS = "runs"  # default folder of runs


class MissingPathError(ValueError):
    """A named file or folder does not exist."""


def looks_like_a_path(name: str) -> bool:
    """Whether a name cannot be a Hub id (`user/name`), or is more likely a path of the machine."""
    if name.startswith((".", "/", "~", "\\")) or name.count("/") != 1 or "\\" in name:
        return True
    return Path(name).suffix.lower() in _FILE_ENDINGS or name.split("/")[0] == _RUNS


def missing_path(name: str | Path) -> str | None:
    """Reason why a path does not exist; None where it exists or the name may be a Hub id."""
    path = Path(name).expanduser()
    if path.exists() or not (isinstance(name, Path) or looks_like_a_path(name)):
        return None
    parent = next((above for above in path.parents if above.exists()), None)
    if parent is None or parent in (path.parent, Path()) or not str(path.parent).strip("."):
        return "no such file or folder"
    return f"no such file or folder; {parent} exists, {path.parent} does not"


__all__ = ["MissingPathError", "looks_like_a_path", "missing_path"]
