"""Detectors of transformers and of DETR's authors in, and out to transformers."""

import json
from collections import OrderedDict

import pytest
import safetensors.torch
import torch
from torch import nn
from torchvision.models import resnet
from torchvision.ops.misc import FrozenBatchNorm2d
from transformers import AutoModelForObjectDetection, DetrConfig, DetrForObjectDetection, DetrModel
from vithub.hub.checkpoints import CheckpointError
from vithub.hub.conversion.detr_checkpoints import detr_config_from_transformers
from vithub.hub.conversion.detr_parity import padded_batch
from vithub.hub.conversion.key_tables import KeyMismatchError
from vithub.hub.conversion.parity import ParityError
from vithub.hub.conversion.transformers_configs import InexpressibleError

import vithub

SIZES = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 8,
    "decoder_attention_heads": 8, "encoder_ffn_dim": 48, "decoder_ffn_dim": 40, "num_queries": 7,
    "id2label": {0: "cat", 1: "dog", 2: "owl"},
}  # fmt: skip
RESNET = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [16, 16, 24, 32], "depths": [1, 2, 1, 2],
          "out_features": ["stage4"]}  # fmt: skip
LAYOUTS = {
    "native": {"backbone_config": RESNET},
    "timm": {"backbone": "resnet18", "use_timm_backbone": True},
    "timm dilated": {"backbone": "resnet18", "use_timm_backbone": True, "dilation": True},
}


def native(layout, randomised, **fields):
    torch.manual_seed(0)
    return randomised(DetrForObjectDetection(DetrConfig(**SIZES, **LAYOUTS[layout], **fields)))


def compare(ours, theirs, tolerance=1e-4):
    pixels, mask = padded_batch(3)
    with torch.no_grad():
        for arguments in ((pixels,), (pixels, mask)):
            got, expected = ours(*arguments), theirs(*arguments)
            for name in ("logits", "pred_boxes"):
                assert torch.allclose(getattr(got, name), getattr(expected, name), atol=tolerance), name


def outdated(folder):
    """A folder as older versions of transformers wrote it: other names, and the backbone as flags."""
    state = safetensors.torch.load_file(folder / "model.safetensors")
    assert any(".conv_encoder." in name for name in state)  # still so
    state = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    safetensors.torch.save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    if config["backbone_config"]["model_type"] == "timm_backbone":
        config |= {"backbone": "resnet18", "use_timm_backbone": True, "use_pretrained_backbone": True}
        config["backbone_config"] = None
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_both_backbone_layouts_come_in_and_go_back(layout, old, randomised, tmp_path):
    if layout == "timm dilated" and old:
        pytest.skip("as 'timm'")
    theirs = native(layout, randomised)
    theirs.save_pretrained(tmp_path / "theirs")
    if old:
        outdated(tmp_path / "theirs")
    report = vithub.convert(tmp_path / "theirs", tmp_path / "ours")
    assert report.family == "detr"
    assert "in: sdpa, padded, boxes" in report.differences
    assert report.max_difference < 1e-4
    ours = AutoModelForObjectDetection.from_pretrained(tmp_path / "ours")
    assert type(ours) is vithub.HubDetrForObjectDetection
    assert ours.config.auxiliary_loss
    assert ours.config.id2label == SIZES["id2label"]
    compare(ours, theirs)
    report = vithub.convert(tmp_path / "ours", tmp_path / "back", to="transformers")
    assert report.max_difference < 1e-4
    again = DetrForObjectDetection.from_pretrained(tmp_path / "back")
    compare(again, theirs, 0)
    # nothing was lost on the way
    expected, got = (safetensors.torch.load_file(tmp_path / name / "model.safetensors") for name in ("theirs", "back"))
    for name, tensor in expected.items():
        assert torch.equal(got[name], tensor), name


