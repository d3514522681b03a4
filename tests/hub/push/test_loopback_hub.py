"""The loopback Hub answers as the Hub does, by what the official client makes of it."""

import hashlib
import random

import numpy as np
import pytest
from hub_server import ClientError
from hub_server.lz4_frames import decompress
from hub_server.xet_store import XetStore

CONTENT = {
    "config.json": b"{}",
    "README.md": b"---\nlicense: apache-2.0\n---\n# A card\n",
    "model.safetensors": random.Random(0).randbytes(200_000) + b"again" * 30_000,
    "pictures/a b.png": np.linspace(0, 1, 50_000, dtype="<f4").tobytes(),  # Xet groups its bytes by place
}


def push(client, repo_id, content=CONTENT, create=True, **options):
    """Commits contents with the client's own `create_commit`."""
    client.run(
        f"content = {content!r}",
        f"create_repo({repo_id!r}, exist_ok=True)" if create else "0",
        "adds = [CommitOperationAdd(path, data) for path, data in content.items()]",
        f"info = create_commit({repo_id!r}, adds, commit_message='a push', **{options!r})",
        "0",
    )
    return client.run("info.oid")


def hashes(content):
    return {path: hashlib.sha256(data).hexdigest() for path, data in content.items()}


def test_what_is_uploaded_is_held_and_comes_back(client, hub):
    repo = f"ada/round-{client.transport}"
    new = CONTENT["model.safetensors"] + client.transport.encode()  # no other test has sent it before
    content = {**CONTENT, "model.safetensors": new}
    oid = push(client, repo, content)
    held = hub.store.files(repo)
    del held[".gitattributes"]
    assert held == hashes(content)
    assert hub.asked("xorb" if client.transport == "xet" else "lfs-upload") >= 1
    assert hub.asked("lfs-batch" if client.transport == "xet" else "xet-token") == 0
    back = client.run(
        f"folder = Path(snapshot_download({repo!r}, revision={oid!r}))",
        "{path: (folder / path).read_bytes() == data for path, data in content.items()}",
    )
    assert back == dict.fromkeys(content, True)
    assert (hub.asked("reconstruction") > 0) == (client.transport == "xet")


def test_a_file_of_one_transport_is_read_by_the_other(hub, start_client):
    xet, lfs = start_client("xet"), start_client("lfs")
    for process in (xet, lfs):
        process.run("from pathlib import Path", "from huggingface_hub import *", "0")
    for writer, reader in ((xet, lfs), (lfs, xet)):
        repo = f"ada/across-{writer.transport}"
        content = {**CONTENT, "model.safetensors": CONTENT["model.safetensors"] + writer.transport.encode()}
        push(writer, repo, content)
        read = f"Path(hf_hub_download({repo!r}, 'model.safetensors')).read_bytes().hex()"
        assert bytes.fromhex(reader.run(read)) == content["model.safetensors"]


def test_a_second_push_of_the_same_makes_no_commit(client, hub):
    repo = f"ada/same-{client.transport}"
    first, second = push(client, repo), push(client, repo)
    assert first == second
    assert hub.asked("commit") == 1
    assert len(hub.store.repositories["model", repo].history("main")) == 2


def test_branches_tags_pull_requests_and_listings(client, hub):
    repo = f"ada/refs-{client.transport}"
    first = push(client, repo)
    client.run(f"create_branch({repo!r}, branch='trial/a')", f"create_tag({repo!r}, tag='v1')", "0")
    on_branch = push(client, repo, {"new.txt": b"1"}, revision="trial/a")
    proposed = push(client, repo, {"pr.txt": b"2"}, create_pr=True)
    refs = client.run(
        f"refs = list_repo_refs({repo!r}, include_pull_requests=True)",
        "{ref.ref: ref.target_commit for kind in (refs.branches, refs.tags, refs.pull_requests) for ref in kind}",
    )
    assert refs == {
        "refs/heads/main": first, "refs/heads/trial/a": on_branch, "refs/tags/v1": first, "refs/pr/1": proposed,
    }  # fmt: skip
    assert client.run("info.pr_num") == 1
    titles = f"[commit.title for commit in list_repo_commits({repo!r}, revision='trial/a')]"
    assert client.run(titles) == ["a push", "a push", "initial commit"]
    listed = f"sorted(entry.path for entry in list_repo_tree({repo!r}, recursive={{}}))"
    assert client.run(listed.format(False)) == [
        ".gitattributes",
        "README.md",
        "config.json",
        "model.safetensors",
        "pictures",
    ]
    assert "pictures/a b.png" in client.run(listed.format(True))
    assert client.run(f"[f.size for f in get_paths_info({repo!r}, ['pictures/a b.png', 'none'])]") == [200_000]
    assert client.run(f"model_info({repo!r}).card_data.license") == "apache-2.0"
    client.run(f"delete_repo({repo!r})", "0")
    assert client.run(f"repo_exists({repo!r})") is False


