"""Files of a publication: those of the folder, of a converted model and of an inference endpoint, and the card."""

import json
from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError

from ...data.argument_names import argument
from ..card.header import RESULTS
from ..checkpoints import INDEX, WEIGHTS, read_config
from ..exported.forms import RECORD, record_text
from ..inference_loading import PROCESSOR
from . import endpoint_handler
from .cards import Cards
from .errors import PublishError, explain, is_disk_full, refuse_secrets
from .files import CODE, HANDLER, PublishFile, select_files
from .local_paths import replaced_files
from .published_form import choose_form

# Files that a native model takes from the converted folder; the others come from the run.
_OF_THE_MODEL = ("config.json", WEIGHTS, INDEX)


def prepare(
    folder: Path,
    repo_id: str,
    staging: Path,
    *,
    native: bool = False,
    bundle: bool = False,
    endpoint: bool = False,
    token: str | None = None,
) -> tuple[list[PublishFile], Cards]:
    """All files with the decision whether each is sent, none of which holds a secret, and the source of their card.

    Args:
        folder: Folder of the model.
        repo_id: Name of the repository, "user/name".
        staging: New folder for a converted model, whose files are read when they are sent.
        native: Whether transformers' own class is required.
        bundle: Whether the code beside the weights is required.
        endpoint: Whether a handler for inference endpoints is sent.
        token: Access token in use, which no file may hold; None where there is none.

    Raises:
        CheckpointError: The folder holds no complete model.
        InexpressibleError: `native` is set and transformers has no such model; the features are listed.
        PublishError: An option does not apply to the folder, a file seems to hold a secret, or the disk is full.
    """
    try:
        files = select_files(folder, replaced_files(folder) | (_endpoint_files(folder) if endpoint else {}))
        why = "results that the Hub shows for its own benchmarks only"  # earlier versions wrote them for any data set
        files = [replace(file, sent=False, why=why) if file.path == RESULTS else file for file in files]
        form = choose_form(folder, staging, native, bundle)
        if form.folder is not None:
            files = _as_native(files, form.folder, folder)
        cards = Cards(folder, repo_id, form)
        files = cards.add(files)
        refuse_secrets(files, token)
    except (OSError, SafetensorError) as error:
        if is_disk_full(error):
            raise explain(error, repo_id, "preparing the files", token) from None
        raise
    return files, cards


def _endpoint_files(folder: Path) -> dict[str, bytes]:
    """Content of the files of an inference endpoint by path."""
    content = Path(endpoint_handler.__file__).read_bytes()
    if (folder / HANDLER).is_file() and (folder / HANDLER).read_bytes() != content:
        raise PublishError(f"{folder} holds a {HANDLER} of its own, which {argument('endpoint')} would replace")
    return {HANDLER: content}


def _as_native(files: list[PublishFile], native: Path, folder: Path) -> list[PublishFile]:
    """Files of a folder, with those of the converted model in place of its own and without its code.

    The image processor stays the folder's own; the configuration of a timm model states the preprocessing itself.
    """
    taken = {*_OF_THE_MODEL, PROCESSOR} if "architecture" in read_config(folder) else {*_OF_THE_MODEL}
    forms = [_without_weights(file) for file in files if file.path == RECORD and file.sent]
    model = [
        file if file.path.endswith(".safetensors") else replace(file, content=file.read())
        for file in select_files(native)
        if file.path in taken
    ]
    names = {file.path for file in (*model, *forms)}
    rest = [
        replace(file, sent=False, why="not needed by transformers' own class")
        if file.sent and (file.path in _OF_THE_MODEL or file.why in (CODE, "part of the weights"))
        else file
        for file in files
        if file.path not in names
    ]
    return sorted([*model, *forms, *rest], key=lambda file: file.path)


def _without_weights(record: PublishFile) -> PublishFile:
    """`export.json` without the hashes of the weights beside it, which are replaced by those of the converted model."""
    forms = json.loads(record.read())["forms"]
    kept = {name: {key: value for key, value in entry.items() if key != "weights"} for name, entry in forms.items()}
    content = record_text(kept).encode()
    return replace(record, size=len(content), content=content)


__all__ = ["prepare"]
