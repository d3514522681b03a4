"""Faults of the Hub while a model is published: the repository holds the old commit or the new one, all is told."""

import atexit
import hashlib
import itertools
import json
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

from .case import Case, CommandError, LostError, Place

AREA = "publishing"
TOKEN = "hf_adaWritesEverythingOfHers01"
ROUTES = (
    "whoami", "info", "create", "refs", "tree", "branch", "validate-yaml", "preupload", "lfs-batch", "lfs-upload",
    "lfs-verify", "download", "tag", "commit", "resolve",
)  # fmt: skip
# Kind, and how often it is met: None is always.
FAULTS = ((500, 1), ("cut", 1), ("lost", 1), (401, None), (403, None), (404, None), (503, None), ("cut", None),
          ("lost", None))  # fmt: skip
_NUMBERS = itertools.count(10_000)


@cache
def _hub() -> tuple[Any, Any]:
    """A loopback Hub and an official client of it, for all cases of this process."""
    import tempfile

    from hub_server import ClientProcess, LoopbackHub

    hub = LoopbackHub().__enter__()
    hub.store.add_user("ada", TOKEN, "write", ())
    client = ClientProcess(hub, Path(tempfile.mkdtemp()) / "client", "lfs", TOKEN)
    atexit.register(client.close)
    client.run("import vithub", "0")
    return hub, client


def _files() -> dict[str, bytes]:
    """A whole model that nobody pushed before, by path."""
    import numpy as np
    import safetensors.numpy

    number = next(_NUMBERS)
    weights = {"layer.weight": np.random.default_rng(number).standard_normal((64, 64), dtype=np.float32)}
    return {
        "config.json": json.dumps({"model_type": "resnet", "number": number}).encode(),
        "README.md": f"---\nlicense: apache-2.0\n---\n# Model {number}\n".encode(),
        "preprocessor_config.json": b'{"number": %d}' % number,
        "model.safetensors": safetensors.numpy.save(weights),
    }


def _hashes(files: dict[str, bytes]) -> dict[str, str]:
    return {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}


def _publish(route: str, kind: int | str, times: int | None, place: Place) -> None:
    from hub_server import ClientError

    hub, client = _hub()
    hub.reset()
    files, old, repo = _files(), _files(), f"ada/fault-{next(_NUMBERS)}"
    old.pop("README.md")
    folder = place.folder / "run"
    folder.mkdir()
    for path, content in files.items():
        (folder / path).write_bytes(content)
    place.keep(folder)
    revision = "trial" if route == "branch" else "main"
    if route != "create":
        blobs = {path: hub.store.keep(content, path.endswith(".safetensors")) for path, content in old.items()}
        hub.store.create("model", repo, private=False).commit("main", "old", "", "ada", lambda held: held.update(blobs))
    options = {"revision": revision} if route == "branch" else {"tag": "v1"}
    hub.fail(route, kind, times)
    error = None
    try:
        client.run(f"vithub.publish({str(folder)!r}, {repo!r}, check=False, **{options!r}).commit")
    except ClientError as caught:
        error = caught
    hub.faults.clear()
    repository = hub.store.repositories.get(("model", repo))
    there = repository is not None and repository.resolve(revision)
    held = dict(hub.store.files(repo, revision)) if there else {}
    held.pop(".gitattributes", None)
    held.pop("manifest.json", None)
    if held not in (_hashes(files), _hashes(old) if route != "create" else {}, {} if revision != "main" else None):
        raise LostError(f"{revision} holds neither the old files nor the new ones: {sorted(held)}")
    if error is None and held != _hashes(files):
        raise LostError(f"said to be published, and {revision} holds {sorted(held)}")
    if error is not None:
        if TOKEN in error.message + error.traceback + error.printed:
            raise LostError("the token is in the message")
        if error.kinds[0] != "PublishError" or "\n" in error.message:
            raise RuntimeError(f"{error.kinds[0]}: {error.message}")
        raise CommandError(1, f"vithub: error: {error.message}")


def cases(seed: int) -> Iterator[Case]:
    """Every fault at every route of a push."""
    for route in ROUTES:
        for kind, times in FAULTS:
            how = "once" if times else "always"
            yield Case(AREA, f"{kind} at {route} {how}", f"vithub publish RUN ada/model  ({kind} at {route} {how})",
                       partial(_publish, route, kind, times), names=(), fault=True, seconds=60,
                       short=(route, kind, times) in (("commit", "cut", None), ("lfs-upload", 500, 1)))  # fmt: skip


__all__ = ["cases"]
