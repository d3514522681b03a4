"""Identity of a saved model as hashes of its files, so that predictions of two models are not mixed up."""

import hashlib
from pathlib import Path

from .exported.forms import check_files, choose_form
from .inference_loading import PROCESSOR, weight_files
from .ready_model import Backend, ReadyModel


def model_identity(folder: Path, backend: Backend = None) -> dict[str, str]:
    """SHA-256 hashes of a folder's `weights` (with their configuration) and of its `processor`.

    Args:
        folder: Folder of the model.
        backend: Exported form in place of the weights (see `choose_form`), or a loaded model, whose answers depend on
            what computes them.
    """
    ready = backend if isinstance(backend, ReadyModel) else None
    processor = folder / PROCESSOR
    form = None if isinstance(backend, ReadyModel) else choose_form(folder, backend)
    weights = weight_files(folder) if form is None else [folder / name for name in check_files(folder, form)["files"]]
    return {
        "weights": _hash([folder / "config.json", *weights], "" if ready is None else ready.described),
        "processor": _hash([processor] if processor.is_file() else []),
    }


def _hash(files: list[Path], more: str = "") -> str:
    digest = hashlib.sha256(more.encode())
    for file in files:
        with file.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()


__all__ = ["model_identity"]
