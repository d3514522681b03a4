import json
import re

import pytest
import timm
import torch
import transformers
from patience import LONG
from safetensors.torch import load_file, save_file
from transformers import (
    DeiTConfig,
    DeiTForImageClassification,
    DeiTForImageClassificationWithTeacher,
    DeiTModel,
    Dinov2Config,
    Dinov2ForImageClassification,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersForImageClassification,
    Dinov2WithRegistersModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    IJepaConfig,
    IJepaForImageClassification,
    IJepaModel,
    SiglipVisionConfig,
    SiglipVisionModel,
    ViTConfig,
    ViTForImageClassification,
    ViTForMaskedImageModeling,
    ViTModel,
)
from vithub.hub.checkpoints import CheckpointError
from vithub.hub.conversion.convert import convert
from vithub.hub.conversion.key_tables import KeyMismatchError
from vithub.hub.conversion.opening import open_checkpoint
from vithub.hub.conversion.parity import TOLERANCE, ParityError, check_parity
from vithub.hub.conversion.references import native_reference, timm_reference
from vithub.hub.conversion.transformers_configs import InexpressibleError
from vithub.hub.folders import TargetError

import vithub

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 30, "patch_size": 6}
VIT = SIZES | {"intermediate_size": 48}

NATIVE = {
    "vit classifier": (ViTForImageClassification, ViTConfig(num_labels=7, **VIT)),
    "vit classifier, rectangles": (
        ViTForImageClassification, ViTConfig(**VIT | {"image_size": (30, 28), "patch_size": (5, 7)}),
    ),
    "vit classifier, own names": (ViTForImageClassification, ViTConfig(**VIT, id2label={0: "ant", 1: "bee", 2: "cat"})),
    "vit classifier, no qkv bias": (ViTForImageClassification, ViTConfig(qkv_bias=False, hidden_act="relu", **VIT)),
    "vit": (ViTModel, ViTConfig(**VIT)),
    "vit mim": (ViTForMaskedImageModeling, ViTConfig(encoder_stride=6, **VIT)),
    "deit, two heads": (DeiTForImageClassificationWithTeacher, DeiTConfig(num_labels=3, **VIT)),
    "deit, one head": (DeiTForImageClassification, DeiTConfig(**VIT)),
    "deit": (DeiTModel, DeiTConfig(**VIT)),
    "dinov2": (Dinov2Model, Dinov2Config(**SIZES)),
    "dinov2 classifier, swiglu": (Dinov2ForImageClassification, Dinov2Config(use_swiglu_ffn=True, **SIZES)),
    "dinov2, no mask token": (Dinov2Model, Dinov2Config(use_mask_token=False, mlp_ratio=2, **SIZES)),
    "registers": (Dinov2WithRegistersModel, Dinov2WithRegistersConfig(**SIZES)),
    "registers classifier, swiglu": (
        Dinov2WithRegistersForImageClassification,
        Dinov2WithRegistersConfig(use_swiglu_ffn=True, num_register_tokens=3, **SIZES),
    ),
    "dinov3": (DINOv3ViTModel, DINOv3ViTConfig(num_register_tokens=3, **VIT)),
    "dinov3, gated": (
        DINOv3ViTModel,
        DINOv3ViTConfig(use_gated_mlp=True, hidden_act="silu", query_bias=False, value_bias=False, **VIT),
    ),
    "dinov3, rectangles": (
        DINOv3ViTModel,
        DINOv3ViTConfig(key_bias=True, rope_theta=50.0, **VIT | {"image_size": (30, 28), "patch_size": (5, 7)}),
    ),
    "siglip": (SiglipVisionModel, SiglipVisionConfig(**VIT)),
    "ijepa": (IJepaModel, IJepaConfig(**VIT)),
    "ijepa classifier": (IJepaForImageClassification, IJepaConfig(num_labels=3, **VIT)),
}  # fmt: skip

