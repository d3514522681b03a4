"""`vithub verify` names every file that was changed, added, removed, or signed by another."""

import json
import shutil

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from published import written
from vithub.data.image_processing import build_image_processor
from vithub.hub.checkpoints import CheckpointError
from vithub.hub.push.manifest import MANIFEST
from vithub.hub.push.signing import SIGNATURE, KeyFileError
from vithub.scripts.command_line import app, run

import vithub


def key_pair(folder):
    """Files of a new private key and of its public key."""
    key = Ed25519PrivateKey.generate()
    folder.mkdir()
    (folder / "private.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (folder / "public.pem").write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return folder / "private.pem", folder / "public.pem"


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny):
    """A published folder `first`, a later one `second`, both signed, and the keys of the owner and another."""
    root = tmp_path_factory.mktemp("published")
    owner, _ = key_pair(root / "owner")[0], key_pair(root / "other")
    for number, name in enumerate(("first", "second")):
        torch.manual_seed(number)
        labels = {"id2label": {0: "rose", 1: "tulip"}, "label2id": {"rose": 0, "tulip": 1}}
        model = vithub.HubViTForImageClassification(tiny(num_labels=2, **labels))
        model.save_pretrained(root / f"{name}-run")
        build_image_processor((32, 32)).save_pretrained(root / f"{name}-run")
        (root / f"{name}-run" / "README.md").write_text("# Flowers\n")
        written(root / f"{name}-run", root / name, "ada/flowers", sign=owner, bundle=True)
    return root


@pytest.fixture
def copy(place, tmp_path):
    """A copy of the first folder, to tamper with."""
    return shutil.copytree(place / "first", tmp_path / "copy")


def problems(folder, place, key="owner"):
    return vithub.verify(folder, key=place / key / "public.pem").problems


def test_what_was_published_holds(copy, place, capsys):
    result = vithub.verify(copy, key=place / "owner" / "public.pem")
    assert result.holds
    stated = json.loads((copy / MANIFEST).read_text())
    assert result.code.keys() == {path for path in stated["files"] if path.endswith(".py")} != set()
    assert all(result.code.values())
    (copy / ".gitattributes").write_text("*.safetensors filter=lfs\n")  # the Hub adds it
    assert run(lambda: app(["verify", str(copy), "--key", str(place / "owner" / "public.pem")])) == 0
    assert "is signed by the key" in capsys.readouterr().out
    assert run(lambda: app(["verify", str(copy), "--json"])) == 0
    assert json.loads(capsys.readouterr().out)["holds"] is True
    assert (
        vithub.publish(place / "first-run", "ada/flowers", dry_run=True).to_dict()
        == vithub.publish(place / "first-run", "ada/flowers", dry_run=True).to_dict()
    )  # nothing in a manifest depends on the time


def test_one_bit_in_any_file_is_named(copy, place):
    paths = [*json.loads((copy / MANIFEST).read_text())["files"], MANIFEST, SIGNATURE]
    assert {path.rpartition(".")[2] for path in paths} == {"json", "safetensors", "md", "py", "sig"}
    for path in paths:
        content = (copy / path).read_bytes()
        for at in (0, len(content) // 2, len(content) - 2):
            (copy / path).write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
            found = problems(copy, place)
            assert any(text.startswith(path) for text in found), (path, at, found)
        (copy / path).write_bytes(content)
    assert problems(copy, place) == []


def swap_labels(folder):
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {"0": "tulip", "1": "rose"}
    (folder / "config.json").write_text(json.dumps(config))


def change_mean(folder):
    text = (folder / "preprocessor_config.json").read_text()
    assert "0.485" in text
    (folder / "preprocessor_config.json").write_text(text.replace("0.485", "0.486", 1))


def name_other_code(folder):
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"]["AutoModel"] = "eve/evil--modeling_vit.HubViTModel"
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("tamper", "named"),
    [
        (swap_labels, ["config.json was changed"]),
        (change_mean, ["preprocessor_config.json was changed"]),
        (name_other_code,
         ["config.json was changed", "config.json: auto_map names code of another repository, eve/evil"]),
        (lambda folder: (folder / "more.py").write_text("import os\n"),
         ["more.py was added", "more.py is code that this version of vithub does not write"]),
        (lambda folder: (folder / "pytorch_model.bin").write_bytes(b"\x80\x04."),
         ["pytorch_model.bin was added", "pytorch_model.bin is a pickle"]),
        (lambda folder: (folder / "model.safetensors").unlink(), ["model.safetensors is missing"]),
        (lambda folder: (folder / SIGNATURE).unlink(), [f"{SIGNATURE} is missing"]),
        (lambda folder: (folder / MANIFEST).write_text('{"format": 9, "files": {}}'),
         [f"{SIGNATURE} is no signature of {MANIFEST}", f"{MANIFEST} has the format 9"]),
    ],
)  # fmt: skip
def test_each_change_is_named_and_nothing_else(tamper, named, copy, place, capsys):
    tamper(copy)
    found = problems(copy, place)
    assert len(found) == len(named)
    for text in named:
        assert any(one.startswith(text) for one in found), (text, found)
    assert run(lambda: app(["verify", str(copy), "--key", str(place / "owner" / "public.pem")])) == 1
    assert f"problem: {named[0]}" in capsys.readouterr().err


def test_a_file_and_its_hash_changed_together_leave_the_signature_wrong(copy, place):
    change_mean(copy)
    stated = json.loads((copy / MANIFEST).read_text())
    from vithub.hub.push.manifest import file_hash

    stated["files"]["preprocessor_config.json"]["sha256"] = file_hash(copy / "preprocessor_config.json")
    (copy / MANIFEST).write_text(json.dumps(stated))
    assert vithub.verify(copy).holds  # so much is a manifest without a signature worth
    assert [text.partition(" is ")[0] for text in problems(copy, place)] == [SIGNATURE]


def test_an_older_manifest_that_is_replayed_does_not_fit(place, tmp_path):
    mixed = shutil.copytree(place / "second", tmp_path / "mixed")
    for name in (MANIFEST, SIGNATURE):
        shutil.copy(place / "first" / name, mixed / name)
    assert [text.partition(": ")[0] for text in problems(mixed, place)] == ["model.safetensors was changed"]


def test_another_key_is_told(copy, place):
    (text,) = problems(copy, place, key="other")
    assert text.startswith(f"{SIGNATURE} is no signature of {MANIFEST} by the key ")
    with pytest.raises(KeyFileError, match=r"private\.pem is no public key in PEM"):
        vithub.verify(copy, key=place / "owner" / "private.pem")
    with pytest.raises(KeyFileError, match=r"public\.pem is no private key in PEM"):
        vithub.publish(place / "first-run", "ada/flowers", dry_run=True, sign=place / "owner" / "public.pem")


def test_a_folder_without_a_manifest_is_no_published_one(place):
    with pytest.raises(CheckpointError, match=r"holds no manifest\.json"):
        vithub.verify(place / "first-run")
    with pytest.raises(ValueError, match="is a folder, which has no `revision` 'main'"):
        vithub.verify(place / "first", revision="main")
