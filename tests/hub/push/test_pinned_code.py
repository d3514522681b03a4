"""Code beside the weights is named by hash and commit in the card, and the card's snippets run that code alone."""

import hashlib
import json
import re
import shutil

import pytest
from hub_server import ClientError
from published import written
from vithub.hub.push.verifying import verify_folder


@pytest.fixture(scope="module")
def publisher(clients):
    return clients("lfs")


@pytest.fixture
def folder(run_folder):
    return run_folder("deit")[0]


@pytest.fixture
def publish(publisher, folder):
    def call(repo, **options):
        options = {"bundle": True, "check": False} | options
        return publisher.run(f"vithub.publish({str(folder)!r}, {repo!r}, **{options!r}).to_dict()")

    return call


def history(hub, repo, revision="main"):
    return hub.store.repositories["model", repo].history(revision)


def content(hub, commit):
    return {path: hub.store.contents[blob.sha256] for path, blob in commit.files.items()}


def differing(hub, new, old):
    one, other = content(hub, new), content(hub, old)
    return {path for path in one.keys() | other.keys() if one.get(path) != other.get(path)}


def snippets(card):
    return re.findall(r"```python\n(.*?)```", card, re.DOTALL)


def test_the_card_names_the_commit_and_the_hashes_of_its_code(publish, hub, folder, tmp_path):
    report = publish("ada/pinned")
    last, first, _ = history(hub, "ada/pinned")
    assert (report["commit"], report["pinned"]) == (last.oid, first.oid)
    assert differing(hub, last, first) == {"README.md", "manifest.json"}
    card = content(hub, last)["README.md"].decode()
    assert len(snippets(card)) == 2
    for snippet in snippets(card):
        assert f'"ada/pinned", trust_remote_code=True, revision="{first.oid}")' in snippet
        compile(snippet, "card", "exec")
    assert "revision=" not in content(hub, first)["README.md"].decode()
    stated = dict(re.findall(r"^\| `(\w+\.py)` \| `([0-9a-f]{64})` \|$", card, re.MULTILINE))
    held = content(hub, first)
    assert stated == {path: hashlib.sha256(held[path]).hexdigest() for path in held if path.endswith(".py")} != {}
    for commit in (first, last):  # either can be downloaded and verified
        target = tmp_path / commit.oid
        for path, blob in content(hub, commit).items():
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            (target / path).write_bytes(blob)
        assert verify_folder(target, "ada/pinned").problems == []
    assert publish("ada/pinned")["nothing_to_do"]
    assert len(history(hub, "ada/pinned")) == 3


def test_a_new_push_names_the_new_commit(publish, hub, folder):
    old = publish("ada/again")["pinned"]
    metrics = json.loads((folder / "metrics.json").read_text()) | {"seconds": 3600.0}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    report = publish("ada/again", tag="v2")
    last, first, before, *_ = history(hub, "ada/again")
    assert (report["commit"], report["pinned"], report["parent"]) == (last.oid, first.oid, before.oid)
    assert old not in content(hub, last)["README.md"].decode()
    assert hub.store.repositories["model", "ada/again"].resolve("v2").oid == last.oid
    native = publish("ada/again", bundle=False)
    assert native["pinned"] is None
    assert history(hub, "ada/again")[1].oid == last.oid  # one commit, as no code is needed
    assert "revision=" not in content(hub, history(hub, "ada/again")[0])["README.md"].decode()


def test_text_written_on_the_hub_stays_and_the_pin_too(publish, hub):
    report = publish("ada/edited")
    repository = hub.store.repositories["model", "ada/edited"]
    edited = content(hub, repository.resolve("main"))["README.md"] + b"\nMy own words.\n"
    repository.commit("main", "On the web", "", "ada", lambda f: f.update({"README.md": hub.store.keep(edited)}))
    again = publish("ada/edited")
    assert again["pinned"] == report["pinned"]  # the code is the same
    assert set(again["changed"]) <= {"manifest.json"}
    assert content(hub, repository.resolve("main"))["README.md"] == edited


