"""Each fault at each route of a push; the repository then holds the old commit or the new one, never a mixture."""

import hashlib
import itertools
import json
import re
import subprocess

import numpy as np
import pytest
import safetensors.numpy
from hub_server import ClientError
from vithub.data.image_processing import build_image_processor

import vithub

SHARED = ["commit", "resolve"]
ROUTES = {
    "lfs": [
        "whoami", "info", "create", "refs", "tree", "branch", "validate-yaml", "preupload", "lfs-batch", "lfs-upload",
        "lfs-verify", "download", "tag", *SHARED,
    ],
    "xet": ["xet-token", "xorb", "shard", "reconstruction", "xorb-data", *SHARED],
}  # fmt: skip
PASSING = [429, 500, 503, "cut", "lost", "slow"]  # met once
LASTING = [401, 403, 404, 409, 412, 503, "cut", "lost"]  # met by every request
CASES = [(t, r, k, 1) for t, routes in ROUTES.items() for r in routes for k in PASSING] + [
    (t, r, k, None) for t, routes in ROUTES.items() for r in routes for k in LASTING
]
AFTER_THE_COMMIT = {"resolve", "download", "reconstruction", "xorb-data", "tag"}
NUMBERS = itertools.count(10_000)


def model_files():
    """A whole model that nobody pushed before, by path."""
    number = next(NUMBERS)
    weights = {"layer.weight": np.random.default_rng(number).standard_normal((64, 64), dtype=np.float32)}
    return {
        "config.json": json.dumps({"model_type": "resnet", "number": number}).encode(),
        "README.md": f"---\nlicense: apache-2.0\n---\n# Model {number}\n".encode(),
        "preprocessor_config.json": b'{"number": %d}' % number,
        "model.safetensors": safetensors.numpy.save(weights),
    }


def written(folder, files):
    folder.mkdir()
    for path, content in files.items():
        (folder / path).write_bytes(content)
    return folder


def sha256(files):
    return {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}


def fill(hub, repo, files):
    """A repository that holds these files since its second commit."""
    repository = hub.store.create("model", repo, private=False)
    blobs = {path: hub.store.keep(content, path.endswith(".safetensors")) for path, content in files.items()}
    repository.commit("main", "old", "", "ada", lambda held: held.update(blobs))
    return repository


@pytest.mark.parametrize(("transport", "route", "kind", "times"), CASES)
def test_never_a_mixture(transport, route, kind, times, clients, hub, tmp_path, tokens):
    client, files = clients(transport), model_files()
    folder, repo = written(tmp_path / "run", files), f"ada/fault-{next(NUMBERS)}"
    revision = "trial" if route == "branch" else "main"
    options = {"revision": revision} if route == "branch" else {"tag": "v1"}
    old_files = model_files()
    old_files.pop("README.md")  # which is read before a push
    old = fill(hub, repo, old_files).resolve("main").oid if route != "create" else None
    fault = hub.fail(route, kind, times)
    try:
        report, error = client.run(f"vithub.publish({str(folder)!r}, {repo!r}, **{options!r}).to_dict()"), None
    except ClientError as caught:
        report, error = None, caught
    assert fault.hits, f"a push does not ask {route}"

    repository = hub.store.repositories.get(("model", repo))
    history = repository.history(revision) if repository is not None and repository.resolve(revision) else []
    held = hub.store.files(repo, revision) if history else {}
    held.pop(".gitattributes", None)
    manifest = held.pop("manifest.json", None)
    assert (manifest is not None) == (held == sha256(files))  # it is of the new files and comes with them
    if error is None:
        assert held == sha256(files)
        assert report["commit"] == history[0].oid
        assert len(history) == (2 if route == "create" else 3)
        assert route == "branch" or repository.refs["refs/tags/v1"] == history[0].oid
    else:
        assert error.kinds[0] == "PublishError", error.traceback
        assert "\n" not in error.message
        new = held == sha256(files)
        assert new or held == (sha256(old_files) if old and history else {})
        assert new == (route in AFTER_THE_COMMIT) or (kind == "lost" and route == "commit")
        assert ("holds the new commit" in error.message) == (route in AFTER_THE_COMMIT)
    said = (client.printed if error is None else error.printed + error.traceback + error.message).lower()
    assert tokens["ada"].lower() not in said
    if times == 1:
        assert error is None, error.message
    elif kind in (401, 403, 503, "cut") and route not in ("create", "lfs-verify"):
        assert error is not None  # an upload that was not verified is found there by the next attempt


