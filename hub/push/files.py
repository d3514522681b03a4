"""Selection of the files of a folder that belong to a published model, with the reason for each decision."""

import fnmatch
import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ..checkpoints import (
    INDEX,
    PICKLES,
    WEIGHTS,
    CheckpointError,
    code_references,
    read_config,
    read_index,
    read_json,
)
from ..exported.forms import RECORD, check_files, form_of, read_records
from ..missing_models import without_config

# Purpose of the files of a published model, by pattern; the first pattern that matches applies.
_BELONGS = {
    "config.json": "configuration",
    "generation_config.json": "configuration",
    WEIGHTS: "weights",
    INDEX: "names of the parts of the weights",
    "model-[0-9]*-of-[0-9]*.safetensors": "part of the weights",
    "preprocessor_config.json": "image processor",
    "processor_config.json": "image processor",
    "adapter_config.json": "low-rank adapters",
    "adapter_model.safetensors": "low-rank adapters",
    "README.md": "model card",
    "recipe.yaml": "recipe of the run",
    "metrics.json": "measurements of the run",
    ".eval_results/*.yaml": "results for the Hub's page",
    "*.png": "picture of the card",
    "*.jpg": "picture of the card",
    "*.svg": "picture of the card",
    RECORD: "record of the exported forms",
    "LICENSE*": "licence",
    "NOTICE*": "licence",
    ".gitattributes": "what git stores as large files",
}
HANDLER = "handler.py"
CODE = "code of the model"  # purpose of the files that loading the model runs
# Purpose of files that are made when a model is published.
_MADE = {HANDLER: "handler of inference endpoints"}
# Files, besides configuration and weights, whose content is sent or read for what is sent.
_READ = ("preprocessor_config.json", "README.md", "recipe.yaml", "metrics.json")
# Folders whose pictures are published.
_PICTURES = ("pictures", "examples", "figures", "images", "assets")
# Reasons for not publishing a file, by pattern; tested in this order.
_STAYS = (
    (r"(^|/)\.env(\.|$)", "environment, which may hold secrets"),
    (r"(^|/)(\.netrc|\.git-credentials|token|stored_tokens|id_(rsa|ed25519|ecdsa)|credentials[^/]*)$", "credentials"),
    (r"\.(pem|key|p12|pfx)$", "credentials"),
    (r"(^|/)(\.git|\.hg|\.svn)(/|$)", "version control"),
    (r"(^|/)(checkpoints|checkpoint-\d+)/", "checkpoint, to resume training from"),
    (r"(^|/)(optimizer|scheduler|scaler|rng_state|training_args|trainer_state)[^/]*$", "state of the training"),
    (r"(^|/)(__pycache__|\.cache|\.ipynb_checkpoints|\.ruff_cache|\.mypy_cache|\.pytest_cache)(/|$)", "cache"),
    (r"(^|/)(features|counts|teacher)[^/]*\.safetensors$", "cache"),
    (r"\.py[co]$", "cache"),
    (r"(^|/)(logs?|runs|wandb|mlruns|tensorboard)/|\.log$|events\.out\.tfevents", "log"),
    (r"^dry_run\.png$", "images of the data set, as a dry run shows them"),
    (r"~$|\.(tmp|swp|bak|incomplete|lock)$", "temporary file"),
)


@dataclass(frozen=True)
class PublishFile:
    """One file of the folder, with the decision whether it is published.

    Args:
        path: Path relative to the folder, with `/`.
        size: Size of the published content in bytes.
        sent: Whether the file belongs in the repository.
        why: Purpose of the file, or the reason why it is not sent.
        content: Bytes that are sent instead of the file's own; None sends the file as it is.
        source: Local file; None if there is only `content`.
    """

    path: str
    size: int
    sent: bool
    why: str
    content: bytes | None = field(default=None, repr=False)
    source: Path | None = field(default=None, repr=False)

    def read(self) -> bytes:
        """Returns the bytes to send."""
        if self.content is not None:
            return self.content
        assert self.source is not None
        return self.source.read_bytes()

    def hashes(self) -> tuple[str, str]:
        """SHA-256 (the Hub's hash of large files) and git's SHA-1 (that of other files) of the bytes to send."""
        sha256, sha1 = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % self.size, usedforsecurity=False)
        if self.content is not None:
            sha256.update(self.content)
            sha1.update(self.content)
        else:
            assert self.source is not None
            with self.source.open("rb") as file:
                while block := file.read(1 << 20):
                    sha256.update(block)
                    sha1.update(block)
        return sha256.hexdigest(), sha1.hexdigest()


