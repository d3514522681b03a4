"""Search for local paths in the files to publish, and their replacement in recipe and metrics."""

from pathlib import Path

import yaml

from ...data.text.terminal_text import visible
from ..card.public_paths import PATH, public_metrics, public_recipe
from ..checkpoints import CheckpointError
from .files import PublishFile
from .secret_scan import Finding

_SEARCHED = (".json", ".yaml", ".yml", ".md", ".txt", ".svg", ".csv")
_MOST = 20


def find_paths(files: list[PublishFile]) -> list[Finding]:
    """Local paths left in the text files to send, with file and line: each path once per file, at most 20."""
    found = []
    for file in files:
        if not file.sent or not file.path.lower().endswith(_SEARCHED) or file.size > 50 * 2**20:
            continue
        seen: dict[str, int] = {}
        for number, line in enumerate(file.read().decode("utf-8", errors="replace").split("\n"), 1):
            for match in PATH.finditer(line):
                seen.setdefault(match[0], number)
        found += [
            Finding(file.path, number, f"a path of this machine, {visible(path)}")
            for path, number in list(seen.items())[:_MOST]
        ]
    return found


def replaced_files(folder: Path) -> dict[str, bytes]:
    """Published content of `recipe.yaml` and `metrics.json`, by name, where it differs from the folder's.

    Raises:
        CheckpointError: One of the two files is damaged; the message names it.
    """
    replaced = {}
    for name, rewritten in (("recipe.yaml", public_recipe), ("metrics.json", public_metrics)):
        if not (folder / name).is_file():
            continue
        try:
            text = (folder / name).read_text(encoding="utf-8")
            public = rewritten(text)
        except (ValueError, yaml.YAMLError, RecursionError) as error:
            raise CheckpointError(f"{folder / name} cannot be read: {' '.join(str(error).split())}") from error
        if public != text:
            replaced[name] = public.encode()
    return replaced


__all__ = ["find_paths", "replaced_files"]