TIMM_SIZES = {"img_size": 30, "patch_size": 6, "embed_dim": 32, "depth": 2, "num_heads": 4, "num_classes": 7}
TIMM = {
    "augreg": ("vit_tiny_patch16_224", {}),
    "bare": ("vit_tiny_patch16_224", {"num_classes": 0}),
    "rectangles": ("vit_tiny_patch16_224", {"img_size": (30, 28), "patch_size": (5, 7)}),
    "mean pool": ("vit_tiny_patch16_224", {"global_pool": "avg"}),
    "no qkv bias": ("vit_base_patch16_224_miil", {}),
    "clip": ("vit_base_patch16_clip_quickgelu_224", {}),
    "deit": ("deit_tiny_patch16_224", {}),
    "deit distilled": ("deit_tiny_distilled_patch16_224", {}),
    "deit3": ("deit3_small_patch16_224", {}),
    "dinov2": ("vit_small_patch14_dinov2", {}),
    "dinov2 registers": ("vit_small_patch14_reg4_dinov2", {}),
    "dinov2 giant": ("vit_giant_patch14_reg4_dinov2", {}),
    "normalised queries and keys": ("vit_tiny_patch16_224", {"qk_norm": True}),
    "augreg on imagenet-21k": ("vit_small_patch16_224.augreg_in21k", {}),
    "mae": ("vit_base_patch16_224.mae", {"num_classes": 0}),
    "siglip": ("vit_base_patch16_siglip_224", {}),
    "siglip 2, wider than a multiple": ("vit_so400m_patch16_siglip_256.v2_webli", {"num_classes": 0}),
    "siglip 2, mean": ("vit_base_patch16_siglip_gap_224.v2_webli", {}),
    "registers, gap": ("vit_medium_patch16_reg4_gap_256", {}),
}


@pytest.fixture(params=NATIVE)
def native(request, randomised):
    model_class, config = NATIVE[request.param]
    return randomised(model_class(config))


@pytest.fixture(params=TIMM)
def timm_model(request, randomised):
    name, arguments = TIMM[request.param]
    return randomised(timm.create_model(name, **{**TIMM_SIZES, **arguments}))


def tensors_of(folder):
    return load_file(folder / "model.safetensors")


