"""Manifest of a published model: hash and size of every file, what made it, and the figures that it claims."""

import hashlib
import json
from importlib.metadata import distribution, version
from pathlib import Path
from typing import Any

from ...data.text.json_text import json_text
from ..card.header import headline_of
from ..checkpoints import read_json
from .files import PublishFile
from .signing import SIGNATURE, sign

MANIFEST = "manifest.json"
FORMAT = 1


def with_manifest(
    files: list[PublishFile], folder: Path, repo_id: str, key: str | Path | None = None
) -> list[PublishFile]:
    """Files to publish with their manifest, and with a key its signature; the manifest depends on nothing else.

    Args:
        files: Files of the folder, as they are decided on and with the content that is sent.
        folder: Folder of the model.
        repo_id: Name of the repository, "user/name".
        key: PEM file of an Ed25519 private key; None signs nothing.
    """
    others = [file for file in files if file.path not in (MANIFEST, SIGNATURE)]
    content = (json_text(manifest(others, folder, repo_id), indent=1) + "\n").encode()
    made = [PublishFile(MANIFEST, len(content), True, "hashes of the files, for vithub verify", content)]
    if key is not None:
        signature = sign(content, Path(key))
        made.append(PublishFile(SIGNATURE, len(signature), True, "signature of the manifest", signature))
    return sorted([*others, *made], key=lambda file: file.path)


def manifest(files: list[PublishFile], folder: Path, repo_id: str) -> dict[str, Any]:
    """Content of the manifest; see `with_manifest` for the arguments."""
    sent = [file for file in files if file.sent]
    metrics = read_json(folder / "metrics.json") if (folder / "metrics.json").is_file() else {}
    hashes = {file.path: file.hashes()[0] for file in sent}
    config = next(file for file in sent if file.path == "config.json")
    return {
        "format": FORMAT,
        "repository": repo_id,
        "model_type": json.loads(config.read()).get("model_type"),
        "vithub": {"version": version("vithub"), "commit": _commit()},
        "versions": metrics.get("versions") or {},
        "hardware": metrics.get("hardware"),
        "recipe": hashes.get("recipe.yaml"),
        "results": _results(metrics),
        "data": metrics.get("evaluated_on"),
        "files": {file.path: {"sha256": hashes[file.path], "size": file.size} for file in sent},
    }


def _results(metrics: dict[str, Any]) -> dict[str, Any] | None:
    """Figures that the card states, with their intervals; None for a folder without a run's measurements."""
    split = metrics.get("reported_split")
    if not isinstance(split, str) or not isinstance(metrics.get(split), dict):
        return None
    stated, figures = metrics.get("headline"), metrics[split]
    headline = stated if isinstance(stated, str) else headline_of(metrics)
    intervals = metrics.get("intervals") or {}
    return {
        "split": split,
        "headline": headline,
        "value": figures.get(headline),
        "interval": intervals.get(headline),
        "figures": {name: value for name, value in figures.items() if isinstance(value, int | float)},
        "intervals": intervals,
    }


def _commit() -> str | None:
    """Commit that pip installed this package from; None where it was not installed from a repository."""
    text = distribution("vithub").read_text("direct_url.json")
    commit = (json.loads(text).get("vcs_info") or {}).get("commit_id") if text else None
    return commit if isinstance(commit, str) else None


def file_hash(file: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


__all__ = ["FORMAT", "MANIFEST", "file_hash", "manifest", "with_manifest"]