def test_a_stale_parent_is_refused(client, hub):
    repo = f"ada/stale-{client.transport}"
    first = push(client, repo)
    push(client, repo, {"other.txt": b"someone else"})
    with pytest.raises(ClientError) as caught:
        push(client, repo, {"mine.txt": b"me"}, parent_commit=first)
    assert "412" in str(caught.value)
    assert "mine.txt" not in hub.store.files(repo)


@pytest.mark.parametrize(
    ("call", "kind", "status"),
    [
        ("create_repo('bob/mine')", "HfHubHTTPError", "403"),
        ("create_repo('ada/secret', private=True)", "RepositoryNotFoundError", "already"),
        ("model_info('bob/hidden')", "RepositoryNotFoundError", "404"),
        ("model_info('ada/none')", "RepositoryNotFoundError", "404"),
        ("model_info('bob/open', revision='v9')", "RevisionNotFoundError", "404"),
        ("hf_hub_download('bob/open', 'none.txt')", "EntryNotFoundError", "404"),
        ("upload_file(path_or_fileobj=b'1', path_in_repo='a.txt', repo_id='bob/open')", "HfHubHTTPError", "403"),
    ],
)
def test_roles_and_errors(call, kind, status, client, hub):
    hub.store.create("model", "bob/hidden", private=True)
    hub.store.create("model", "bob/open", private=False)
    if "already" in status:
        client.run("create_repo('ada/secret', private=True, exist_ok=True)", "0")
        assert hub.store.repositories["model", "ada/secret"].private
        assert client.run("repo_exists('ada/secret')") is True
        assert client.run("repo_exists('ada/secret', token=False)") is False
        return
    with pytest.raises(ClientError) as caught:
        client.run(call)
    assert kind in caught.value.kinds
    assert status in caught.value.message


def test_tokens_by_role(client, hub, tokens):
    assert client.run("whoami()['auth']['accessToken']['role']", token=tokens["eve"]) == "read"
    with pytest.raises(ClientError, match="403"):
        client.run("create_repo('lab/x')", token=tokens["eve"])
    with pytest.raises(ClientError, match=r"401|Invalid user token"):
        client.run("whoami()", token="hf_unknownUnknownUnknown")
    client.run("create_repo('lab/x', exist_ok=True)", "0")


@pytest.mark.parametrize("kind", [500, 503, 429, "cut", "lost", "slow"])
@pytest.mark.parametrize("route", ["preupload", "upload"])
def test_the_client_outlives_one_fault_of_an_upload(route, kind, client, hub):
    if route == "upload":
        route = "xorb" if client.transport == "xet" else "lfs-upload"
    fault = hub.fail(route, kind, times=1)
    repo = f"ada/faulty-{client.transport}-{route}-{kind}"
    fresh = {"model.safetensors": f"{repo} {'x' * 5000}".encode()}
    push(client, repo, fresh)
    assert fault.hits == 1
    assert hub.store.files(repo)["model.safetensors"] == hashes(fresh)["model.safetensors"]


def test_a_commit_whose_answer_is_lost_has_happened(client, hub):
    repo = f"ada/lost-{client.transport}"
    push(client, repo)
    hub.fail("commit", "lost", times=1)
    with pytest.raises(ClientError):
        push(client, repo, {"config.json": b"new"})
    assert hub.store.files(repo)["config.json"] == hashes({"config.json": b"new"})["config.json"]


def test_unknown_routes_are_recorded(hub, client):
    client.run(
        "from huggingface_hub.utils import get_session", f"get_session().get('{hub.url}/api/nothing').status_code"
    )
    assert hub.unknown == ["GET /api/nothing"]
    hub.unknown.clear()


def test_lz4_frames_and_shards_that_lie_are_refused():
    # A frame of one block: the literals "abc", then 9 bytes copied from 3 back.
    block = bytes([0x35]) + b"abc" + bytes([3, 0]) + bytes([0x50]) + b"end.."
    frame = b"\x04\x22\x4d\x18\x60\x40\x82" + len(block).to_bytes(4, "little") + block + bytes(4)
    assert decompress(frame) == b"abcabcabcabc" + b"end.."
    assert XetStore().reconstruction("0" * 64, "", "") is None


def test_models_are_pushed_and_read_by_name(client, hub):
    repo = f"ada/model-{client.transport}"
    client.run(
        "import torch, vithub",
        "from transformers import AutoModelForImageClassification",
        "config = vithub.HubViTConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, "
        "intermediate_size=64, image_size=32, patch_size=8, num_labels=5)",
        "model = vithub.HubViTForImageClassification(config).eval()",
        f"model.push_to_hub({repo!r})",
        "0",
    )
    assert {"config.json", "model.safetensors"} <= set(hub.store.files(repo))
    same = client.run(
        f"other = AutoModelForImageClassification.from_pretrained({repo!r}).eval()",
        "pixels = torch.rand(2, 3, 32, 32)",
        "torch.equal(other(pixels).logits, model(pixels).logits)",
    )
    assert same is True
