"""Identity of a saved model as hashes of its files, so that predictions of two models are not mixed up."""

import hashlib
from pathlib import Path

from .inference_loading import PROCESSOR, weight_files


def model_identity(folder: Path) -> dict[str, str]:
    """SHA-256 hashes of a folder's `weights` (with their configuration) and of its `processor`."""
    processor = folder / PROCESSOR
    return {
        "weights": _hash([folder / "config.json", *weight_files(folder)]),
        "processor": _hash([processor] if processor.is_file() else []),
    }


def _hash(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()


__all__ = ["model_identity"]
