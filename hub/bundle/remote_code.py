"""Loading of third-party model code: it runs only if the user trusts it, and only while its files stay unchanged."""

import hashlib
import json
import logging
import os
import re
import shutil
from pathlib import Path
from typing import Any

import transformers
from huggingface_hub import constants, snapshot_download
from transformers import AutoImageProcessor, PreTrainedModel
from transformers.utils.hub import HF_MODULES_CACHE

from ..checkpoints import CheckpointError, code_references, read_config, read_json

logger = logging.getLogger("vithub")
_AUTO_CLASSES = {
    "backbone": "AutoModel",
    "feature-maps": "AutoBackbone",
    "image-classification": "AutoModelForImageClassification",
    "masked-image-modeling": "AutoModelForMaskedImageModeling",
    "object-detection": "AutoModelForObjectDetection",
}


class RemoteCodeError(CheckpointError):
    """The code is not trusted, differs from the code that was trusted, or lacks a package; the message says which."""


def remote_classes(folder: Path) -> dict[str, str]:
    """References to a folder's own classes in its `config.json`, by name of the Auto class; empty if there are none."""
    stated = read_config(folder).get("auto_map") if (folder / "config.json").is_file() else None
    named = {name: code_references({name: value}) for name, value in (stated or {}).items()}
    return {name: references[0] for name, references in named.items() if references}


def refuse_code(name: str, folder: Path) -> RemoteCodeError:
    """Error for a model whose code the user did not allow to run."""
    files = sorted({f"{reference.split('.')[0]}.py" for reference in remote_classes(folder).values()})
    model_type = read_config(folder).get("model_type")
    stated = "" if model_type is None else f" (model_type {model_type!r})"
    return RemoteCodeError(
        f"{name}{stated} is a model with code of its own ({', '.join(files)}), which was not run. Read it; if you "
        "trust it, pass trust_remote_code=True and the revision that you read"
    )


def load_trusted(source: str, folder: Path, task: str | None, token: str | None) -> tuple[PreTrainedModel, Any]:
    """Loads a model with the code that comes with it, and its image processor or None.

    The first load of a commit stores the SHA-256 of each code file below `HF_HOME`. Later loads of the commit refuse
    files that differ, both in the download cache and in the copies that transformers runs.

    Args:
        source: Folder or Hub id of the model.
        folder: Local folder with `config.json` and weights; for a Hub id, the downloaded snapshot.
        task: "backbone", "image-classification", ...; None selects the most specialised class that the code has.
        token: Access token of the Hub, or None.

    Raises:
        RemoteCodeError: The code changed, belongs to another repository, or needs a package that is not installed.
    """
    classes = remote_classes(folder)
    if others := sorted(ref.split("--")[0] for ref in classes.values() if "--" in ref):
        raise RemoteCodeError(f"{source} wants to run code of another repository ({', '.join(others)}); load that one")
    arguments: dict[str, Any] = {"trust_remote_code": True, "use_safetensors": True}
    place = source
    if Path(source).expanduser().exists():
        place = str(folder)
    else:
        commit = folder.name
        snapshot_download(source, revision=commit, token=token, allow_patterns=["*.py"])
        _check(source, commit, folder)
        arguments |= {"revision": commit, "token": token}
    names = [_AUTO_CLASSES[task]] if task else [name for name in reversed(_AUTO_CLASSES.values()) if name in classes]
    if not names or names[0] not in classes:
        wanted = f"no class for {task!r}" if task else "no model class"
        raise CheckpointError(f"{source} has {wanted}, only {sorted(classes)}")
    try:
        model: PreTrainedModel = getattr(transformers, names[0]).from_pretrained(place, **arguments)
    except ImportError as error:
        reason = " ".join(str(error).split())
        raise RemoteCodeError(f"the code of {source} needs a package that is not installed: {reason}") from error
    processor = None
    if (folder / "preprocessor_config.json").is_file():
        processor = AutoImageProcessor.from_pretrained(folder)
    return model.eval(), processor


def _check(repo_id: str, commit: str, folder: Path) -> None:
    """Compares code files with the trusted hashes; the first time, stores their hashes."""
    found = {file.relative_to(folder).as_posix(): file for file in sorted(folder.rglob("*.py"))}
    hashes = {path: _sha256(file) for path, file in found.items()}
    altered = [path for path, file in found.items() if not _as_downloaded(file)]
    lock = Path(constants.HF_HOME) / "vithub" / "trusted_code.json"
    trusted: dict[str, dict[str, dict[str, str]]] = read_json(lock) if lock.is_file() else {}
    commits = list(trusted.values())
    if not all(isinstance(of, dict) and all(isinstance(files, dict) for files in of.values()) for of in commits):
        raise RemoteCodeError(f"{lock} is damaged; delete it to trust anew what you have read")
    known = trusted.get(repo_id, {}).get(commit)
    if known is not None:
        altered += [path for path in sorted(hashes.keys() | known.keys()) if hashes.get(path) != known.get(path)]
    for copy in _copies(commit):
        if (name := copy.relative_to(_copy_root(copy, commit)).as_posix()) in hashes and _sha256(copy) != hashes[name]:
            altered.append(str(copy))
    if altered:
        raise RemoteCodeError(
            f"code of {repo_id} at {commit[:12]} is not what it was when it was downloaded and trusted: "
            f"{', '.join(dict.fromkeys(altered))}. It was not run. Delete {folder.parent.parent} and its copies below "
            f"{HF_MODULES_CACHE} to download it again"
        )
    if known is None:
        _tell_changes(repo_id, commit, hashes, trusted.get(repo_id, {}))
        trusted.setdefault(repo_id, {})[commit] = hashes
        lock.parent.mkdir(parents=True, exist_ok=True)
        staging = lock.with_suffix(f".{os.getpid()}")  # named by process, since several may store hashes at once
        staging.write_text(json.dumps(trusted, indent=1) + "\n", encoding="utf-8")
        staging.replace(lock)
    # Compiled copies are not compared, so they are deleted and compiled again.
    for copy in {copy.parent for copy in _copies(commit)}:
        shutil.rmtree(copy / "__pycache__", ignore_errors=True)


def _copies(commit: str) -> list[Path]:
    """Copies of a commit's code files that transformers made and runs."""
    return sorted((Path(HF_MODULES_CACHE) / "transformers_modules").glob(f"*/*/{commit}/**/*.py"))


def _copy_root(copy: Path, commit: str) -> Path:
    return next(parent for parent in copy.parents if parent.name == commit)


def _as_downloaded(file: Path) -> bool:
    """Whether a file of the download cache still has the git hash that is its name there."""
    name, content = file.resolve().name, file.read_bytes()
    if not re.fullmatch(r"[0-9a-f]{40}", name):
        return True
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest() == name


def _tell_changes(repo_id: str, commit: str, hashes: dict[str, str], trusted: dict[str, dict[str, str]]) -> None:
    """Warns if the code differs from that of another commit of the repository that was trusted before."""
    if not trusted:
        return
    last, known = list(trusted.items())[-1]
    changed = sorted(path for path in hashes.keys() | known.keys() if hashes.get(path) != known.get(path))
    if changed:
        logger.warning(
            "%s has other code at %s than at %s, which was trusted before: %s. Pin the revision to keep to one",
            repo_id, commit[:12], last[:12], ", ".join(changed),
        )  # fmt: skip


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


__all__ = ["RemoteCodeError", "load_trusted", "refuse_code", "remote_classes"]
