"""Verification of a published folder against its manifest: signature, files, code that would run."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..bundle.code_bundle import bundle_files
from ..checkpoints import PICKLES, CheckpointError, code_references, read_config
from ..conversion.model_classes import MODELS
from .manifest import FORMAT, MANIFEST, file_hash
from .signing import SIGNATURE, is_signed_by, key_name

_OF_THE_HUB = (".gitattributes",)  # what the Hub adds to every repository
_NOT_OF_THE_MODEL = (".git", ".cache")  # folders of clients


@dataclass
class Verification:
    """Result of a verification.

    Args:
        source: Folder or Hub id, as it was given.
        problems: What contradicts the manifest or cannot be trusted, each in one line; empty if all holds.
        checked: What was checked and holds, each in one line.
        code: Files that loading would run, each with whether this version of the package writes it byte for byte.
        manifest: Content of the manifest; empty where it cannot be read.
    """

    source: str
    problems: list[str] = field(default_factory=list)
    checked: list[str] = field(default_factory=list)
    code: dict[str, bool] = field(default_factory=dict)
    manifest: dict[str, Any] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """True if no problem was found."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """Result as plain data, without the manifest."""
        content = asdict(self)
        del content["manifest"]
        return {"holds": self.holds, **content}


def verify_folder(folder: Path, source: str, key: Path | None = None) -> Verification:
    """Compares a folder with its manifest; nothing in the folder is loaded or run.

    Args:
        folder: Folder of a published model.
        source: Name of it for messages.
        key: PEM file of the Ed25519 public key that must have signed the manifest; None checks no signature.

    Raises:
        CheckpointError: The folder holds no manifest.
        KeyFileError: The key cannot be used.
    """
    result = Verification(source)
    if not (folder / MANIFEST).is_file():
        raise CheckpointError(
            f"{source} holds no {MANIFEST}: name what `vithub publish` sent, a Hub id or a downloaded copy; a model "
            "published by an older version has none"
        )
    content = (folder / MANIFEST).read_bytes()
    _check_signature(result, folder, content, key)
    if _read(result, content):
        _check_files(result, folder)
    _check_code(result, folder)
    return result


def _check_signature(result: Verification, folder: Path, content: bytes, key: Path | None) -> None:
    signature = folder / SIGNATURE
    if key is None:
        if signature.is_file():
            result.checked.append("the manifest has a signature, which was not checked, as no key was named")
        return
    name = key_name(key)
    if not signature.is_file():
        result.problems.append(f"{SIGNATURE} is missing: the manifest is not signed, but the key {name} was named")
    elif is_signed_by(content, signature.read_bytes(), key):
        result.checked.append(f"the manifest is signed by the key {name}")
    else:
        result.problems.append(
            f"{SIGNATURE} is no signature of {MANIFEST} by the key {name}: another key made it, or either was changed"
        )


def _read(result: Verification, content: bytes) -> bool:
    """Reads the manifest into the result; returns whether it could be read."""
    try:
        found = json.loads(content)
        files = found["files"]
        well_formed = all(
            isinstance(path, str) and isinstance(one["sha256"], str) and isinstance(one["size"], int)
            for path, one in files.items()
        )
        form = found["format"]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        well_formed, form = False, None
    if not well_formed:
        result.problems.append(f"{MANIFEST} is damaged: it does not list the files with sha256 and size")
        return False
    if form != FORMAT:
        result.problems.append(f"{MANIFEST} has the format {form!r}; this version of vithub reads {FORMAT}: update it")
        return False
    result.manifest = found
    return True


def _check_files(result: Verification, folder: Path) -> None:
    stated: dict[str, dict[str, Any]] = result.manifest["files"]
    there = {
        file.relative_to(folder).as_posix(): file
        for file in folder.rglob("*")
        if not file.is_dir() and file.relative_to(folder).parts[0] not in _NOT_OF_THE_MODEL
    }
    before = len(result.problems)
    for path in sorted(stated.keys() - there.keys()):
        result.problems.append(f"{path} is missing")
    for path in sorted(there.keys() - stated.keys() - {MANIFEST, SIGNATURE, *_OF_THE_HUB}):
        result.problems.append(f"{path} was added: the manifest does not name it")
    for path in sorted(stated.keys() & there.keys()):
        file, size = there[path], stated[path]["size"]
        if not file.is_file():
            result.problems.append(f"{path} is no file")
        elif file.stat().st_size != size:
            result.problems.append(
                f"{path} was changed: it has {file.stat().st_size} bytes, the manifest states {size}"
            )
        elif (found := file_hash(file)) != stated[path]["sha256"]:
            stated_hash = stated[path]["sha256"]
            result.problems.append(f"{path} was changed: its SHA-256 is {found[:16]}..., not {stated_hash[:16]}...")
    if len(result.problems) == before:
        result.checked.append(f"all {len(stated)} files are those of the manifest, and there is no other")
    elif result.manifest.get("repository"):
        made_by = (result.manifest.get("vithub") or {}).get("version")
        result.checked.append(f"the manifest is of {result.manifest['repository']}, written by vithub {made_by}")


def _check_code(result: Verification, folder: Path) -> None:
    """Compares code with what this version writes for the model, and names pickles and code of other repositories."""
    code = sorted(file for file in folder.rglob("*.py") if file.relative_to(folder).parts[0] not in _NOT_OF_THE_MODEL)
    pickles = sorted(file for file in folder.rglob("*") if file.name.endswith(PICKLES) and file.is_file())
    try:
        config = read_config(folder) if (folder / "config.json").is_file() else {}
        references = code_references(config.get("auto_map") or {})
    except CheckpointError as error:
        result.problems.append(str(error))
        return
    ours = next((kind for kind in MODELS if kind.model_type == config.get("model_type")), None)
    expected = bundle_files(ours) if ours is not None else {}  # type: ignore[arg-type]  # a cached function; classes can be hashed
    for file in code:
        path = file.relative_to(folder).as_posix()
        if path == "handler.py":
            from . import endpoint_handler

            same = file.read_bytes() == Path(endpoint_handler.__file__).read_bytes()
        else:
            same = path in expected and file.read_bytes() == expected[path].encode()
        result.code[path] = same
        if not same:
            result.problems.append(f"{path} is code that this version of vithub does not write for this model")
    for file in pickles:
        result.problems.append(f"{file.relative_to(folder).as_posix()} is a pickle, which can run code when it is read")
    for reference in references:
        if "--" in reference:
            result.problems.append(f"config.json: auto_map names code of another repository, {reference}")
    if not code:
        result.checked.append("no file holds code: transformers loads the model with its own classes")
    elif all(result.code.values()):
        result.checked.append(f"the {len(code)} files of code are byte for byte what this version of vithub writes")


__all__ = ["Verification", "verify_folder"]