def assert_same_bits(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert one[name].dtype == other[name].dtype, name
        assert torch.equal(one[name], other[name]), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_transformers_there_and_back_is_exact(native, dtype, tmp_path):
    native.to(dtype).save_pretrained(tmp_path / "native")
    there = convert(tmp_path / "native", tmp_path / "ours")
    back = convert(tmp_path / "ours", tmp_path / "back", to="transformers")
    assert_same_bits(tensors_of(tmp_path / "native"), tensors_of(tmp_path / "back"))
    assert back.architecture == type(native).__name__
    assert there.max_difference <= TOLERANCE
    assert back.max_difference <= TOLERANCE
    again = transformers.AutoConfig.from_pretrained(tmp_path / "back")
    known = {
        "label2id",
        "architectures",
        "transformers_version",
        "_name_or_path",
        "dtype",
        "encoder_stride",
        "drop_path_rate",
    }
    old, new = native.config.to_dict(), again.to_dict()
    assert {k: v for k, v in old.items() if k not in known} == {k: v for k, v in new.items() if k not in known}


def test_logits_agree_at_two_sizes_under_both_attentions(native):
    conversion = open_checkpoint(native, verify=True)
    resampled = conversion.model.config.image_size == 30 and "MaskedImage" not in type(native).__name__
    assert len(conversion.differences) == (8 if resampled else 4)
    assert conversion.max_difference <= TOLERANCE
    assert {key.split(", ")[0] for key in conversion.differences} == {"eager", "sdpa"}
    assert {key.split(", ")[1] for key in conversion.differences} == {"random", "photo"}


def test_timm_there_and_back_is_exact(timm_model, tmp_path):
    there = convert(timm_model, tmp_path / "ours")
    assert len(there.differences) == 8
    back = convert(tmp_path / "ours", tmp_path / "back", to="timm")
    assert_same_bits(timm_model.state_dict(), tensors_of(tmp_path / "back"))
    assert max(there.max_difference, back.max_difference) <= TOLERANCE
    loaded = timm.create_model(f"local-dir:{tmp_path / 'back'}", pretrained=True).eval()
    pixels = torch.randn(2, 3, *loaded.patch_embed.img_size)
    torch.testing.assert_close(loaded(pixels), timm_model(pixels))
    from_folder = open_checkpoint(tmp_path / "back", verify=True)
    assert from_folder.max_difference <= TOLERANCE
    assert_same_bits(from_folder.model.state_dict(), tensors_of(tmp_path / "ours"))


def test_registers_with_positions_are_folded_without_a_difference(randomised):
    model = randomised(timm.create_model("vit_tiny_patch16_224", **TIMM_SIZES, reg_tokens=2))
    conversion = open_checkpoint(model, verify=True)
    assert conversion.max_difference <= TOLERANCE


@pytest.mark.parametrize(
    ("name", "arguments", "feature"),
    [
        ("vit_base_patch16_224", {"pos_embed": "none"}, "no position embeddings"),
        ("vit_base_patch16_rpn_224", {}, "ResPostBlock"),
        ("vit_base_patch16_224", {"act_layer": "mish"}, "Mish"),
    ],
)
def test_what_ours_cannot_express_is_named(name, arguments, feature):
    model = timm.create_model(name, **{**TIMM_SIZES, **arguments})
    with pytest.raises(InexpressibleError, match=f"vithub cannot express this model.*{feature}"):
        vithub.load(model)


def test_a_model_of_another_kind_is_refused():
    with pytest.raises(TypeError, match="ResNet is neither"):
        vithub.load(timm.create_model("resnet18", num_classes=2))


@pytest.mark.parametrize(("pool", "unread"), [("cls", slice(32, None)), ("mean", slice(32))])
def test_a_head_of_dinov2_on_one_half_is_exact_with_zeros_for_the_other(pool, unread, tiny, randomised, tmp_path):
    model = randomised(vithub.HubViTForImageClassification(tiny(layer_scale_init_value=0.1, pool=pool)))
    report = convert(model, tmp_path / "native", to="transformers")
    assert report.max_difference < 1e-6
    assert any("weights of 0 were added" in note for note in report.notes)
    native = Dinov2ForImageClassification.from_pretrained(tmp_path / "native")
    assert not native.classifier.weight[:, unread].any()
    for source in (native, tmp_path / "native"):
        again = vithub.load(source)
        assert again.config.pool == pool
        assert torch.equal(again.classifier.weight, model.classifier.weight)
    assert vithub.load(native, pool="cls+mean").classifier.in_features == 64  # where both halves are to be trained
    torch.nn.init.zeros_(native.classifier.weight)  # says nothing of what the head is to read
    assert vithub.load(native).config.pool == "cls+mean"
    torch.nn.init.normal_(native.classifier.weight)
    assert vithub.load(native).config.pool == "cls+mean"


@pytest.mark.parametrize(
    ("fields", "to", "features"),
    [
        ({"embedding_norm": True, "pool": "mean"}, "transformers", ["embedding_norm=True", "pool='mean'"]),
        ({"layer_scale_init_value": 0.1, "qk_norm": True}, "transformers", ["`dinov2`", "qk_norm=True (only False)"]),
        (
            {"use_cls_token": False, "pool": "mean", "layer_scale_init_value": 0.1},
            "transformers",
            ["use_cls_token=False"],
        ),
        ({"pool": "cls+mean", "layer_norm_eps": 1e-12}, "timm", ["pool='cls+mean'", "layer_norm_eps=1e-12"]),
        ({"hidden_act": "mish"}, "timm", ["hidden_act='mish'"]),
    ],
)
def test_what_the_target_cannot_express_is_listed_and_nothing_is_written(tiny, tmp_path, fields, to, features):
    vithub.HubViTForImageClassification(tiny(**fields)).save_pretrained(tmp_path / "ours")
    with pytest.raises(InexpressibleError) as caught:
        convert(tmp_path / "ours", tmp_path / "out", to=to)
    for feature in features:
        assert feature in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["ours"]


def original(model):
    """The tensors of a timm DeiT as its authors' training script saves them."""
    state = {re.sub(r"ls([12])\.gamma", r"gamma_\1", name): t for name, t in model.state_dict().items()}
    return {"model": state}


@pytest.mark.parametrize(
    "name", ["deit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "deit3_small_patch16_224"]
)
def test_the_authors_files_load(name, randomised, tmp_path):
    sizes = TIMM_SIZES | {"embed_dim": 128, "num_heads": 2, "num_classes": 1000, "img_size": 30}
    model = randomised(timm.create_model(name, **sizes))
    torch.save(original(model), tmp_path / "deit.pth")
    conversion = open_checkpoint(tmp_path / "deit.pth", verify=True)
    assert conversion.max_difference <= TOLERANCE
    assert conversion.model.config.num_attention_heads == 2
    assert conversion.model.config.id2label[207] == "golden retriever"
    assert conversion.model.config.position_embedding_resampling == "bicubic"
    save_file(original(model)["model"], tmp_path / "deit.safetensors")
    assert_same_bits(vithub.load(tmp_path / "deit.safetensors").state_dict(), conversion.model.state_dict())


class Bomb:
    def __reduce__(self):
        return (print, ("a pickle ran code",))


def test_a_pickle_is_never_run(tmp_path, tiny, capsys):
    torch.save({"model": {"cls_token": Bomb()}}, tmp_path / "deit.pth")
    with pytest.raises(CheckpointError, match=r"deit\.pth holds more than tensors") as caught:
        vithub.load(tmp_path / "deit.pth")
    assert "\x1b" not in str(caught.value)
    native = ViTForImageClassification(NATIVE["vit classifier"][1])
    native.save_pretrained(tmp_path / "native")
    (tmp_path / "native" / "model.safetensors").unlink()
    torch.save(native.state_dict(), tmp_path / "native" / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"only as a pickle \(pytorch_model\.bin\)"):
        vithub.load(tmp_path / "native")
    assert "ran code" not in capsys.readouterr().out


def test_missing_unexpected_and_misshaped_tensors_are_listed(tmp_path):
    native = ViTForImageClassification(NATIVE["vit classifier"][1])
    native.save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    state = load_file(weights)
    query = "vit.encoder.layer.1.attention.attention.query.weight"

    def saved(changed):
        save_file(changed, weights, metadata={"format": "pt"})
        return tmp_path

    with pytest.raises(KeyMismatchError, match=r"missing tensors: vit\.layers\.1\.attention\.q_proj\.weight"):
        vithub.load(saved({k: v for k, v in state.items() if k != query}))
    with pytest.raises(KeyMismatchError, match=r"unexpected tensors: vit\.extra\.weight"):
        vithub.load(saved(state | {"vit.extra.weight": torch.zeros(1)}))
    with pytest.raises(KeyMismatchError, match=rf"{re.escape(query)} \(3, 32\) for vit\.layers\.1.*\(32, 32\)"):
        vithub.load(saved(state | {query: torch.zeros(3, 32)}))


def test_our_own_folder_with_missing_tensors_is_refused(tiny, tmp_path):
    model = vithub.HubViTForImageClassification(tiny())
    model.save_pretrained(tmp_path, state_dict={k: v for k, v in model.state_dict().items() if "o_proj" not in k})
    with pytest.raises(KeyMismatchError, match=r"missing tensors: vit\.layers\.0\.attention\.o_proj\.bias"):
        vithub.load(tmp_path)


def test_weights_stored_as_integers_are_refused(tiny, tmp_path):
    model = vithub.HubViTForImageClassification(tiny())
    model.save_pretrained(tmp_path)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state["vit.layers.0.attention.o_proj.bias"] = torch.arange(32, dtype=torch.int32)
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"o_proj\.bias is stored as torch\.int32, and should be floating-point"):
        vithub.load(tmp_path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p / "nowhere", "is no file or folder"),
        (lambda p: p, "holds no config.json"),
        (lambda p: (p / "config.json").write_text("{") and p, "no readable JSON"),
        (lambda p: (p / "config.json").write_text("[]") and p, "must hold a JSON object"),
        (lambda p: (p / "config.json").write_text('{"model_type": "vit"}') and p, "holds no model.safetensors"),
        (lambda p: "not a hub id at all", "is no file or folder"),
    ],
)
def test_a_broken_source_is_named(tmp_path, make, message):
    with pytest.raises(CheckpointError, match=message):
        vithub.load(make(tmp_path))


