"""`vithub publish` against the loopback Hub: what is sent, how often, and what is said."""

import itertools
import json
import re
import shutil

import numpy as np
import pytest
import safetensors.numpy
from hub_server import ClientError

import vithub

CARD = """---
license: apache-2.0
---
# A model

```python
classify = pipeline("image-classification", "{folder}")
```
"""
SEEDS = itertools.count()


def write_model(folder):
    """A folder as a run leaves it, with weights of 40 kB, each time others."""
    seed = next(SEEDS)
    folder.mkdir(parents=True, exist_ok=True)
    weights = {"layer.weight": np.random.default_rng(seed).standard_normal((100, 100), dtype=np.float32)}
    safetensors.numpy.save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "resnet", "seed": seed}))
    (folder / "README.md").write_text(CARD.format(folder=folder))
    (folder / "preprocessor_config.json").write_text("{}")
    return folder


@pytest.fixture(scope="module")
def publisher(client):
    client.run("import sys, vithub", "from vithub.scripts.command_line import app, run", "0")
    return client


@pytest.fixture
def publish(publisher):
    """Publishes from the client's process; gives the report."""

    def call(folder, repo, **options):
        return publisher.run(f"vithub.publish({str(folder)!r}, {repo!r}, **{options!r}).to_dict()")

    return call


@pytest.fixture
def command(publisher):
    """Runs `vithub publish` as a shell would; gives the exit code and what was printed."""

    def call(*arguments, token=None, setting=None):
        words = ["vithub", "publish", *map(str, arguments)]
        name, value = setting or ("ENDPOINT", None)
        code = publisher.run(
            "from huggingface_hub import constants",
            f"before = constants.{name}",
            f"constants.{name} = {value!r} or before",
            f"sys.argv = {words!r}",
            "code = run(app)",
            f"constants.{name} = before",
            "code",
            token=token,
        )
        return code, publisher.printed

    return call


def commits(hub, repo, revision="main"):
    return [commit.oid for commit in hub.store.repositories["model", repo].history(revision)]