def test_a_card_on_the_hub_that_cannot_be_read_stops_the_push(clients, hub, tmp_path):
    folder, repo = written(tmp_path / "run", model_files()), f"ada/unread-{next(NUMBERS)}"
    old = fill(hub, repo, model_files()).resolve("main").oid
    hub.fail("download", "cut")
    with pytest.raises(ClientError, match=r"no connection to the Hub \(reading README.md\)"):
        clients("lfs").run(f"vithub.publish({str(folder)!r}, {repo!r}).commit")
    assert hub.store.repositories["model", repo].resolve("main").oid == old


def test_a_push_that_failed_goes_on_where_it_was(clients, hub, tmp_path):
    for transport, upload in (("lfs", "lfs-upload"), ("xet", "xorb")):
        client, files = clients(transport), model_files()
        folder, repo = written(tmp_path / transport, files), f"ada/resumed-{transport}"
        fault = hub.fail("commit", 503)
        with pytest.raises(ClientError, match=r"was made and holds no model yet"):
            client.run(f"vithub.publish({str(folder)!r}, {repo!r}).commit")
        assert fault.hits == 5
        assert hub.asked(upload) == 1
        hub.reset()
        assert client.run(f"vithub.publish({str(folder)!r}, {repo!r}).created") is False
        assert hub.asked(upload) == 0, "the weights were there already"
        assert sha256(files).items() <= hub.store.files(repo).items()


@pytest.fixture
def full_disk(tmp_path):
    """A file system of 16 kB."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16k", "none", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a small file system needs the right to mount one")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize("transport", ["lfs", "xet"])
def test_a_full_disk_is_told_in_one_line(transport, clients, hub, full_disk, tmp_path):
    client, files = clients(transport), model_files()
    files["model.safetensors"] = safetensors.numpy.save({"a": np.random.default_rng(next(NUMBERS)).random(20_000)})
    folder, repo = written(tmp_path / "run", files), f"ada/full-{transport}"
    words = ["vithub", "publish", str(folder), repo]
    code = client.run(
        f"tempfile.tempdir = {str(full_disk)!r}",
        f"sys.argv = {words!r}",
        "code = run(app)",
        "tempfile.tempdir = None",
        "code",
    )
    assert code == 1
    assert client.printed.count("\n") == 1, client.printed
    assert re.search(r"holds the new commit \w{12}, which could not be checked: the disk is full", client.printed)
    assert sha256(files).items() <= hub.store.files(repo).items()


def test_a_disk_that_is_full_before_the_push_leaves_all_as_it_was(clients, hub, full_disk, tiny, tmp_path):
    client, folder = clients("lfs"), tmp_path / "run"
    vithub.HubViTForImageClassification(tiny(layer_norm_eps=1e-12)).save_pretrained(folder)
    build_image_processor((32, 32)).save_pretrained(folder)
    with pytest.raises(ClientError, match=r"the disk is full \(preparing the files\)") as caught:
        client.run(
            f"tempfile.tempdir = {str(full_disk)!r}",
            f"vithub.publish({str(folder)!r}, 'ada/never', native=True).commit",
        )
    client.run("tempfile.tempdir = None", "0")
    assert caught.value.kinds[0] == "PublishError"
    assert hub.requests == []


@pytest.mark.parametrize("transport", ["lfs", "xet"])
def test_tokens_are_in_no_log_not_even_the_most_talkative(transport, clients, hub, tmp_path, tokens):
    client = clients(transport)
    folder, repo = written(tmp_path / "run", model_files()), f"ada/logged-{transport}"
    hub.fail("commit", 503, times=1)
    hub.fail("lfs-upload", "cut", times=1)
    printed = client.run(
        "log = io.StringIO(); handler = logging.StreamHandler(log)",
        "logging.root.addHandler(handler); logging.root.setLevel(0); logging.getLogger('huggingface_hub').setLevel(1)",
        "logging.getLogger('huggingface_hub').addHandler(handler)",
        "for name in list(logging.root.manager.loggerDict): logging.getLogger(name).setLevel(1)",
        f"vithub.publish({str(folder)!r}, {repo!r})",
        "logging.root.removeHandler(handler); logging.getLogger('huggingface_hub').removeHandler(handler)",
        "logging.root.setLevel(logging.WARNING)",
        "log.getvalue()",
    )
    assert "commit" in printed
    assert tokens["ada"] not in printed
    assert tokens["ada"] not in client.printed
