"""Contestants of every library answer as their library does, and are told apart by what they run."""

import pytest
import timm
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file
from transformers import (
    BitImageProcessorPil,
    ResNetConfig,
    ResNetForImageClassification,
    TimmWrapperConfig,
    TimmWrapperForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)
from vithub.comparison.contestant_sources import load_contestant, load_contestants
from vithub.comparison.contestants import family_of
from vithub.comparison.count_checks import check_counts
from vithub.data.sources import DataError
from vithub.hub.checkpoints import CheckpointError

NAMES = {"id2label": {0: "cat", 1: "dog", 2: "owl"}, "label2id": {"cat": 0, "dog": 1, "owl": 2}}
FIELDS = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip


def saved(model, folder):
    model.save_pretrained(folder)
    BitImageProcessorPil(size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A ViT and a ResNet of transformers, and a CNN of timm in transformers' wrapper."""
    torch.manual_seed(0)
    place = tmp_path_factory.mktemp("models")
    resnet = ResNetConfig(depths=[1, 1], hidden_sizes=[8, 16], embedding_size=8, layer_type="basic", **NAMES)
    wrapper = TimmWrapperConfig.from_dict({
        "architecture": "test_byobnet", "num_classes": 3, "label_names": ["cat", "dog", "owl"],
        "pretrained_cfg": {"input_size": [3, 32, 32], "num_classes": 3, "mean": [0.5] * 3, "std": [0.5] * 3},
    })  # fmt: skip
    timms = TimmWrapperForImageClassification(wrapper)
    timms.save_pretrained(place / "timms")
    return {
        "vit": saved(ViTForImageClassification(ViTConfig(**FIELDS, **NAMES)), place / "vit"),
        "resnet": saved(ResNetForImageClassification(resnet), place / "resnet"),
        "timms": str(place / "timms"),
    }


def test_each_library_is_known_by_what_it_runs(folders, finished_run):
    found = {name: load_contestant(source) for name, source in folders.items()}
    ours = load_contestant(finished_run.folder)
    assert {name: c.family for name, c in found.items()} == {"vit": "ViT", "resnet": "CNN", "timms": "CNN"}
    assert {name: c.library for name, c in found.items()} == {
        "vit": "transformers", "resnet": "transformers", "timms": "timm"
    }  # fmt: skip
    assert (ours.family, ours.library, ours.multiple) == ("ViT", "vithub", (4, 4))
    assert found["vit"].multiple == (8, 8)
    assert found["vit"].resolution(47) == (40, 40)
    assert found["resnet"].resolution(47) == (47, 47)


@pytest.mark.parametrize(
    ("name", "size", "family"),
    [
        ("test_vit", 160, "ViT"),
        ("vit_tiny_r_s16_p8_224", 224, "hybrid"),
        ("mixer_s32_224", 224, "other"),
        ("swin_tiny_patch4_window7_224", 224, "ViT"),
        ("levit_128s", 224, "hybrid"),
        ("convnext_atto", 64, "CNN"),
        ("efficientnet_lite0", 64, "CNN"),
    ],
)
def test_a_family_goes_by_the_operations_and_not_by_the_name(name, size, family):
    with torch.device("meta"):
        model = timm.create_model(name).eval()
        assert family_of(model, torch.empty(1, 3, size, size)) == family


def test_logits_are_those_of_the_library_in_the_order_of_the_names(folders):
    contestant = load_contestant(folders["vit"])
    image = Image.effect_noise((50, 40), 80).convert("RGB")
    pixels = contestant.transform(image)[None]
    with torch.no_grad():
        expected = ViTForImageClassification.from_pretrained(folders["vit"]).eval()(pixels).logits
        assert torch.equal(contestant.logits(pixels), expected)
        assert torch.equal(contestant.for_labels(["owl", "cat"]).logits(pixels), expected[:, [2, 0, 1]])
    with pytest.raises(DataError, match="vit does not know the label emu; it knows cat, dog, owl"):
        contestant.for_labels(["cat", "emu"])


@pytest.mark.parametrize("name", ["vit", "resnet", "timms"])
def test_a_rebuilt_model_has_the_same_layers_at_another_size(folders, name):
    contestant = load_contestant(folders[name])
    built = contestant.build((64, 64))
    assert built.training
    own = {key: tensor.shape for key, tensor in contestant.model.state_dict().items() if "position" not in key}
    prefix = "timm_model." if name == "timms" else ""
    other = {prefix + key: tensor.shape for key, tensor in built.state_dict().items() if "position" not in key}
    assert own == other
    with torch.no_grad():
        out = built.eval()(torch.zeros(1, 3, 64, 64))
    assert getattr(out, "logits", out).shape == (1, 3)


def test_timm_and_torchvision_by_name_with_weights_from_a_file(tmp_path):
    torch.manual_seed(3)
    theirs = timm.create_model("test_vit", num_classes=4).eval()
    save_file(theirs.state_dict(), tmp_path / "vit.safetensors")
    contestant = load_contestant(f"timm:test_vit@{tmp_path / 'vit.safetensors'}")
    pixels = torch.randn(2, 3, *contestant.image_hw)
    with torch.no_grad():
        assert torch.equal(contestant.logits(pixels), theirs(pixels))
    assert contestant.labels == ("class 0", "class 1", "class 2", "class 3")
    assert contestant.name == "test_vit"
    model = torchvision.models.get_model("shufflenet_v2_x0_5", num_classes=6).eval()
    save_file(model.state_dict(), tmp_path / "shuffle.safetensors")
    contestant = load_contestant(f"torchvision:shufflenet_v2_x0_5@{tmp_path / 'shuffle.safetensors'}")
    with torch.no_grad():
        assert torch.equal(contestant.logits(pixels), model(pixels))
    with pytest.raises(CheckpointError, match="the weights do not fit"):
        load_contestant(f"torchvision:mobilenet_v3_small@{tmp_path / 'vit.safetensors'}")


@pytest.mark.parametrize("name", ["vit", "resnet", "timms"])
def test_the_operations_of_each_library_are_counted_alike_in_every_mode(folders, name):
    assert check_counts(load_contestant(folders[name])) <= 1e-3


def test_random_weights_are_the_same_each_time_and_imagenets_labels_known():
    one, other = load_contestants(["torchvision:shufflenet_v2_x0_5@random"] * 2)
    assert [one.name, other.name] == ["shufflenet_v2_x0_5", "shufflenet_v2_x0_5-2"]
    pairs = zip(one.model.parameters(), other.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert (one.labels[985], len(one.labels), one.image_hw) == ("daisy", 1000, (224, 224))
    assert load_contestant("timm:test_efficientnet@random").labels[985] == "daisy"


def test_what_cannot_be_compared_is_named(folders):
    with pytest.raises(CheckpointError, match=r"timm has no architecture 'resnet5000'; did you mean .*resnet50"):
        load_contestant("timm:resnet5000")
    with pytest.raises(CheckpointError, match="torchvision has no classifier 'fasterrcnn_resnet50_fpn'"):
        load_contestant("torchvision:fasterrcnn_resnet50_fpn")
    with pytest.raises(CheckpointError, match=r"must be a \.safetensors file or 'random', got 'weights\.pth'"):
        load_contestant("timm:test_vit@weights.pth")
    with pytest.raises(ValueError, match="two models are named 'a': give each a name of its own, as NAME=MODEL"):
        load_contestants([f"a={folders['vit']}", f"a={folders['resnet']}"])
    with pytest.raises(ValueError, match="there is nothing to compare"):
        load_contestants([])
