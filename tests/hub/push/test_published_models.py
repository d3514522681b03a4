"""Every public model class, pushed, pulled and loaded; `Trainer`; and whose code runs."""

import hashlib
import json
import shutil

import pytest
import torch
from hub_server import ClientError
from transformers import PreTrainedModel
from vithub.data.image_processing import build_image_processor
from vithub.hub.bundle.flat_sources import BundleError

import vithub

CLASSES = sorted(
    name
    for name in vithub.__all__
    if isinstance(getattr(vithub, name), type) and issubclass(getattr(vithub, name), PreTrainedModel)
)
# Somebody's own model: its code leaves a mark wherever it runs.
CODE = """
from pathlib import Path
import torch
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutput
from .mark import leave

class MarkConfig(PretrainedConfig):
    model_type = "marking"

class MarkForImageClassification(PreTrainedModel):
    config_class = MarkConfig
    def __init__(self, config):
        super().__init__(config)
        self.head = torch.nn.Linear(3, config.num_labels)
        self.post_init()
    def forward(self, pixel_values):
        return ImageClassifierOutput(logits=self.head(pixel_values.mean((2, 3))))

leave()
"""


@pytest.fixture(scope="module")
def loader(client):
    client.run(
        "import json, torch, vithub",
        "from transformers import AutoBackbone, AutoModel, AutoModelForImageClassification",
        "0",
    )
    return client


def first(output):
    """The first tensor of an output, or of its first tuple, such as feature maps."""
    value = next(iter(output.values()))
    return value[0] if isinstance(value, tuple) else value


@pytest.mark.parametrize("name", CLASSES)
def test_every_model_is_pushed_pulled_and_loaded(name, loader, hub, tiny, tiny_detr, randomised, tmp_path):
    model_class = getattr(vithub, name)
    config = tiny_detr() if model_class.config_class is vithub.HubDetrConfig else tiny(model_class.config_class)
    model = randomised(model_class(config))
    model.save_pretrained(tmp_path / "model")
    build_image_processor((32, 32)).save_pretrained(tmp_path / "model")
    repo = f"ada/{name}-{loader.transport}"
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = first(model(pixels))
    check = name == CLASSES[0] and loader.transport == "lfs"  # once: it takes seconds
    report = loader.run(f"vithub.publish({str(tmp_path / 'model')!r}, {repo!r}, bundle=True, check={check}).to_dict()")
    assert {"config.json", "model.safetensors", "preprocessor_config.json"} <= set(report["changed"])
    load = f"vithub.load({repo!r}, revision={report['commit']!r})"
    if name.endswith("Backbone"):  # transformers' own way takes ids of the Hub alone
        load = f"AutoBackbone.from_pretrained({repo!r}, revision={report['commit']!r}).eval()"
    found = loader.run(
        f"pixels = torch.tensor({pixels.tolist()!r})",
        f"model = {load}",
        "with torch.inference_mode(): out = next(iter(model(pixels).values()))",
        "[type(model).__name__, (out[0] if isinstance(out, tuple) else out).tolist()]",
    )
    assert found[0] == name
    assert torch.equal(torch.tensor(found[1]), expected)


def test_the_bundle_is_checked_before_anything_is_sent(tiny, tmp_path):
    vithub.HubViTForImageClassification(tiny()).save_pretrained(tmp_path)
    (tmp_path / "modeling_vit.py").write_text("raise RuntimeError('broken code')\n")
    with pytest.raises(BundleError, match="does not load where vithub is missing: RuntimeError: broken code"):
        vithub.publish(tmp_path, "ada/checked", bundle=True)


def test_a_native_model_takes_the_place_of_one_with_code(loader, hub, tiny, tmp_path):
    folder, repo = tmp_path / "model", f"ada/native-{loader.transport}"
    vithub.HubViTForImageClassification(tiny(layer_norm_eps=1e-12)).save_pretrained(folder)
    build_image_processor((32, 32)).save_pretrained(folder)
    report = loader.run(f"vithub.publish({str(folder)!r}, {repo!r}, bundle=True, check=False).to_dict()")
    assert (report["form"], report["why"]) == ("bundle", "published with its code, as `bundle` asks")
    assert "modeling_vit.py" in hub.store.files(repo)
    report = loader.run(f"vithub.publish({str(folder)!r}, {repo!r}).to_dict()")
    assert report["form"] == "native"
    assert report["why"] == "published as ViTForImageClassification of transformers: no code is needed to load it"
    assert "modeling_vit.py" in report["removed"]
    held = hub.store.files(repo)
    assert not [path for path in held if path.endswith(".py")]
    config = json.loads(hub.store.contents[held["config.json"]])
    assert (config["architectures"], config.get("auto_map")) == (["ViTForImageClassification"], None)
    loaded = f"type(AutoModelForImageClassification.from_pretrained({repo!r})).__module__"
    assert loader.run(loaded) == "transformers.models.vit.modeling_vit"
    assert loader.run(f"type(vithub.load({repo!r})).__name__") == "HubViTForImageClassification"
    assert loader.run(f"vithub.publish({str(folder)!r}, {repo!r}).nothing_to_do") is True