def test_a_model_type_of_others_is_named(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="'bert'"):
        vithub.load(tmp_path)


def test_a_damaged_file_is_named(tmp_path, tiny):
    vithub.HubViTModel(tiny()).save_pretrained(tmp_path / "ours")
    native = ViTModel(ViTConfig(**VIT))
    native.save_pretrained(tmp_path / "native")
    file = tmp_path / "native" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is no readable safetensors file"):
        vithub.load(tmp_path / "native")


def test_a_target_that_holds_something_is_left_alone(tiny, tmp_path):
    vithub.HubViTForImageClassification(tiny()).save_pretrained(tmp_path / "ours")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("years of work")
    with pytest.raises(TargetError, match="full holds files already"):
        convert(tmp_path / "ours", tmp_path / "full", to="timm")
    assert (tmp_path / "full" / "thesis.txt").read_text() == "years of work"
    (tmp_path / "file").write_text("x")
    with pytest.raises(TargetError, match="file is a file"):
        convert(tmp_path / "ours", tmp_path / "file")
    convert(tmp_path / "ours", tmp_path / "full", overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "full", "ours"]
    assert not (tmp_path / "full" / "thesis.txt").exists()


def test_parity_finds_a_wrong_weight(randomised):
    native = randomised(ViTForImageClassification(NATIVE["vit classifier"][1]))
    model = vithub.load(native)
    with torch.no_grad():
        model.vit.layers[1].mlp.fc1.weight[3, 3] += 0.5
    with pytest.raises(ParityError, match="differs from its source by more than 1e-05"):
        check_parity(model, native_reference(native), [(30, 30)])


