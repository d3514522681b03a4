"""Injected damage in the files of a model: each is the right answer, or an error of ours that names the file."""

import json
import shutil
import struct

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForImageClassification,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTModel,
)
from vithub.data.boxes.dataset import build_box_processor
from vithub.data.image_processing import build_image_processor
from vithub.hub.any_model import load_any_model
from vithub.hub.checkpoints import CheckpointError
from vithub.training.tasks.classification.loading import load_classifier
from vithub.training.tasks.detection.loading import load_detector

import vithub

JSON_FILES = ("config.json", "preprocessor_config.json")


@pytest.fixture(scope="module")
def sound(tmp_path_factory, tiny, tiny_detr, randomised):
    """A saved classifier and a saved detector, a photo, and a labelled folder of it."""
    root = tmp_path_factory.mktemp("sound")
    torch.manual_seed(0)
    labels = {"num_labels": 2, "id2label": {number: f"class {number}" for number in range(2)}}
    for name, model, processor in (
        (
            "classifier",
            vithub.HubViTForImageClassification(tiny(**labels)),
            build_image_processor((32, 32)),
        ),
        (
            "detector",
            vithub.HubDetrForObjectDetection(tiny_detr(**labels)),
            build_box_processor(64, 64),
        ),
    ):
        randomised(model).save_pretrained(root / name)
        processor.save_pretrained(root / name)
    Image.new("RGB", (40, 30), (200, 40, 90)).save(root / "photo.png")
    for blue, label in enumerate(labels["id2label"].values()):
        (root / "data" / label).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (40, 30), (80 * number, 40, 90 + blue)).save(root / "data" / label / f"{number}.png")
    return root


@pytest.fixture
def damaged(sound, tmp_path):
    """Copies a model and replaces a file's content: `damaged("classifier", "config.json", change)`."""

    def make(name, file, change):
        folder = tmp_path / name
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(sound / name, folder)
        (folder / file).write_bytes(change((folder / file).read_bytes()))
        return folder

    return make


def answered(folder, sound):
    """The answers of a saved model, all boxes of a detector among them."""
    options = {"threshold": 0.0} if folder.name == "detector" else {}
    return vithub.predict(folder, sound / "photo.png", **options)


def doors(sound, folder):
    """Every way to an answer of a saved model."""
    yield lambda: answered(folder, sound)
    yield lambda: load_any_model(folder)
    if folder.name == "classifier":
        yield lambda: vithub.evaluate(folder, sound / "data", "train", workers=0)["metrics"]


@pytest.fixture(scope="module")
def right(sound):
    """The answers of the sound models."""
    return {name: answered(sound / name, sound) for name in ("classifier", "detector")}


def header_of(content):
    (size,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def with_header(header, data):
    text = json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(text)) + text + data


def renamed(content):
    header, data = header_of(content)
    name = next(key for key in header if key.endswith("bias"))
    header[name[:-1] + "z"] = header.pop(name)
    return with_header(header, data)


def as_integers(content):
    header, data = header_of(content)
    next(entry for name, entry in header.items() if name.endswith("weight"))["dtype"] = "I32"
    return with_header(header, data)


def reshaped(content):
    header, data = header_of(content)
    entry = next(entry for name, entry in header.items() if len(entry.get("shape", ())) == 2)
    entry["shape"] = [entry["shape"][0] * entry["shape"][1]]
    return with_header(header, data)


def not_finite(content):
    header, data = header_of(content)
    name = next(name for name, entry in header.items() if name.endswith("classifier.weight"))
    start, _ = header[name]["data_offsets"]
    return with_header(header, data[:start] + struct.pack("<f", float("nan")) + data[start + 4 :])


@pytest.mark.parametrize("name", ["classifier", "detector"])
@pytest.mark.parametrize(
    "change",
    [lambda c: c[:-100], lambda c: c[:50], lambda _: b"", lambda _: b"no weights", renamed, as_integers, reshaped,
     not_finite, lambda c: c + b"more"],
    ids=["cut", "cut in the header", "empty", "text", "renamed", "integers", "reshaped", "not finite", "longer"],
)  # fmt: skip
def test_damaged_weights_are_named(name, change, damaged, sound):
    folder = damaged(name, "model.safetensors", change)
    for door in doors(sound, folder):
        with pytest.raises(CheckpointError, match=r"model\.safetensors") as raised:
            door()
        assert len(str(raised.value)) < 700


@pytest.mark.parametrize("name", ["classifier", "detector"])
def test_weights_that_are_not_finite_are_refused_alike_for_answers_and_for_training(name, damaged, sound, tmp_path):
    folder = damaged(name, "model.safetensors", not_finite)
    heads = {"classifier": "classifier.weight", "detector": "class_labels_classifier.weight"}
    further = [lambda: vithub.load(folder), lambda: vithub.load(folder, task="backbone")]
    if name == "classifier":
        further.append(lambda: vithub.finetune(model=str(folder), data=sound / "data", output=tmp_path / "run"))
    for door in (*doors(sound, folder), *further):
        with pytest.raises(CheckpointError) as raised:
            door()
        assert str(raised.value) == (
            f"{folder / 'model.safetensors'}: weights are infinite or not a number in {heads[name]}"
        )