def test_a_failure_of_the_second_commit_leaves_the_first_and_is_told(publish, hub, folder, tmp_path):
    hub.fail("commit", 403, after=1)
    with pytest.raises(
        ClientError, match=r"holds the new commit \w{12}, which is whole, but its card does not"
    ) as caught:
        publish("ada/half", tag="v1")
    assert caught.value.kinds[0] == "PublishError"
    assert "was made and holds no model yet" not in caught.value.message
    first, _ = history(hub, "ada/half")
    assert first.oid[:12] in caught.value.message
    sent = written(folder, tmp_path / "sent", "ada/half", bundle=True)
    assert {path: data for path, data in content(hub, first).items() if path != ".gitattributes"} == {
        path.relative_to(sent).as_posix(): path.read_bytes() for path in sent.rglob("*") if path.is_file()
    }
    hub.reset()
    report = publish("ada/half", tag="v1")  # again: the card alone
    assert report["pinned"] == report["parent"] == first.oid
    assert report["changed"] == ["README.md", "manifest.json"]
    assert f'revision="{first.oid}"' in content(hub, history(hub, "ada/half")[0])["README.md"].decode()


def test_who_pushed_between_the_two_commits_is_told(publish, hub):
    def theirs():
        hub.before["commit"] = lambda: repository().commit("main", "Theirs", "", "bob", lambda f: f.update(blob))

    def repository():
        return hub.store.repositories["model", "ada/between"]

    blob = {"x.txt": hub.store.keep(b"theirs")}
    hub.before["commit"] = theirs
    with pytest.raises(ClientError, match="but its card does not name the commit of the code: someone else pushed"):
        publish("ada/between")
    assert history(hub, "ada/between")[0].title == "Theirs"


def test_a_pull_request_names_its_own_commit(publish, hub):
    publish("ada/proposed", bundle=False)
    main = history(hub, "ada/proposed")
    report = publish("ada/proposed", create_pr=True)
    assert history(hub, "ada/proposed") == main
    last, first, *_ = history(hub, "ada/proposed", "refs/pr/1")
    assert (report["commit"], report["pinned"]) == (last.oid, first.oid)
    assert report["pull_request"].endswith("/discussions/1")
    assert f'revision="{first.oid}"' in content(hub, last)["README.md"].decode()
    assert "refs/pr/2" not in hub.store.repositories["model", "ada/proposed"].refs


def test_the_snippets_run_the_code_that_they_name_whatever_is_pushed_later(
    publisher, start_client, hub, finished_run, digit_folders, tmp_path
):
    """In a process that never imports this package, as a reader of the card has it."""
    folder, repo = tmp_path / "run", "ada/read"
    shutil.copytree(finished_run.folder, folder, ignore=shutil.ignore_patterns("checkpoints"))
    publisher.run(f"vithub.publish({str(folder)!r}, {repo!r}, bundle=True, check=False).commit")
    repository = hub.store.repositories["model", repo]
    card = content(hub, repository.resolve("main"))["README.md"].decode()
    mark = tmp_path / "mark"
    evil = hub.store.keep(f"open({str(mark)!r}, 'w').close()\nraise RuntimeError('other code')\n".encode())
    code = [path for path in repository.resolve("main").files if path.endswith(".py")]
    repository.commit("main", "Other code", "", "eve", lambda held: held.update(dict.fromkeys(code, evil)))
    photo = min((digit_folders / "four").iterdir())
    reader = start_client("lfs")
    expected = publisher.run(f"vithub.predict({str(folder)!r}, [{str(photo)!r}], top=1)")[0]["predictions"][0]
    for snippet in snippets(card):
        assert reader.run(f"exec({snippet.replace('photo.jpg', str(photo))!r})", "0") == 0
        assert expected["label"] in reader.printed
        scores = [float(number) for number in re.findall(r"\d\.\d+", reader.printed)]
        assert max(scores) == pytest.approx(expected["score"], abs=1e-6)
    assert reader.run("import sys", "'vithub' in sys.modules") is False
    assert not mark.exists()
    with pytest.raises(ClientError):  # without the revision the other code would have run
        reader.run(f"exec({snippets(card)[0].replace('photo.jpg', str(photo)).split(', revision')[0] + ')'!r})", "0")
    assert mark.exists()
