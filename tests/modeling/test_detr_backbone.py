"""The backbone of DETR: what is frozen, what is dilated, what padding does."""

import pytest
import torch
from transformers import DetrConfig, DetrForObjectDetection
from vithub.modeling.detr_backbone import HubDetrBackbone, batch_norms

import vithub

LITE = {"model_type": "timm_backbone", "backbone": "tf_efficientnet_lite0", "out_indices": [3]}


def trainable(backbone):
    """Names of modules right below the backbone that train, down to the stage's number."""
    names = [name for name, p in backbone.model.named_parameters() if p.requires_grad]
    return sorted({".".join(part for part in name.split(".")[:4] if part not in ("weight", "bias")) for name in names})


@pytest.mark.parametrize("loaded", [False, True])
def test_of_a_resnet_exactly_stem_and_first_stage_are_frozen(tiny_detr, loaded, tmp_path):
    """Fault 2: nothing of a native ResNet trained. Loading must not make everything trainable either."""
    model = vithub.HubDetrForObjectDetection(tiny_detr())
    if loaded:
        model.save_pretrained(tmp_path)
        model = vithub.HubDetrForObjectDetection.from_pretrained(tmp_path)
    for name, parameter in model.detr.backbone.model.named_parameters():
        frozen = name.startswith(("embedder.", "encoder.stages.0.")) or "normalization" in name
        assert parameter.requires_grad == (not frozen), name
    assert all(p.requires_grad for name, p in model.named_parameters() if ".backbone." not in name)


def test_of_a_timm_resnet_exactly_stem_and_first_stage_are_frozen(tiny_detr):
    timm = {"model_type": "timm_backbone", "backbone": "resnet18", "out_indices": [4]}
    backbone = HubDetrBackbone(tiny_detr(backbone_config=timm))
    for name, parameter in backbone.model.named_parameters():
        convolution = "conv" in name or "downsample.0" in name
        assert parameter.requires_grad == (convolution and "layer1" not in name and "layer" in name), name


@pytest.mark.parametrize(("stages", "first"), [(0, "conv_stem"), (1, "blocks.2"), (2, "blocks.3")])
def test_stages_of_an_efficientnet_end_where_the_stride_doubles(tiny_detr, stages, first):
    backbone = HubDetrBackbone(tiny_detr(backbone_config=LITE, frozen_stages=stages))
    names = [name.removeprefix("_backbone.") for name, p in backbone.model.named_parameters() if p.requires_grad]
    assert names[0].startswith(first)
    assert not [name for name in names if name.startswith(("blocks.5", "blocks.6"))]  # after the last map: gone


def test_of_a_vit_the_first_layers_are_frozen(tiny_detr, tiny):
    backbone = HubDetrBackbone(tiny_detr(backbone_config=tiny(), frozen_stages=1))
    assert trainable(backbone)[0].startswith("layernorm")
    assert all(not name.startswith(("embeddings", "layers.0")) for name in trainable(backbone))
    with pytest.raises(ValueError, match="at most the backbone's 2 stages, got 3"):
        HubDetrBackbone(tiny_detr(backbone_config=tiny(), frozen_stages=3))


@pytest.mark.parametrize("config", [None, LITE])
def test_batch_statistics_never_move_and_train_computes_what_eval_does(tiny_detr, config):
    given = {} if config is None else {"backbone_config": config}
    backbone = HubDetrBackbone(tiny_detr(**given))
    generator = torch.Generator().manual_seed(0)
    for norm in batch_norms(backbone):
        norm.running_mean.copy_(torch.randn(norm.running_mean.shape, generator=generator) * 0.1)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    pixels = torch.randn(2, 3, 64, 96, generator=generator)
    expected, _ = backbone.eval()(pixels, None)
    got, _ = backbone.train()(pixels, None)
    assert torch.equal(got, expected)
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


def test_a_normalisation_with_an_activation_keeps_it(tiny_detr):
    """Replacing timm's layers by a plain frozen normalisation loses their activations: transformers' DETR does so."""
    import timm

    backbone = HubDetrBackbone(tiny_detr(backbone_config=LITE))
    reference = timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=(3,)).eval()
    state = {name.removeprefix("model._backbone."): value for name, value in backbone.state_dict().items()}
    assert not reference.load_state_dict(state, strict=False).unexpected_keys
    pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(backbone(pixels, None)[0], reference(pixels)[-1], atol=1e-5)


def test_dilation_doubles_the_map_as_timm_does(tiny_detr):
    """The native ResNet is dilated here, timm's by timm: with the same weights they must agree."""
    import timm
    from vithub.hub.conversion.detr_keys import resnet_from_timm

    native = {"model_type": "resnet", "hidden_sizes": [64, 128, 256, 512], "depths": [2, 2, 2, 2],
              "layer_type": "basic", "out_features": ["stage4"]}  # fmt: skip
    backbone = HubDetrBackbone(tiny_detr(backbone_config=native, dilation=True)).eval()
    reference = timm.create_model("resnet18", features_only=True, out_indices=(4,), output_stride=16).eval()
    backbone.model.load_state_dict({resnet_from_timm(n): v for n, v in reference.state_dict().items()})
    pixels = torch.randn(1, 3, 96, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        got, expected = backbone(pixels, None)[0], reference(pixels)[-1]
    assert got.shape[-2:] == (6, 4)
    assert torch.allclose(got, expected, atol=1e-4)


def test_dilation_of_timm_and_of_our_own_are_asked_for_the_same_way(tiny_detr):
    timm = {"model_type": "timm_backbone", "backbone": "resnet18", "out_indices": [4]}
    pixels = torch.zeros(1, 3, 96, 64)
    for config in (tiny_detr(dilation=True), tiny_detr(dilation=True, backbone_config=timm)):
        assert HubDetrBackbone(config)(pixels, None)[0].shape[-2:] == (6, 4)


def test_the_mask_shows_the_cells_of_the_image(tiny_detr, tiny):
    mask = torch.zeros(2, 64, 96)
    mask[0, :32, :] = 1
    mask[1, :, :48] = 1
    _, cells = HubDetrBackbone(tiny_detr())(torch.zeros(2, 3, 64, 96), mask)
    assert cells.tolist() == [[[True] * 3, [False] * 3], [[True, True, False]] * 2]
    _, cells = HubDetrBackbone(tiny_detr(backbone_config=tiny(), frozen_stages=0))(torch.zeros(1, 3, 30, 35), None)
    assert cells.shape == (1, 4, 5)  # padded to whole patches of 8
    assert cells.all()


def test_a_backbone_of_transformers_that_trains_nothing_is_the_known_fault():
    """What fault 2 is about, so that the day transformers mends it is noticed."""
    config = DetrConfig(
        backbone_config={"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 8, 8, 8],
                         "depths": [1, 1, 1, 1], "layer_type": "basic", "out_features": ["stage4"]},
        d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4, decoder_attention_heads=4,
    )  # fmt: skip
    model = DetrForObjectDetection(config)
    assert not any(p.requires_grad for p in model.model.backbone.parameters())
