"""Methods that timm's users know: single layers, another input size, another number of classes."""

import pytest
import timm
import torch

import vithub

SIZES = {"img_size": 30, "patch_size": 6, "embed_dim": 32, "depth": 3, "num_heads": 4, "num_classes": 7}
TIMM = {
    "plain": ("vit_tiny_patch16_224", {}),
    "norm after pooling": ("deit3_small_patch16_224", {"global_pool": "avg", "fc_norm": True}),
    "distilled": ("deit_tiny_distilled_patch16_224", {}),
    "registers": ("vit_small_patch14_reg4_dinov2", {}),
    "siglip": ("vit_base_patch16_siglip_224", {}),
    "dinov3": ("vit_small_patch16_dinov3_qkvb", {"dynamic_img_size": False}),
}


@pytest.fixture(params=TIMM)
def pair(request, randomised):
    """A model of timm and ours with the same weights."""
    name, arguments = TIMM[request.param]
    model = randomised(timm.create_model(name, **{**SIZES, **arguments}))
    return model, vithub.load(model)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"indices": 2, "norm": True, "return_prefix_tokens": True},
        {"indices": [-1, 0, 2], "output_fmt": "NLC", "intermediates_only": True},
        {"indices": [1], "stop_early": True, "norm": True},
    ],
)
def test_single_layers_are_those_of_timm(pair, options):
    theirs, ours = pair
    pixels = torch.randn(2, 3, 30, 30)
    with torch.no_grad():
        expected, got = theirs.forward_intermediates(pixels, **options), ours.forward_intermediates(pixels, **options)
    assert type(got) is type(expected)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"indices": [3]}, "`indices` must be numbers of layers from -3 to 2, got 3"),
        ({"indices": 4}, "`indices` must be at most the 3 layers, and at least 1, got 4"),
        ({"indices": True}, "`indices` must be at most the 3 layers, and at least 1, got True"),
        ({"indices": []}, "`indices` must name at least one layer"),
        ({"output_fmt": "NHWC"}, "`output_fmt` must be 'NCHW' or 'NLC', got 'NHWC'"),
    ],
)
def test_layers_that_do_not_exist_are_refused(options, message, tiny):
    with pytest.raises(ValueError, match=message):
        vithub.HubViTModel(tiny(num_hidden_layers=3)).forward_intermediates(torch.zeros(1, 3, 32, 32), **options)


@pytest.mark.parametrize(("size", "patch"), [((42, 24), None), ((30, 30), (10, 5)), ((24, 40), (8, 8))])
def test_another_input_size_is_that_of_timm(pair, size, patch):
    theirs, ours = pair
    before = ours.base_model.embeddings.position_embeddings
    theirs.set_input_size(img_size=size, patch_size=patch)
    assert ours.set_input_size(size, patch) is ours
    positions = ours.base_model.embeddings.position_embeddings
    if before is None:  # rotary: nothing to resample
        assert positions is None
    else:
        torch.testing.assert_close(positions, theirs.pos_embed, atol=1e-5, rtol=1e-5)
    weight = ours.base_model.embeddings.patch_embeddings.weight
    torch.testing.assert_close(weight.view_as(theirs.patch_embed.proj.weight), theirs.patch_embed.proj.weight)
    assert (ours.config.image_hw, ours.config.patch_hw) == (size, patch or (6, 6))
    pixels = torch.randn(2, 3, *size)
    with torch.no_grad():
        torch.testing.assert_close(ours(pixels).logits, theirs.eval()(pixels), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("config_class", [vithub.HubViTConfig, vithub.HubDeiTConfig, vithub.HubDetrConfig])
def test_a_classifier_starts_anew(config_class, tiny, tiny_detr, randomised, tmp_path):
    if config_class is vithub.HubDetrConfig:
        config = tiny_detr(anchor_queries=True, denoising_queries=4)
        model, size = vithub.HubDetrForObjectDetection(config), (1, 3, 64, 64)
    else:
        classes = {vithub.HubViTConfig: vithub.HubViTForImageClassification}
        model_class = classes.get(config_class, vithub.HubDeiTForImageClassification)
        model, size = model_class(tiny(config_class, num_labels=3)), (1, 3, 32, 32)
    randomised(model)
    old = {name: getattr(model, name).weight.clone() for name in model.head_names}
    model.reset_classifier(3)  # as many as before: anew all the same
    for name, weight in old.items():
        assert not torch.equal(getattr(model, name).weight[:3], weight[:3])
        assert torch.equal(getattr(model, name).weight[3:], weight[3:])  # "no object"
    model.reset_classifier(6)
    assert model.config.id2label == {row: f"LABEL_{row}" for row in range(6)}
    assert model(torch.randn(*size)).logits.shape[-1] in (6, 7)
    model.save_pretrained(tmp_path)
    loaded, info = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert (loaded.config.num_labels, any(info.values())) == (6, False)
    for wrong in (0, True, 2.0, ["a"]):
        with pytest.raises(ValueError, match="`num_classes` must be a whole number of at least 1, got"):
            model.reset_classifier(wrong)