def test_a_model_in_memory_and_its_bare_encoder(randomised):
    theirs = native("native", randomised)
    compare(vithub.load(theirs, verify=True), theirs)
    bare = vithub.load(theirs, task="backbone")
    assert type(bare) is vithub.HubDetrModel
    pixels, mask = padded_batch(3)
    with torch.no_grad():
        expected = theirs.model(pixels, mask).last_hidden_state
        assert torch.allclose(bare(pixels, mask).last_hidden_state, expected, atol=1e-4)
        headless = vithub.load(randomised(DetrModel(theirs.config)))
    assert type(headless) is vithub.HubDetrModel


def test_labels_and_fields_are_given_on_loading(randomised):
    ours = vithub.load(native("native", randomised), labels=["owl", "elk"], dropout=0.3)
    assert ours.config.id2label == {0: "owl", 1: "elk"}
    assert ours.class_labels_classifier.weight.shape == (3, 32)
    assert ours.detr.encoder.layers[0].dropout.p == 0.3
    with pytest.raises(ValueError, match="a detector takes images of any size"):
        vithub.load(native("native", randomised), image_size=64)
    with pytest.raises(ValueError, match="`depth` is no field of HubDetrConfig"):
        vithub.load(native("native", randomised), depth=3)


class Original(nn.Module):
    """DETR written with torch's own attention, whose tensors are named as its authors name them."""

    def __init__(self, block, blocks, classes, queries, width, dilated=False):
        super().__init__()
        with torch.random.fork_rng():
            body = resnet.ResNet(block, blocks, norm_layer=FrozenBatchNorm2d,
                                 replace_stride_with_dilation=[False, False, dilated])  # fmt: skip
        joined = nn.Module()
        joined.body = nn.Sequential(OrderedDict(list(body.named_children())[:-2]))
        self.backbone = nn.Sequential(joined)
        self.input_proj = nn.Conv2d(512 * block.expansion, width, 1)
        self.query_embed = nn.Embedding(queries, width)
        self.class_embed = nn.Linear(width, classes + 1)
        self.bbox_embed = nn.Module()
        self.bbox_embed.layers = nn.ModuleList(nn.Linear(width, out) for out in (width, width, 4))
        encoder = nn.TransformerEncoderLayer(width, 8, 48, batch_first=True)
        decoder = nn.TransformerDecoderLayer(width, 8, 48, batch_first=True)
        self.transformer = nn.Module()
        self.transformer.encoder = nn.TransformerEncoder(encoder, 2, enable_nested_tensor=False)
        self.transformer.decoder = nn.TransformerDecoder(decoder, 2, norm=nn.LayerNorm(width))

    def positions(self, shown, width):
        shown = shown.double()
        places = []
        for axis in (1, 2):
            count = shown.cumsum(axis)
            places.append(2 * torch.pi * count / (count.amax(axis, keepdim=True) + 1e-6))
        half, waves = width // 2, []
        for place in places:
            for n in range(half):
                angle = place / 10000 ** (2 * (n // 2) / half)
                waves.append(angle.sin() if n % 2 == 0 else angle.cos())
        return torch.stack(waves, -1).flatten(1, 2).float()

    def forward(self, pixels, mask):
        features = self.backbone[0].body(pixels)
        shown = nn.functional.interpolate(mask[:, None].float(), size=features.shape[-2:])[:, 0].bool()
        memory = self.input_proj(features).flatten(2).transpose(1, 2)
        place, padding = self.positions(shown, memory.shape[-1]), ~shown.flatten(1)
        for layer in self.transformer.encoder.layers:
            query = memory + place
            memory = layer.norm1(memory + layer.self_attn(query, query, memory, key_padding_mask=padding)[0])
            memory = layer.norm2(memory + layer.linear2(layer.linear1(memory).relu()))
        where = self.query_embed.weight.expand(len(pixels), -1, -1)
        states = torch.zeros_like(where)
        for layer in self.transformer.decoder.layers:
            query = states + where
            states = layer.norm1(states + layer.self_attn(query, query, states)[0])
            found = layer.multihead_attn(states + where, memory + place, memory, key_padding_mask=padding)[0]
            states = layer.norm2(states + found)
            states = layer.norm3(states + layer.linear2(layer.linear1(states).relu()))
        states = self.transformer.decoder.norm(states)
        box = states
        for number, linear in enumerate(self.bbox_embed.layers):
            box = linear(box.relu() if number else box)
        return self.class_embed(states), box.sigmoid()


@pytest.mark.parametrize("kind", [".pth", ".safetensors"])
@pytest.mark.parametrize(("block", "dilated"), [(resnet.BasicBlock, False), (resnet.Bottleneck, True)])
def test_checkpoints_of_the_authors_come_in(block, dilated, kind, randomised, tmp_path):
    torch.manual_seed(0)
    original = Original(block, [1, 1, 2, 2], classes=3, queries=7, width=32, dilated=dilated)
    randomised(original)
    generator = torch.Generator().manual_seed(1)
    for module in original.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            module.running_mean.normal_(0, 0.1, generator=generator)
    file = tmp_path / f"detr{kind}"
    if kind == ".pth":
        torch.save({"model": original.state_dict()}, file)
    else:
        safetensors.torch.save_file(original.state_dict(), file)
    ours = vithub.load(file, dilation=dilated)
    pixels, mask = padded_batch(3)
    with torch.no_grad():
        logits, boxes = original(pixels, mask)
        got = ours(pixels, mask)
    assert ours.config.num_labels == 3
    assert torch.allclose(got.logits, logits, atol=1e-4 * max(1, logits.abs().max()))
    assert torch.allclose(got.pred_boxes, boxes, atol=1e-4)


def test_a_pickle_that_runs_code_is_not_read(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (print, ("boom",))

    torch.save({"model": {"query_embed.weight": Bomb()}}, tmp_path / "detr.pth")
    with pytest.raises(CheckpointError, match="was not loaded"):
        vithub.load(tmp_path / "detr.pth")


def test_tensors_that_do_not_fit_are_listed(randomised, tmp_path):
    native("native", randomised).save_pretrained(tmp_path)
    state = safetensors.torch.load_file(tmp_path / "model.safetensors")
    query = next(name for name in state if "query_position" in name)
    state["model.stranger"] = torch.zeros(1)
    state[query] = torch.zeros(9, 32)
    del state["class_labels_classifier.bias"]
    safetensors.torch.save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        KeyMismatchError, match=r"missing .*class_labels_classifier.bias.*stranger.*\(9, 32\) for \(7, 32\)"
    ):
        vithub.load(tmp_path)


def test_what_transformers_cannot_express_is_said(tiny_detr, tmp_path):
    model = vithub.HubDetrForObjectDetection(tiny_detr(anchor_queries=True, focal_loss=True, position_temperature=20.0))
    message = r"anchor_queries=True; focal_loss=True; position_temperature=20.0 \(only 10000\)"
    with pytest.raises(InexpressibleError, match=message):
        vithub.convert(model, tmp_path / "out", to="transformers")
    with pytest.raises(InexpressibleError, match="timm cannot express this model: detection"):
        vithub.convert(model, tmp_path / "out", to="timm")
    assert not (tmp_path / "out").exists()
    segmentation = DetrConfig(**SIZES, backbone_config=RESNET, architectures=["DetrForSegmentation"])
    with pytest.raises(InexpressibleError, match="a segmentation head"):
        detr_config_from_transformers(segmentation.to_dict())


def test_a_backbone_whose_activations_transformers_loses_is_not_written(tiny_detr, randomised, tmp_path):
    """transformers puts a plain normalisation where timm's EfficientNet has one with an activation."""
    lite = {"model_type": "timm_backbone", "backbone": "tf_efficientnet_lite0", "out_indices": [4]}
    model = randomised(vithub.HubDetrForObjectDetection(tiny_detr(backbone_config=lite)))
    with pytest.raises(ParityError, match="padded, logits"):
        vithub.convert(model, tmp_path / "out", to="transformers")
    assert not (tmp_path / "out").exists()