def test_one_commit_holds_everything_and_a_second_push_has_nothing_to_do(publish, hub, tmp_path, client):
    folder, repo = write_model(tmp_path / "run"), f"ada/once-{client.transport}"
    report = publish(folder, repo, message="First", tag="v1")
    assert report["created"]
    assert commits(hub, repo)[0] == report["commit"]
    assert len(commits(hub, repo)) == 2
    held = hub.store.repositories["model", repo].resolve("v1")
    assert (held.title, held.oid) == ("First", report["commit"])
    assert sorted(held.files) == [
        ".gitattributes",
        "README.md",
        "config.json",
        "manifest.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]
    card = hub.store.contents[held.files["README.md"].sha256].decode()
    assert f'"{repo}"' in card
    assert str(tmp_path) not in card
    again = publish(folder, repo)
    assert again["nothing_to_do"]
    assert again["commit"] == report["commit"]
    assert len(commits(hub, repo)) == 2


def test_names_that_an_address_would_alter_arrive_as_they_are(publish, hub, tmp_path, client):
    folder, repo = write_model(tmp_path / "run"), f"ada/names-{client.transport}"
    names = [
        "a b.png",
        "50%.png",
        "a#b?c=d&e.png",
        "%41+.png",
        "caf\u00e9 \u65e5\u672c.png",
        "it's [1].png",
        "a;b:c.png",
    ]
    (folder / "examples").mkdir()
    for name in names:
        (folder / "examples" / name).write_bytes(f"picture {name}".encode())
    report = publish(folder, repo)
    held = hub.store.files(repo)
    assert {f"examples/{name}" for name in names} <= set(held)
    assert {f"examples/{name}" for name in names} <= set(report["changed"])
    assert publish(folder, repo)["nothing_to_do"]


def test_a_second_model_replaces_the_first_wholly(publish, hub, tmp_path, client):
    folder, repo = write_model(tmp_path / "run"), f"ada/replaced-{client.transport}"
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    index = {"metadata": {}, "weight_map": {"layer.weight": "model-00001-of-00001.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    publish(folder, repo)
    assert "model-00001-of-00001.safetensors" in hub.store.files(repo)
    (folder / "model.safetensors.index.json").unlink()
    (folder / "model-00001-of-00001.safetensors").unlink()
    report = publish(write_model(folder), repo)
    assert report["removed"] == ["model-00001-of-00001.safetensors", "model.safetensors.index.json"]
    assert len(commits(hub, repo)) == 3
    assert [path for path in hub.store.files(repo) if "model" in path] == ["model.safetensors"]


def test_branches_pull_requests_and_private_repositories(publish, hub, tmp_path, client, tokens):
    folder, repo = write_model(tmp_path / "run"), f"ada/branched-{client.transport}"
    publish(folder, repo, private=True)
    assert hub.store.repositories["model", repo].private
    main = commits(hub, repo)
    on_branch = publish(write_model(folder), repo, revision="trial")
    assert commits(hub, repo) == main
    assert commits(hub, repo, "trial")[:2] == [on_branch["commit"], main[0]]
    proposed = publish(write_model(folder), repo, create_pr=True)
    assert proposed["pull_request"].endswith("/discussions/1")
    assert commits(hub, repo) == main
    assert commits(hub, repo, "refs/pr/1")[0] == proposed["commit"]
    more = publish(write_model(folder), repo, revision="refs/pr/1")
    assert commits(hub, repo, "refs/pr/1")[:2] == [more["commit"], proposed["commit"]]
    hub.store.create("model", f"bob/open-{client.transport}", private=False)
    others = publish(folder, f"bob/open-{client.transport}", create_pr=True)
    assert others["pull_request"]
    assert len(commits(hub, f"bob/open-{client.transport}")) == 1
    assert publish(folder, f"lab/shared-{client.transport}")["created"]  # an organisation of hers


@pytest.mark.parametrize("kind", ["lost", "cut", 503, 500, 429])
@pytest.mark.parametrize("create_pr", [False, True], ids=["branch", "pull-request"])
def test_a_commit_lands_once(kind, create_pr, publish, hub, tmp_path, client):
    folder, repo = write_model(tmp_path / "run"), f"ada/once-{kind}-{create_pr}-{client.transport}"
    publish(folder, repo)
    fault, sent = hub.fail("commit", kind, times=1), "xorb" if client.transport == "xet" else "lfs-upload"
    hub.requests.clear()
    report = publish(write_model(folder), repo, create_pr=create_pr)
    assert fault.hits == 1
    assert hub.asked(sent) == 1, "weights were sent twice"
    revision = "refs/pr/1" if create_pr else "main"
    assert commits(hub, repo, revision)[0] == report["commit"]
    assert len(commits(hub, repo, revision)) == 3
    assert "refs/pr/2" not in hub.store.repositories["model", repo].refs


def test_who_pushed_meanwhile_is_told_with_both_commits(publish, hub, tmp_path, client):
    folder, repo = write_model(tmp_path / "run"), f"ada/raced-{client.transport}"
    first = publish(folder, repo)["commit"]
    repository = hub.store.repositories["model", repo]
    other = hub.store.keep(b"theirs")
    hub.before["commit"] = lambda: repository.commit("main", "Theirs", "", "bob", lambda f: f.update({"x.txt": other}))
    with pytest.raises(ClientError) as caught:
        publish(write_model(folder), repo)
    theirs = commits(hub, repo)[0]
    assert caught.value.kinds[0] == "StaleParentError"
    assert first[:12] in caught.value.message
    assert theirs[:12] in caught.value.message
    assert commits(hub, repo) == [theirs, first, commits(hub, repo)[2]]
    assert publish(folder, repo)["parent"] == theirs  # and again, on top of it
    assert {"x.txt", "model.safetensors"} <= set(hub.store.files(repo))


def test_what_is_read_back_is_compared(publish, hub, tmp_path, client):
    folder, repo = write_model(tmp_path / "run"), f"ada/altered-{client.transport}"
    publish(folder, repo)
    repository = hub.store.repositories["model", repo]

    def alter():
        commit = repository.resolve("main")
        commit.files["config.json"] = hub.store.keep(b'{"model_type": "another"}')

    hub.before["resolve"] = alter
    with pytest.raises(ClientError, match=r"does not hold what was sent: config.json"):
        publish(write_model(folder), repo)


def test_the_page_of_what_was_published_is_written_as_a_space(command, hub, tmp_path, tokens, client):
    folder, space, repo = write_model(tmp_path / "run"), tmp_path / "space", f"ada/shown-{client.transport}"
    code, text = command(folder, repo, "--space", space, token=tokens["ada"])
    assert code == 0
    assert f"{space}: its page" in text
    assert f"MODELS = [{repo!r}]" in (space / "app.py").read_text()
    before = commits(hub, repo)
    code, _ = command(folder, repo, "--space", space, token=tokens["ada"])
    assert code == 2  # a new folder is asked for before anything is sent
    assert commits(hub, repo) == before


def test_a_static_page_of_what_was_published_is_written_as_a_space(clients, hub, tmp_path, tiny):
    from vithub.data.image_processing import build_image_processor
    from vithub.deployment.web.web_runtime import RUNTIME

    client, folder, page = clients("lfs"), tmp_path / "run", tmp_path / "page"
    vithub.HubViTForImageClassification(tiny()).save_pretrained(folder)
    build_image_processor((32, 32)).save_pretrained(folder)
    (tmp_path / "runtime").mkdir()

    def publish(*options):
        words = ["vithub", "publish", str(folder), "ada/static", *map(str, options)]
        return client.run("import sys", f"sys.argv = {words!r}", "run(app)"), client.printed

    wanted = ("--space", f"static:{page}", "--web-runtime", tmp_path / "runtime")
    code, text = publish(*wanted)
    assert code == 1
    assert "holds no runtime for the web" in text
    assert ("model", "ada/static") not in hub.store.repositories  # it was asked for before anything was sent
    for name in RUNTIME:
        (tmp_path / "runtime" / name).write_bytes(name.encode())
    code, text = publish(*wanted)
    assert code == 0, text
    assert f"{page}: its page" in text
    card = (page / "README.md").read_text()
    assert 'title: "static"\nsdk: static\napp_file: index.html\nmodels:\n- "ada/static"\n' in card
    assert {"index.html", "worker.js", "onnx", "runtime"} <= {path.name for path in page.iterdir()}
    assert vithub.load_exported(page).config.num_labels == vithub.load(folder).config.num_labels
    assert publish(*wanted)[0] == 2  # a new folder is asked for
    assert publish("--space", tmp_path / "other", "--web-runtime", tmp_path / "runtime")[0] == 2


def test_a_dry_run_lists_everything_and_asks_nothing(command, hub, tmp_path):
    folder = write_model(tmp_path / "run")
    for path in ("checkpoints/step-1/model.safetensors", "training_args.bin", ".env", "logs/a.log", "notes.docx"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"HF_TOKEN=hf_abcdefghijklmnopqrstuvwxyz")
    code, text = command(folder, "ada/dry", "--dry-run", "--json", token="none")
    report = json.loads(text)
    assert code == 0
    assert hub.requests == []
    why = {file["path"]: (file["sent"], file["why"]) for file in report["files"]}
    assert why["model.safetensors"] == (True, "weights")
    assert why[".env"] == (False, "environment, which may hold secrets")
    assert why["training_args.bin"] == (False, "state of the training")
    assert why["checkpoints/step-1/model.safetensors"] == (False, "checkpoint, to resume training from")
    assert why["notes.docx"] == (False, "no part of a model")
    assert {path for path, (sent, _) in why.items() if sent} == {
        "README.md", "config.json", "manifest.json", "model.safetensors", "preprocessor_config.json",
    }  # fmt: skip
    code, text = command(folder, "ada/dry", "--dry-run")
    assert code == 0
    assert re.search(r"\.env +\d+ B +no +environment", text)
    assert "5 files" in text


def test_a_model_without_an_image_processor_is_published_with_a_warning(tmp_path, caplog):
    folder = write_model(tmp_path / "run")
    vithub.publish(folder, "ada/dry", dry_run=True)
    assert "preprocessor_config.json" not in caplog.text
    (folder / "preprocessor_config.json").unlink()
    assert len(vithub.publish(folder, "ada/dry", dry_run=True).sent) == 4
    assert "holds no preprocessor_config.json: whoever loads the published model" in caplog.text


def test_a_secret_stops_the_push_and_is_named_but_not_shown(command, hub, tmp_path, tokens, client):
    folder = write_model(tmp_path / "run")
    secret = "hf_" + "Ab3" * 11
    (folder / "recipe.yaml").write_text(f"data: x\nnote: {secret}\n")
    code, text = command(folder, f"ada/leak-{client.transport}")
    assert code == 1
    assert text.count("\n") == 1
    assert "recipe.yaml, line 2: a Hugging Face token" in text
    assert secret not in text
    assert hub.requests == []
    (folder / "recipe.yaml").write_text("data: x\n")
    (folder / "README.md").write_text(f"use {tokens['ada']} to load")
    code, text = command(folder, f"ada/leak-{client.transport}")
    assert code == 1
    assert "README.md, line 1: the value of HF_TOKEN" in text or "the access token in use" in text
    assert tokens["ada"] not in text


ERRORS = {
    "no token": ({"token": ""}, "ada/new", r"there is no access token; log in with `hf auth login`"),
    "wrong token": ({"token": "hf_unknownUnknownUnknownUnknown"}, "ada/new", r"refused the access token"),
    "read-only token": ({"token": "eve"}, "eve/new", r"this access token of eve may only read"),
    "another's namespace": ({}, "bob/new", r"the token belongs to ada, who is no member of bob"),
    "no network": ({"set": ("ENDPOINT", "http://127.0.0.1:9")}, "ada/new", r"no connection to the Hub"),
    "offline mode": ({"set": ("HF_HUB_OFFLINE", True)}, "ada/new", r"HF_HUB_OFFLINE is set"),
    "name of a data set": ({}, "ada/photos", r"it is a data set, no model"),
    "no name": ({}, "justaname", r"lacks the user or organisation"),
    "bad name": ({}, "a b/c", r"no name of a repository"),
    "public already": ({"options": ["--private"]}, "ada/public", r"exists and is public"),
    "a tag as a branch": ({"options": ["--revision", "v1"]}, "ada/public", r"cannot push to v1 .*fixed commit"),
    "a tag that is taken": ({"options": ["--tag", "v1"]}, "ada/public", r"the tag v1 .* names the commit .* already"),
    "nothing to propose to": ({"options": ["--create-pr"]}, "bob/none", r"no repository bob/none to propose"),
    "no model": ({"empty": True}, "ada/new", r"holds no config.json"),
    "card that the Hub refuses": (
        {"card": "---\nlicense: {a: 1}\n---\n"},
        "ada/public",
        r"\"license\" must be a string",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_each_error_is_one_line_and_exit_code_1(name, command, hub, tmp_path, tokens):
    options, repo, expected = ERRORS[name]
    folder = write_model(tmp_path / "run")
    if "card" in options:
        (folder / "README.md").write_text(options["card"])
    if options.get("empty"):
        (folder / "config.json").unlink()
    hub.store.create("dataset", "ada/photos", private=False)
    if (public := hub.store.create("model", "ada/public", private=False)) is not None:
        public.refs["refs/tags/v1"] = public.refs["refs/heads/main"]
    before = dict(hub.store.repositories["model", "ada/public"].refs)
    token = tokens.get(options.get("token", "ada"), options.get("token"))
    code, text = command(folder, repo, *options.get("options", []), token=token, setting=options.get("set"))
    assert code == 1
    assert text.count("\n") == 1, text
    assert text.startswith("vithub: error: ")
    assert re.search(expected, text), text
    assert not token or token not in text
    assert hub.store.repositories["model", "ada/public"].refs == before
    assert ("model", "ada/new") not in hub.store.repositories


def test_what_was_written_into_the_card_on_the_hub_survives(publish, publisher, hub, finished_run, tmp_path):
    repo, folder = f"ada/card-{publisher.transport}", tmp_path / "run"
    shutil.copytree(finished_run.folder, folder, ignore=shutil.ignore_patterns("checkpoints"))
    publish(folder, repo, check=False)
    repository = hub.store.repositories["model", repo]

    def online():
        return hub.store.contents[hub.store.files(repo)["README.md"]].decode()

    def edit(change):
        blob = hub.store.keep(change(online()).encode())
        repository.commit("main", "On the web", "", "ada", lambda held: held.update({"README.md": blob}))

    assert f'"{repo}"' in online()
    assert str(finished_run.folder) not in online()
    assert publish(folder, repo, check=False)["nothing_to_do"]
    edit(lambda text: text.replace("license: unknown", "license: mit") + "\n## My own words\n")
    assert publish(folder, repo, check=False)["nothing_to_do"] is False  # the licence is told below too
    assert "## My own words" in online()
    assert "license: mit" in online()
    assert publish(folder, repo, check=False)["nothing_to_do"]
    (folder / "README.md").write_text((folder / "README.md").read_text() + "\nWritten in the folder.\n")
    report = publish(folder, repo, check=False)
    assert "Written in the folder." in online()
    assert "has text that the folder's lacks" in publisher.printed
    assert report["parent"][:12] in publisher.printed
    edit(lambda text: "# Mine alone\n")
    publish(folder, repo, check=False)
    assert "was not written by vithub" in publisher.printed
    assert "Written in the folder." in online()