def test_options_of_load(randomised):
    native = randomised(Dinov2Model(Dinov2Config(**SIZES)))
    model = vithub.load(
        native, task="image-classification", labels=["a", "b", "c"], image_size=(60, 30), dtype=torch.bfloat16,
        drop_path_rate=0.2, pool="cls+mean", attn_implementation="eager",
    )  # fmt: skip
    assert isinstance(model, vithub.HubViTForImageClassification)
    assert model.config.id2label == {0: "a", 1: "b", 2: "c"}
    assert model.config.image_size == (60, 30)
    assert model.dtype == torch.bfloat16
    assert model.config._attn_implementation == "eager"
    assert model.vit.layers[1].drop_path == 0.2
    assert model(torch.randn(1, 3, 60, 30)).logits.shape == (1, 3)
    expected = native(torch.randn(1, 3, 60, 30, generator=torch.Generator().manual_seed(0))).last_hidden_state
    got = vithub.load(native, image_size=(60, 30))(
        torch.randn(1, 3, 60, 30, generator=torch.Generator().manual_seed(0))
    )
    torch.testing.assert_close(got.last_hidden_state, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "segmentation"}, "`task` must be one of"),
        ({"hidden_dim": 3}, "`hidden_dim` is no field"),
        ({"drop_path_rate": 2}, "`drop_path_rate`"),
    ],
)
def test_wrong_options_of_load_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        vithub.load(ViTModel(ViTConfig(**VIT)), **options)


def test_labels_and_pixels_come_along_from_timm(randomised, tmp_path):
    model = timm.create_model("deit3_small_patch16_224", **TIMM_SIZES)
    model.pretrained_cfg |= {
        "label_names": [f"flower {i}" for i in range(7)],
        "crop_pct": 1.0,
        "interpolation": "bilinear",
    }
    conversion = open_checkpoint(model)
    assert conversion.model.config.id2label[6] == "flower 6"
    processor = conversion.image_processor
    assert processor.size["shortest_edge"] == processor.crop_size["height"] == 30
    assert processor.resample == 2
    convert(model, tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "timm", to="timm")
    back = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True).pretrained_cfg
    assert back["label_names"] == model.pretrained_cfg["label_names"]
    assert back["crop_pct"] == 1.0
    assert back["interpolation"] == "bilinear"
    assert tuple(back["mean"]) == model.pretrained_cfg["mean"]


@pytest.fixture
def real_vit(real_files, tmp_path):
    """Real weights of 37 x 37 patches; in the short form with the middle 9 x 9 places of the position table alone."""
    source = real_files / "weights" / "vit_small_patch14"
    if LONG:
        return source
    config, tensors = json.loads((source / "config.json").read_text()), tensors_of(source)
    (name,) = (name for name in tensors if name.endswith("position_embeddings"))
    grid = tensors[name][:, 1:].unflatten(1, (37, 37))[:, 14:23, 14:23].flatten(1, 2)
    tensors[name] = torch.cat([tensors[name][:, :1], grid], 1)
    smaller = tmp_path / "smaller"
    smaller.mkdir()
    (smaller / "config.json").write_text(json.dumps(config | {"image_size": 9 * config["patch_size"]}))
    save_file(tensors, smaller / "model.safetensors", metadata={"format": "pt"})
    return smaller


def test_real_weights_there_and_back(real_vit, tmp_path):
    there = convert(real_vit, tmp_path / "ours")
    assert there.max_difference <= TOLERANCE
    assert len(there.differences) == 8
    back = convert(tmp_path / "ours", tmp_path / "back", to="transformers")
    assert_same_bits(tensors_of(real_vit), tensors_of(tmp_path / "back"))
    assert back.max_difference <= TOLERANCE


def test_real_weights_go_to_timm_at_another_size(real_files, tmp_path):
    vithub.load(real_files / "weights" / "vit_small_patch14").save_pretrained(tmp_path / "ours")
    to_timm = convert(tmp_path / "ours", tmp_path / "timm", to="timm", image_size=126)  # a sixteenth of the tokens
    assert to_timm.max_difference <= TOLERANCE


def test_the_reference_runs_what_it_says(randomised):
    model = randomised(timm.create_model("vit_tiny_patch16_224", **TIMM_SIZES))
    pixels = torch.randn(1, 3, 30, 30)
    torch.testing.assert_close(timm_reference(model)(pixels, "eager"), model(pixels))
