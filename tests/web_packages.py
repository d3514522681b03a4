"""Fetches the files of npm packages that the tests of the web page need, by version and hash, without Node.

`python tests/web_packages.py FOLDER` fills a folder once; tests find it by VITHUB_WEB_RUNTIME.
"""

import base64
import hashlib
import io
import os
import sys
import tarfile
import urllib.request
from pathlib import Path

# Archive, its SHA-512 as npm states it, and the files to take from its folder `dist`. The second onnxruntime-web is the
# one that transformers.js runs.
PACKAGES = (
    (
        "onnxruntime-web/-/onnxruntime-web-1.30.0.tgz",
        "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ==",
        ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"),
    ),
    (
        "@huggingface/transformers/-/transformers-4.3.2.tgz",
        "V3+dqf3iWlRYJ9I9GreM3zGQd0lAXnnoPeddmkOQYWAEE4l/+Fi6p7tx/qVUJlKQgLXGim2W76rTOzz+eC0i7g==",
        ("transformers.min.js",),
    ),
    (
        "onnxruntime-web/-/onnxruntime-web-1.31.0-dev.20260914-8d85527a0.tgz",
        "Iy7rtadoBgxS/LLvDr3QW38DB1PNXRnr0GJMcL0TAt7c9qjgVQl83UlGCVyeAnK2InpmW8Uc3PL8XIuqtDeF6g==",
        ("ort-wasm-simd-threaded.asyncify.mjs", "ort-wasm-simd-threaded.asyncify.wasm"),
    ),
)
TRANSFORMERS_JS = [name for _, _, names in PACKAGES[1:] for name in names]


def fetch(folder: Path) -> None:
    """Fills a folder with the files that it lacks."""
    registry = os.environ.get("NPM_CONFIG_REGISTRY") or "https://registry.npmjs.org"
    folder.mkdir(parents=True, exist_ok=True)
    for path, wanted, names in PACKAGES:
        if all((folder / name).is_file() for name in names):
            continue
        with urllib.request.urlopen(f"{registry.rstrip('/')}/{path}", timeout=120) as answer:
            content = answer.read()
        if base64.b64encode(hashlib.sha512(content).digest()).decode() != wanted:
            sys.exit(f"{path} is not the archive that was tested, by its SHA-512")
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
            for name in names:
                part = folder / f"{name}.part"
                part.write_bytes(archive.extractfile(f"package/dist/{name}").read())
                part.replace(folder / name)


if __name__ == "__main__":
    fetch(Path(sys.argv[1]))