def test_weights_that_are_not_finite_are_refused_from_other_libraries_too(sound, tmp_path):
    """A network that is trained on as its own library computes it, a model in memory, and one in several files."""
    config = ResNetConfig(depths=[1, 1], hidden_sizes=[8, 16], embedding_size=8, layer_type="basic", num_labels=2)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
    models = {
        "resnet": ResNetForImageClassification(config),
        "vit": ViTModel(ViTConfig(**sizes, image_size=32, patch_size=8)),
    }
    for name, model in models.items():
        with torch.no_grad():
            next(model.parameters()).view(-1)[0] = float("inf")
        model.save_pretrained(tmp_path / name, max_shard_size="20KB")
        build_image_processor((32, 32)).save_pretrained(tmp_path / name)
    with pytest.raises(CheckpointError, match=r"resnet.*: weights are infinite or not a number in resnet\.embedder"):
        vithub.finetune(model=str(tmp_path / "resnet"), data=sound / "data", output=tmp_path / "run")
    for source, place in ((tmp_path / "vit", r"model-\d+-of-\d+\.safetensors"), (models["vit"], "ViTModel")):
        with pytest.raises(CheckpointError, match=rf"{place}: weights are infinite or not a number in \S+$"):
            vithub.load(source)


@pytest.mark.parametrize("name", ["classifier", "detector"])
@pytest.mark.parametrize("file", JSON_FILES)
@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"a": 1'])
def test_what_is_no_json_object_is_named(name, file, text, damaged, sound):
    folder = damaged(name, file, lambda _: text)
    for door in doors(sound, folder):
        with pytest.raises(CheckpointError, match=file.replace(".", r"\.")):
            door()


def test_a_model_without_a_head_does_not_answer(sound, damaged, tmp_path):
    folder = damaged("classifier", "config.json", bytes)
    state = load_file(folder / "model.safetensors")
    save_file({k: t for k, t in state.items() if not k.startswith("classifier.")}, folder / "model.safetensors")
    for door in doors(sound, folder):
        with pytest.raises(CheckpointError, match=r"needs classifier\.bias, classifier\.weight, which it lacks"):
            door()
    backbone = tmp_path / "backbone"
    ViTModel(ViTConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=32,
                       image_size=32, patch_size=8)).save_pretrained(backbone)  # fmt: skip
    build_image_processor((32, 32)).save_pretrained(backbone)
    with pytest.raises(CheckpointError, match=r"needs classifier\.bias, classifier\.weight"):
        vithub.predict(backbone, sound / "photo.png")
    load_any_model(backbone)  # its features can be looked at


@pytest.mark.parametrize("layers", [1, 3])
def test_another_number_of_layers_is_refused_in_third_party_models_too(layers, sound, damaged, tmp_path):
    def changed(content):
        return json.dumps(json.loads(content) | {"num_hidden_layers": layers}).encode()

    folder = damaged("classifier", "config.json", changed)
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64, "image_size": 32, "patch_size": 8}
    theirs = tmp_path / "theirs"
    model_class = AutoModelForImageClassification
    model_class.from_config(ViTConfig(num_hidden_layers=2, **sizes)).save_pretrained(theirs)
    build_image_processor((32, 32)).save_pretrained(theirs)
    vithub.predict(theirs, sound / "photo.png")
    (theirs / "config.json").write_bytes(changed((theirs / "config.json").read_bytes()))
    for place in (folder, theirs):
        with pytest.raises(CheckpointError, match=r"has no place|which it lacks"):
            vithub.predict(place, sound / "photo.png")


def test_a_processor_that_makes_other_pixels_is_named(sound, damaged, tmp_path):
    folder = tmp_path / "theirs"
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64, "image_size": 32, "patch_size": 8}
    config = ViTConfig(num_hidden_layers=1, id2label={0: "class 0", 1: "class 1"}, num_labels=2, **sizes)
    AutoModelForImageClassification.from_config(config).save_pretrained(folder)
    build_image_processor((48, 48)).save_pretrained(folder)
    for call in (
        lambda: vithub.predict(folder, sound / "photo.png"),
        lambda: vithub.evaluate(folder, sound / "data", "train", workers=0),
    ):
        with pytest.raises(CheckpointError, match=r"preprocessor_config\.json"):
            call()
    folder = damaged(
        "classifier", "preprocessor_config.json",
        lambda content: json.dumps(json.loads(content) | {"image_mean": [0.5, 0.5]}).encode(),
    )  # fmt: skip
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json gives no usable image processor"):
        vithub.predict(folder, sound / "photo.png")


