"""ONNX Runtime's WebAssembly build: the files that a page needs, from a folder or from the npm registry, by hash."""

import hashlib
import io
import os
import tarfile
from importlib.resources import files
from pathlib import Path

import requests
from huggingface_hub import constants

from ...data.argument_names import argument
from ...data.whole_files import write_whole
from ...hub.exported.forms import BackendError, file_hash

VERSION = "1.30.0"
REGISTRY = "https://registry.npmjs.org"
ARCHIVE_HASH = "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71"
ARCHIVE_BYTES = 33_106_585
# The files of the build that computes on the processor alone, with their SHA-256.
RUNTIME = {
    "ort.wasm.min.mjs": "219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b",
    "ort-wasm-simd-threaded.mjs": "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
NOTICES = ("LICENSE", "ThirdPartyNotices.txt")  # of ONNX Runtime; the npm package has none
_PLACES = ("", "dist", "onnxruntime-web/dist", "node_modules/onnxruntime-web/dist")


def find_runtime(given: str | Path | None = None) -> dict[str, bytes]:
    """Content of the runtime's files and of its licence, by name.

    Args:
        given: Folder that holds the files, or one that npm installed `onnxruntime-web` into, in any version; None takes
            the version that this package was tested with, from the cache or else from the npm registry.

    Raises:
        BackendError: The files cannot be had, or are not those that they should be.
    """
    found = _cached() if given is None else _given(Path(given).expanduser())
    return {name: (found / name).read_bytes() for name in RUNTIME} | _notices()


def _given(folder: Path) -> Path:
    for place in _PLACES:
        if all((folder / place / name).is_file() for name in RUNTIME):
            return folder / place
    raise BackendError(
        f"{folder} holds no runtime for the web ({', '.join(RUNTIME)}); npm install --ignore-scripts "
        f"onnxruntime-web@{VERSION} gets it"
    )


def _cached() -> Path:
    folder = Path(constants.HF_HOME) / "vithub" / f"onnxruntime-web-{VERSION}"
    if not all((folder / name).is_file() and file_hash(folder / name) == wanted for name, wanted in RUNTIME.items()):
        content = _unpacked(_downloaded())
        folder.mkdir(parents=True, exist_ok=True)
        for name in RUNTIME:
            write_whole(folder / name, content[name])
    return folder


def _downloaded() -> bytes:
    registry = os.environ.get("NPM_CONFIG_REGISTRY") or REGISTRY
    address = f"{registry.rstrip('/')}/onnxruntime-web/-/onnxruntime-web-{VERSION}.tgz"
    other = f"give {argument('web_runtime')} a folder that holds onnxruntime-web {VERSION}"
    if constants.HF_HUB_OFFLINE:
        raise BackendError(f"the runtime for the web is not in the cache, and HF_HUB_OFFLINE is set: {other}")
    content = bytearray()
    try:
        with requests.get(address, stream=True, timeout=60) as response:
            response.raise_for_status()
            for part in response.iter_content(1 << 20):
                content += part
                if len(content) > ARCHIVE_BYTES:
                    break
    except requests.RequestException as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise BackendError(f"the runtime for the web could not be loaded from {address} ({reason}): {other}") from error
    if hashlib.sha256(content).hexdigest() != ARCHIVE_HASH:
        raise BackendError(f"{address} is not the archive that this package was tested with, by its SHA-256: {other}")
    return bytes(content)


def _unpacked(archive: bytes) -> dict[str, bytes]:
    """The runtime's files in an archive whose hash was checked."""
    content = {}
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as opened:
        for name in RUNTIME:
            file = opened.extractfile(f"package/dist/{name}")
            assert file is not None
            content[name] = file.read()
    return content


def _notices() -> dict[str, bytes]:
    """Licence of ONNX Runtime and of what it is made of, as its Python package has them."""
    return {name: (files("onnxruntime") / name).read_bytes() for name in NOTICES}


__all__ = ["RUNTIME", "VERSION", "find_runtime"]