def test_trainer_pushes_every_save(loader, hub, tmp_path):
    repo = f"ada/trained-{loader.transport}"
    loader.run(
        "from transformers import Trainer, TrainingArguments",
        "config = vithub.HubViTConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=4, "
        "intermediate_size=64, image_size=16, patch_size=8, num_labels=2)",
        "rows = [{'pixel_values': torch.rand(3, 16, 16), 'labels': torch.tensor(i % 2)} for i in range(8)]",
        f"arguments = TrainingArguments({str(tmp_path / 'out')!r}, max_steps=3, per_device_train_batch_size=4, "
        "save_strategy='steps', save_steps=1, push_to_hub=True, hub_strategy='every_save', report_to='none', "
        f"hub_model_id={repo!r}, use_cpu=True, disable_tqdm=True, remove_unused_columns=False)",
        "trainer = Trainer(vithub.HubViTForImageClassification(config), arguments, train_dataset=rows)",
        "trainer.train(); trainer.push_to_hub()",
        "0",
    )
    held = hub.store.files(repo)
    assert {"config.json", "model.safetensors", "modeling_vit.py"} <= set(held)
    titles = [commit.title for commit in hub.store.repositories["model", repo].history("main")]
    assert any("Training in progress" in title for title in titles)
    logits = loader.run(
        f"same = vithub.load({repo!r})",
        "pixels = torch.rand(1, 3, 16, 16)",
        "trainer.model.eval(); a, b = trainer.model(pixels).logits, same(pixels).logits",
        "torch.equal(a, b)",
    )
    assert logits is True


@pytest.fixture
def marking(loader, hub, tmp_path):
    """A repository of a model with its own code: its name, the mark that the code leaves, and how to change it."""
    repo, mark = f"ada/marking-{loader.transport}", tmp_path / "mark"

    def write(text):
        files = {
            "config.json": json.dumps(
                {
                    "model_type": "marking",
                    "architectures": ["MarkForImageClassification"],
                    "auto_map": {
                        "AutoConfig": "modeling_mark.MarkConfig",
                        "AutoModelForImageClassification": "modeling_mark.MarkForImageClassification",
                    },
                }
            ).encode(),
            "modeling_mark.py": CODE.encode(),
            "mark.py": f"def leave():\n    open({str(mark)!r}, 'w').write({text!r})\n".encode(),
        }
        from safetensors.torch import save

        files["model.safetensors"] = save(
            {"head.weight": torch.eye(2, 3), "head.bias": torch.zeros(2)}, {"format": "pt"}
        )
        repository = hub.store.repositories["model", repo]
        blobs = {path: hub.store.keep(data, path.endswith(".safetensors")) for path, data in files.items()}
        return repository.commit("main", text, "", "ada", lambda held: held.update(blobs))[0].oid

    hub.store.create("model", repo, private=False)
    yield repo, mark, write
    del hub.store.repositories["model", repo]
    shutil.rmtree(loader.home / "hub" / f"models--{repo.replace('/', '--')}", ignore_errors=True)
    shutil.rmtree(loader.home / "modules", ignore_errors=True)
    (loader.home / "vithub/trusted_code.json").unlink(missing_ok=True)


def load(loader, repo, **options):
    return loader.run(f"type(vithub.load({repo!r}, **{options!r})).__name__")


def test_foreign_code_runs_only_when_it_is_trusted(loader, hub, marking):
    repo, mark, write = marking
    first = write("first")
    with pytest.raises(ClientError, match=r"code of its own \(modeling_mark.py\), which was not run") as caught:
        load(loader, repo)
    assert caught.value.kinds[0] == "RemoteCodeError"
    assert not mark.exists()
    assert not [path for _, _, path in hub.requests if path.endswith(".py")]
    assert load(loader, repo, trust_remote_code=True) == "MarkForImageClassification"
    assert mark.read_text() == "first"
    lock = json.loads((loader.home / "vithub/trusted_code.json").read_text())
    assert sorted(lock[repo][first]) == ["mark.py", "modeling_mark.py"]
    # Other code at another commit is run, since it is trusted, but told; a pinned revision stays what it was.
    write("second")
    load(loader, repo, trust_remote_code=True)
    assert "has other code" in loader.printed
    assert "mark.py" in loader.printed
    assert mark.read_text() == "second"
    mark.unlink()
    load(loader, repo, trust_remote_code=True, revision=first)
    with pytest.raises(ClientError, match="loaded as it is"):
        load(loader, repo, trust_remote_code=True, labels=3)


