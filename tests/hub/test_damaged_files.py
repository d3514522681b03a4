"""JSON files of wrong types and forms, indices that name other places, and links: one line that names the file."""

import json
import os
import shutil

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from vithub.data.image_processing import build_image_processor
from vithub.hub.any_model import load_any_model
from vithub.hub.bundle.bundle_check import needed_packages
from vithub.hub.bundle.remote_code import remote_classes
from vithub.hub.checkpoints import INDEX, CheckpointError, locate, read_checkpoint
from vithub.hub.push.files import select_files
from vithub.scripts.command_line import _is_ours
from vithub.training.tasks.registry import task_of

import vithub

CONFIG_FIELDS = ("architectures", "auto_map", "model_type", "architecture", "id2label", "backbone_config")
values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
DOORS = {
    "load": vithub.load,
    "load_any_model": load_any_model,
    "read_checkpoint": read_checkpoint,
    "select_files": select_files,
    "remote_classes": remote_classes,
    "needed_packages": needed_packages,
    "task_of": lambda folder: task_of(locate(folder)),
}


@pytest.fixture(scope="module")
def saved(tiny, tmp_path_factory):
    """A tiny classifier in two files of weights."""
    folder = tmp_path_factory.mktemp("models") / "sharded"
    torch.manual_seed(0)
    vithub.HubViTForImageClassification(tiny()).save_pretrained(folder, max_shard_size="40KB")
    build_image_processor((32, 32)).save_pretrained(folder)
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    return folder


@pytest.fixture(scope="module")
def scratch(saved, tmp_path_factory):
    """A copy whose files are put back before each example."""
    folder = tmp_path_factory.mktemp("scratch") / "model"
    shutil.copytree(saved, folder)
    return folder


def opened(door, folder):
    """Goes through a door; what it raises must be for a person, in one line."""
    try:
        DOORS[door](folder)
    except Exception as error:
        if not _is_ours(error):
            raise
        return error
    return None


@pytest.mark.parametrize("door", DOORS)
@given(field=st.sampled_from(CONFIG_FIELDS), value=values)
def test_a_field_of_any_form_gets_an_answer_or_one_line(door, saved, scratch, field, value):
    config = json.loads((saved / "config.json").read_text())
    (scratch / "config.json").write_text(json.dumps(config | {field: value}))
    opened(door, scratch)


@pytest.mark.parametrize("door", DOORS)
@given(value=values | st.just("[" * 100_000) | st.just("9" * 5000))
def test_a_file_of_any_form_gets_one_line(door, saved, scratch, value):
    for name in ("config.json", INDEX):
        shutil.copyfile(saved / "config.json", scratch / "config.json")
        shutil.copyfile(saved / INDEX, scratch / INDEX)
        (scratch / name).write_text(value if isinstance(value, str) else json.dumps(value))
        error = opened(door, scratch)
        if name == "config.json" and not isinstance(value, dict):
            assert error is not None
            assert str(scratch / name) in str(error)
    shutil.copyfile(saved / INDEX, scratch / INDEX)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("architectures", "HubViTModel", "architectures must be a list of class names, got 'HubViTModel'"),
        ("architectures", [3], r"architectures must be a list of class names, got \[3\]"),
        ("auto_map", ["AutoModel"], r"auto_map must be an object, got \['AutoModel'\]"),
        ("auto_map", {"AutoModel": "../x.M"}, r"auto_map.AutoModel must be FILE.CLASS, .* got '../x.M'"),
        ("auto_map", {"AutoModel": "/etc/x.M"}, r"auto_map.AutoModel must be FILE.CLASS, .* got '/etc/x.M'"),
        ("auto_map", {"AutoModel": 5}, r"auto_map.AutoModel must be FILE.CLASS, .* got 5"),
        ("id2label", ["a", "b"], "id2label must be an object that names each number"),
    ],
)
def test_a_wrong_type_is_named_with_its_file(field, value, message, saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {field: value}))
    with pytest.raises(CheckpointError, match=rf"config\.json: {message}"):
        vithub.load(folder)


@pytest.mark.parametrize(
    "name", ["../other.safetensors", "/tmp/other.safetensors", "sub/other.safetensors", "..\\other.safetensors",
             "other.bin", "gone.safetensors", "", 7, None, ["a"]],
)  # fmt: skip
@pytest.mark.parametrize("door", ["load", "load_any_model", "select_files", "read_checkpoint"])
def test_an_index_names_files_of_its_own_folder_only(name, door, saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "model")
    (folder / "sub").mkdir()
    for outside in (tmp_path / "other.safetensors", folder / "sub" / "other.safetensors"):
        safetensors.torch.save_file({"x": torch.ones(1)}, outside)
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"]["classifier.bias"] = name
    (folder / INDEX).write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"model\.safetensors\.index\.json") as caught:
        DOORS[door](folder)
    assert repr(name) in str(caught.value)


def test_a_tensor_that_is_not_where_the_index_says_is_named(saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "model")
    index = json.loads((folder / INDEX).read_text())
    first, *_, last = sorted(set(index["weight_map"].values()))
    tensor = next(name for name, shard in index["weight_map"].items() if shard == first)
    index["weight_map"][tensor] = last
    (folder / INDEX).write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=rf"says that {last} holds '{tensor}', which it does not"):
        vithub.load(folder)


@pytest.fixture
def plain(tiny, tmp_path):
    folder = tmp_path / "model"
    vithub.HubViTForImageClassification(tiny()).save_pretrained(folder)
    return folder


def test_links_out_of_the_folder_are_not_sent(plain, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "private.png").write_bytes(b"private")
    (plain / "photo.png").symlink_to(outside / "private.png")
    (plain / "more").symlink_to(outside)
    (plain / "copy.png").symlink_to(plain / "inside.png")
    (plain / "inside.png").write_bytes(b"fine")
    os.mkfifo(plain / "pipe")
    files = {file.path: file for file in select_files(plain)}
    assert (files["photo.png"].sent, files["photo.png"].why) == (False, "link that leads out of the folder")
    assert (files["more"].sent, files["more"].why) == (False, "link to a folder")
    assert (files["pipe"].sent, files["pipe"].why) == (False, "no regular file")
    assert files["copy.png"].sent
    assert files["inside.png"].sent


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "README.md", "recipe.yaml"])
def test_a_needed_file_that_is_a_link_out_of_the_folder_is_named(name, plain, tmp_path):
    (plain / name).touch()
    shutil.move(plain / name, tmp_path / "elsewhere")
    (plain / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match=rf"{name} is a link to .*elsewhere, outside the folder"):
        select_files(plain)


def test_a_snapshot_of_the_cache_is_links_and_can_be_sent(plain, tmp_path):
    cache = tmp_path / "models--a--b"
    snapshot = cache / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (cache / "blobs").mkdir()
    for file in plain.iterdir():
        shutil.move(file, cache / "blobs" / file.name)
        (snapshot / file.name).symlink_to(cache / "blobs" / file.name)
    assert "model.safetensors" in {file.path for file in select_files(snapshot) if file.sent}


def test_a_name_that_is_not_utf8_is_not_sent(plain):
    name = os.fsdecode(b"caf\xe9.png")
    (plain / name).write_bytes(b"x")
    files = {file.path: file for file in select_files(plain)}
    assert (files[name].sent, files[name].why) == (False, "name that is not UTF-8")