def select_files(folder: Path, replaced: dict[str, bytes] | None = None) -> list[PublishFile]:
    """All files below a folder, sorted by path, each with the decision whether it is published.

    Args:
        folder: Folder of a run or of a saved model.
        replaced: Content by path that is sent instead of the file's own, or although there is no such file.

    Raises:
        CheckpointError: The folder holds no complete model.
    """
    code = check_model_folder(folder)
    forms = {
        file: f"exported form, {name}"
        for name in read_records(folder)
        for file in check_files(folder, form_of(name))["files"]
    }
    found: dict[str, PublishFile] = {}
    for file in sorted(folder.rglob("*")):
        path = file.relative_to(folder).as_posix()
        if file.is_file():
            sent, why = (True, forms[path]) if path in forms else _decide(path, code)
            if leads_out(file, folder):
                sent, why = False, "link that leads out of the folder"
            elif sent and not _is_utf8(path):
                sent, why = False, "name that is not UTF-8"
            found[path] = PublishFile(path, file.stat().st_size, sent, why, source=file)
        elif file.is_symlink():
            why = "link to a folder" if file.is_dir() else "link that leads nowhere"
            found[path] = PublishFile(path, 0, False, why, source=file)
        elif not file.is_dir():
            found[path] = PublishFile(path, 0, False, "no regular file", source=file)
    for path, content in (replaced or {}).items():
        why = _MADE.get(path) or (found[path].why if path in found else _decide(path, code)[1])
        found[path] = PublishFile(path, len(content), True, why, content)
    return [found[path] for path in sorted(found)]


def _is_utf8(path: str) -> bool:
    """Whether a file's name can be sent as text; Python represents bytes that are not UTF-8 as lone surrogates."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _decide(path: str, code: set[str]) -> tuple[bool, str]:
    for pattern, why in _STAYS:
        if re.search(pattern, path, re.IGNORECASE):
            return False, why
    if path.endswith(PICKLES):
        return False, "pickle, which can run code when it is read"
    for pattern, why in _BELONGS.items():
        if fnmatch.fnmatchcase(path, pattern) and path.count("/") == pattern.count("/"):
            return True, why
    parts = PurePosixPath(path).parts
    if len(parts) > 1 and parts[0] in _PICTURES and path.endswith((".png", ".jpg", ".svg")):
        return True, "picture of the card"
    if path in code:
        return True, CODE
    if path.endswith(".py"):
        return False, "code that config.json does not name"
    return False, "hidden file" if path.startswith(".") else "no part of a model"


def check_model_folder(folder: Path) -> set[str]:
    """Checks that a folder holds a configuration and complete weights; returns the code files that it names.

    Raises:
        CheckpointError: A file is missing, damaged or a link out of the folder; the message names it.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is no folder; name the folder of a run or of a saved model")
    if not (folder / "config.json").is_file():
        raise CheckpointError(without_config(folder))
    config = read_config(folder)
    several = (folder / INDEX).is_file() and not (folder / WEIGHTS).is_file()
    names = sorted(set(read_index(folder).values())) if several else [WEIGHTS]
    for name in names:
        _check_weights(folder / name)
    for name in ("config.json", *names, *_READ):
        if leads_out(folder / name, folder):
            target = (folder / name).resolve()
            raise CheckpointError(
                f"{folder / name} is a link to {target}, outside the folder; put the file itself there"
            )
    if (folder / "preprocessor_config.json").is_file():
        read_json(folder / "preprocessor_config.json")
    return code_files(folder, config.get("auto_map") or {})


def leads_out(file: Path, folder: Path) -> bool:
    """Whether a file is a link out of its folder; links inside one repository of the Hub's cache do not count."""
    if not file.is_symlink():
        return False
    target, root = file.resolve(), folder.resolve()
    if root.parent.name == "snapshots" and target.is_relative_to(root.parent.parent / "blobs"):
        return False
    return not target.is_relative_to(root)


def _check_weights(file: Path) -> None:
    """Reads the header of a safetensors file and compares it with the file's length."""
    if not file.is_file():
        raise CheckpointError(f"{file.parent} holds no {file.name}: save the model as safetensors first")
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = stream.read(length) if length <= size - 8 else b""
    try:
        entries = json.loads(header)
        ends = [int(entry["data_offsets"][1]) for name, entry in entries.items() if name != "__metadata__"]
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{file} is no readable safetensors file") from error
    if size != 8 + length + max(ends, default=0):
        raise CheckpointError(f"{file} has {size} bytes where its header tells {8 + length + max(ends, default=0)}")


def code_files(folder: Path, auto_map: dict[str, object]) -> set[str]:
    """Code files of a folder that an `auto_map` names, and the files of the folder that these import."""
    waiting = {reference.split("--")[-1].split(".")[0] + ".py" for reference in code_references(auto_map)}
    found: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in found or not (folder / name).is_file():
            continue
        found.add(name)
        try:
            text = (folder / name).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise CheckpointError(f"{folder / name} is no code in UTF-8: {error}") from error
        waiting |= {f"{module}.py" for module in re.findall(r"^\s*from\s+\.(\w+)\s+import", text, re.MULTILINE)}
    return found


__all__ = ["CODE", "HANDLER", "PublishFile", "check_model_folder", "code_files", "select_files"]