@pytest.mark.parametrize("where", ["download", "copy", "both"])
def test_cached_code_that_changed_is_refused(where, loader, hub, marking):
    repo, mark, write = marking
    commit = write(f"trusted {where}")
    load(loader, repo, trust_remote_code=True, revision=commit)
    mark.unlink()
    cached = loader.home / "hub" / f"models--{repo.replace('/', '--')}" / "snapshots" / commit / "mark.py"
    copies = list((loader.home / "modules").rglob(f"{commit}/mark.py"))
    assert cached.is_file()
    assert len(copies) == 1
    for file in {"download": [cached], "copy": copies, "both": [cached, *copies]}[where]:
        file.write_text(file.read_text().replace("trusted", "attacked"))
    with pytest.raises(
        ClientError, match=r"is not what it was when it was downloaded and trusted: \S*mark\.py"
    ) as caught:
        load(loader, repo, trust_remote_code=True, revision=commit)
    assert caught.value.kinds[0] == "RemoteCodeError"
    assert not mark.exists()


@pytest.fixture
def lock(loader):
    """The file that remembers which code was trusted."""
    return loader.home / "vithub/trusted_code.json"


def test_trust_is_kept_by_repository_and_commit_and_what_was_trusted_before_stays(lock, loader, hub, marking):
    repo, _, write = marking
    first = write("first")
    load(loader, repo, trust_remote_code=True, revision=first)
    kept = json.loads(lock.read_text())
    files = kept[repo][first]
    cached = loader.home / "hub" / f"models--{repo.replace('/', '--')}" / "snapshots" / first
    assert files == {name: hashlib.sha256((cached / name).read_bytes()).hexdigest() for name in files}
    load(loader, repo, trust_remote_code=True, revision=first)
    assert json.loads(lock.read_text()) == kept
    second = write("second")
    lock.write_text(json.dumps({**kept, "bob/other": {"0" * 40: {"a.py": "1" * 64}}}))
    load(loader, repo, trust_remote_code=True, revision=second)
    now = json.loads(lock.read_text())
    assert now["bob/other"] == {"0" * 40: {"a.py": "1" * 64}}
    assert now[repo][first] == files
    assert now[repo][second].keys() == files.keys()
    assert now[repo][second]["mark.py"] != files["mark.py"]
    assert now[repo][second]["modeling_mark.py"] == files["modeling_mark.py"]
    assert list(lock.parent.iterdir()) == [lock]


@pytest.mark.parametrize("change", ["other hash", "file more", "file less", "nothing"])
def test_code_that_is_not_what_the_file_says_is_not_run(change, lock, loader, hub, marking):
    repo, mark, write = marking
    commit = write("trusted")
    load(loader, repo, trust_remote_code=True, revision=commit)
    mark.unlink()
    content = json.loads(lock.read_text())
    files = content[repo][commit]
    if change == "other hash":
        files["mark.py"] = "0" * 64
    elif change == "file more":
        files["mark.py.py"] = "0" * 64
    elif change == "file less":
        del files["mark.py"]
    else:
        files.clear()
    lock.write_text(json.dumps(content))
    with pytest.raises(ClientError, match=r"is not what it was when it was downloaded and trusted: .*mark\.py"):
        load(loader, repo, trust_remote_code=True, revision=commit)
    assert not mark.exists()
    assert json.loads(lock.read_text()) == content


@pytest.mark.parametrize("text", ["", "[]", '{"ada/x": []}', '{"ada/x": {"0": "a.py"}}', '{"ada/x": null}'])
def test_a_damaged_file_of_trust_trusts_nothing_and_names_itself(text, lock, loader, hub, marking):
    repo, mark, write = marking
    commit = write("never run")
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.write_text(text)
    with pytest.raises(ClientError, match=r"trusted_code\.json (is|must)"):
        load(loader, repo, trust_remote_code=True, revision=commit)
    assert not mark.exists()
    assert lock.read_text() == text
    lock.unlink()
    assert load(loader, repo, trust_remote_code=True, revision=commit) == "MarkForImageClassification"
    assert mark.read_text() == "never run"


def test_code_of_another_repository_is_refused(loader, hub, marking):
    repo, mark, write = marking
    write("x")
    repository = hub.store.repositories["model", repo]
    config = json.dumps({"model_type": "marking", "auto_map": {"AutoModel": "bob/evil--modeling_mark.Mark"}}).encode()
    blob = hub.store.keep(config)
    repository.commit("main", "elsewhere", "", "ada", lambda held: held.update({"config.json": blob}))
    with pytest.raises(ClientError, match=r"wants to run code of another repository \(bob/evil\)"):
        load(loader, repo, trust_remote_code=True)
    assert not mark.exists()


def test_code_beside_one_of_our_models_is_not_run(loader, hub, tiny, tmp_path):
    folder, repo, mark = tmp_path / "model", f"ada/ours-{loader.transport}", tmp_path / "mark"
    vithub.HubViTForImageClassification(tiny()).save_pretrained(folder)
    evil = f"open({str(mark)!r}, 'w').close()\n"
    for file in folder.glob("*.py"):
        file.write_text(evil + file.read_text())
    loader.run(f"vithub.publish({str(folder)!r}, {repo!r}, bundle=True, check=False).commit")
    assert load(loader, repo) == "HubViTForImageClassification"
    assert loader.run(f"type(AutoModelForImageClassification.from_pretrained({repo!r})).__module__").startswith(
        "vithub."
    )
    assert not mark.exists()