@pytest.mark.parametrize(
    ("field", "value", "answers"),
    [
        ("dtype", "evil", r"dtype must be a floating-point type of torch, such as float32, got 'evil'"),
        ("dtype", "int64", r"dtype must be a floating-point type of torch, such as float32, got 'int64'"),
        ("dtype", 5, r"dtype must be .*, got 5"),
        ("dtype", [5], r"dtype must be .*, got \[5\]"),
        ("torch_dtype", True, r"torch_dtype must be .*, got True"),
        ("id2label", None, r"config\.json says"),
        ("model_type", "evil", r"model_type 'evil'"),
    ],
)
def test_a_field_of_a_strangers_configuration_is_named_by_every_door(field, value, answers, damaged, sound):
    def change(content):
        config = json.loads(content)
        if field == "id2label":  # by which three classes become the two of the default
            config["label2id"] = None
        return json.dumps(config | {field: value}).encode()

    folder = damaged("classifier", "config.json", change)
    if field == "id2label":
        state = load_file(folder / "model.safetensors")
        for name in ("classifier.weight", "classifier.bias"):
            state[name] = torch.cat([state[name], state[name][:1]])
        save_file(state, folder / "model.safetensors", {"format": "pt"})
    for door in (*doors(sound, folder), lambda: vithub.load(folder)):
        with pytest.raises(ValueError, match=answers):
            door()


def test_a_configuration_of_nothing_is_named(damaged):
    folder = damaged("classifier", "config.json", lambda _: b"{}")
    with pytest.raises(CheckpointError, match=r"config\.json names no model type, and without one: these are not"):
        vithub.load(folder)


def test_scores_that_overflow_are_an_error_and_not_json(sound, damaged):
    folder = damaged("classifier", "config.json", bytes)
    state = load_file(folder / "model.safetensors")
    state["classifier.weight"].fill_(3e38)
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"scores are infinite or not a number, for .*photo\.png"):
        vithub.predict(folder, sound / "photo.png")
    with pytest.raises(ValueError, match="infinite or not a number"):
        vithub.evaluate(folder, sound / "data", "train", workers=0)


def test_a_batch_norm_counter_may_be_missing(sound, tmp_path):
    config = ResNetConfig(depths=[1, 1], hidden_sizes=[8, 16], embedding_size=8, layer_type="basic", num_labels=2)
    ResNetForImageClassification(config).save_pretrained(tmp_path)
    build_image_processor((32, 32)).save_pretrained(tmp_path)
    before = vithub.predict(tmp_path, sound / "photo.png")
    state = load_file(tmp_path / "model.safetensors")
    kept = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    assert len(kept) < len(state)
    save_file(kept, tmp_path / "model.safetensors", {"format": "pt"})
    assert vithub.predict(tmp_path, sound / "photo.png") == before


@pytest.mark.parametrize("name", ["classifier", "detector"])
@given(data=st.data())
def test_any_damage_is_the_same_answer_or_names_the_file(name, sound, right, tmp_path_factory, data):
    """Of weights the header and the length are damaged: other finite numbers cannot be told from weights.

    A configuration that is another valid one may answer otherwise.
    """
    folder = tmp_path_factory.mktemp("damaged") / name
    shutil.copytree(sound / name, folder)
    file = data.draw(st.sampled_from([*JSON_FILES, "model.safetensors"]))
    content = (folder / file).read_bytes()
    end = len(content)
    if file == "model.safetensors":
        end = 8 + struct.unpack("<Q", content[:8])[0]
    kind = data.draw(st.sampled_from(["flip", "cut", "garbage"]))
    if kind == "flip":
        place, bit = data.draw(st.integers(0, end - 1)), data.draw(st.integers(0, 7))
        changed = content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]
    elif kind == "cut":
        changed = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        changed = data.draw(st.binary(max_size=200))
    (folder / file).write_bytes(changed)
    found, error = None, None
    try:
        found = answered(folder, sound)
    except CheckpointError as refused:
        error = str(refused)
    shutil.rmtree(folder)
    if error is not None:
        assert str(folder) in error
    elif file == "model.safetensors" or json.loads(changed) == json.loads(content):
        for entry, expected in zip(found, right[name], strict=True):
            scores, others = ([box["score"] for box in answer["predictions"]] for answer in (entry, expected))
            assert scores == pytest.approx(others, abs=1e-6)


def test_the_loaders_agree_with_transformers(sound):
    for load, name in ((load_classifier, "classifier"), (load_detector, "detector"), (load_any_model, "classifier")):
        model, _ = load(sound / name)
        stored = load_file(sound / name / "model.safetensors")
        assert model.state_dict().keys() == stored.keys()
        assert all(torch.equal(tensor, stored[key]) for key, tensor in model.state_dict().items())
