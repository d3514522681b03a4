"""The same call on every family, and what it refuses."""

import numpy as np
import pytest
import torch
from PIL import Image

import vithub
from vithub import EXPLANATION_METHODS, explain

ON_ATTENTION = [name for name, method in EXPLANATION_METHODS.items() if method.needs_attention]
ON_ANYTHING = [name for name, method in EXPLANATION_METHODS.items() if not method.needs_attention]


def methods_for(name):
    """All that a model of this name can be explained by."""
    if "detr" in name:
        return [method for method in EXPLANATION_METHODS if "rollout" not in method]
    return ON_ANYTHING if "net" in name or "convnext" in name else list(EXPLANATION_METHODS)


def test_the_same_call_explains_every_model(model_name, build, pixels):
    patches = ("vit" in model_name and "detr" not in model_name) or "deit" in model_name or "dinov2" in model_name
    size, grid = ((32, 32), (4, 4)) if patches else ((64, 96), None)
    model, images = build(model_name), pixels(2, *size)
    for method in methods_for(model_name):
        explanation = explain(model, images, method, steps=2)
        assert explanation.maps.shape == (2, *size), method
        assert explanation.maps.dtype == explanation.grid.dtype == torch.float32
        assert grid is None or explanation.grid.shape == (2, *grid)
        assert explanation.maps.isfinite().all()
        assert explanation.method == method
        assert len(explanation.target) == 2
        if "detr" in model_name and "cam" in method:
            continue  # with random weights it may be that nothing speaks for the class, which is warned of
        assert (explanation.maps.amax(dim=(1, 2)) > 0).all(), f"{method} is empty"
        assert (explanation.maps.amax(dim=(1, 2)) > explanation.maps.amin(dim=(1, 2))).all(), f"{method} is even"


@pytest.mark.parametrize("name", ["vithub deit", "transformers dinov2", "timm vit", "timm resnet"])
def test_a_batch_of_eight_equals_eight_single_calls(name, build, pixels):
    model, images = build(name), pixels(8, 32, 32)
    for method in methods_for(name):
        together = explain(model, images, method, steps=2)
        for number in range(8):
            alone = explain(model, images[number : number + 1], method, steps=2)
            assert alone.target == together.target[number : number + 1]
            scale = alone.maps.abs().max().clamp(min=1)
            assert torch.allclose(alone.maps[0], together.maps[number], rtol=0, atol=1e-5 * scale), method


def test_the_patches_lie_where_the_map_says(build, pixels):
    """A grid of 4 x 6 patches: rows are rows and columns are columns."""
    model, images = build("vithub vit"), pixels(1, 32, 48)
    explanation = explain(model, images, "attention")
    assert explanation.grid.shape == (1, 4, 6)
    largest = divmod(int(explanation.grid[0].argmax()), 6)
    row, column = divmod(int(explanation.maps[0].argmax()), 48)
    assert (row // 8, column // 8) == largest
    frame = explanation.to_dataframe()
    best = frame.loc[frame["value"].idxmax()]
    assert (best["row"], best["column"]) == largest
    assert (best["top"], best["left"], best["bottom"], best["right"]) == (
        8 * largest[0], 8 * largest[1], 8 * largest[0] + 8, 8 * largest[1] + 8,
    )  # fmt: skip


def test_targets_are_classes_by_number_by_name_or_one_per_image(build, pixels):
    model, images = build("vithub vit"), pixels()
    model.config.id2label = dict(enumerate("abcde"))
    by_number = explain(model, images, "relevance", target=3)
    by_name = explain(model, images, "relevance", target="d")
    mixed = explain(model, images, "relevance", target=["d", "a"])
    assert by_number.target == by_name.target == (3, 3)
    assert mixed.target == (3, 0)
    assert mixed.labels == ("d", "a")
    assert torch.equal(by_number.maps, by_name.maps)
    assert torch.equal(mixed.maps[0], by_number.maps[0])
    assert not torch.allclose(mixed.maps[1], by_number.maps[1])
    assert explain(model, images, "relevance", target=torch.tensor([3, 0])).target == (3, 0)
    likeliest = model(images).logits.argmax(dim=-1)
    assert explain(model, images, "rollout").target == tuple(likeliest.tolist())


BAD = {
    "method": ({"method": "lime"}, "`method` must be one of attention, rollout"),
    "class": ({"method": "relevance", "target": 5}, "class from 0 to 4, got 5"),
    "negative class": ({"method": "relevance", "target": -1}, "class from 0 to 4, got -1"),
    "name": ({"method": "relevance", "target": "cat"}, "'cat' is no label of the model, whose labels are LABEL_0"),
    "class of raw attention": ({"method": "attention", "target": 9}, "class from 0 to 4, got 9"),
    "targets": ({"method": "relevance", "target": [1, 2, 3]}, "one per image"),
    "layer": ({"method": "attention", "layer": 2}, "`layer` must lie in 0 to 1.*got 2"),
    "layer of a CAM": ({"method": "grad_cam", "layer": -3}, "`layer` must lie in 0 to 1.*got -3"),
    "head": ({"method": "attention", "head": 4}, "`head` must lie in 0 to 3.*got 4"),
    "no layers": ({"method": "rollout", "layer": 1}, "takes no `layer` .got 1.; these do: attention, grad_cam"),
    "no heads": ({"method": "grad_cam", "head": 0}, "takes no `head` .got 0.; these do: attention"),
    "token": ({"method": "attention", "token": "distillation"}, "no 'distillation' token; before its patches are cls"),
    "patch": ({"method": "attention", "token": 16}, "`token` must lie in 0 to 15.*got 16"),
    "query": ({"method": "relevance", "query": 0}, "object query of a detector, and this model is a classifier"),
    "steps": ({"method": "integrated_gradients", "steps": 0}, "`steps` must be at least 1, got 0"),
}


@pytest.mark.parametrize(("options", "message"), BAD.values(), ids=BAD)
def test_what_does_not_exist_is_refused(options, message, build, pixels):
    with pytest.raises(ValueError, match=message):
        explain(build("vithub vit"), pixels(), **options)


@pytest.mark.parametrize("name", ["vithub vit", "transformers vit", "transformers dinov2", "timm vit"])
@pytest.mark.parametrize("method", ["rollout", "grad_cam", "occlusion"])
def test_an_image_that_is_cut_by_the_patches_is_refused(name, method, build, pixels):
    with pytest.raises(ValueError, match=r"multiples of the patch 8 x 8, got 32 x 36|32 x 32 pixels only, got 32 x 36"):
        explain(build(name), pixels(1, 32, 36), method)


def test_images_are_checked(build):
    model = build("vithub vit")
    with pytest.raises(ValueError, match=r"\(batch, channels, height, width\), got \(3, 32, 32\)"):
        explain(model, torch.zeros(3, 32, 32))
    with pytest.raises(ValueError, match=r"floating-point pixels, got torch.uint8"):
        explain(model, torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    with pytest.raises(ValueError, match="not finite"):
        explain(model, torch.full((1, 3, 32, 32), float("nan")))
    with pytest.raises(TypeError, match="must be a tensor, got Image"):
        explain(model, Image.new("RGB", (32, 32)))
    with pytest.raises(TypeError, match="must be a torch module, got str"):
        explain("google/vit", torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize("method", ON_ATTENTION)
def test_a_model_without_attention_is_told_what_it_can_have(method, build, pixels):
    with pytest.raises(ValueError, match=r"ResNet.* has no attention.*grad_cam, hires_cam"):
        explain(build("torchvision resnet"), pixels(1, 64, 64), method)


def test_windows_are_not_taken_for_attention_over_an_image(pixels):
    import timm

    model = timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=56, embed_dim=24, depths=(1, 1), num_heads=(2, 2)
    )
    with pytest.raises(ValueError, match="no attention between all tokens"):
        explain(model, pixels(1, 56, 56), "rollout")


def test_a_model_without_a_head_shows_attention_but_has_no_class(tiny, pixels):
    model = vithub.HubViTModel(tiny()).eval()
    explanation = explain(model, pixels(), "rollout")
    assert explanation.target is None
    assert explanation.to_dataframe()["target"].isna().all()
    for method in ("relevance", "grad_cam", "occlusion", "integrated_gradients"):
        with pytest.raises(ValueError, match="HubViTModel gives no logits"):
            explain(model, pixels(), method)
    with pytest.raises(ValueError, match="gives no logits"):
        explain(model, pixels(), "rollout", target=1)


def test_pictures_are_written_and_checked(build, pixels, tmp_path):
    explanation = explain(build("vithub vit"), pixels(2, 32, 48), "rollout")
    with Image.open(explanation.save(tmp_path / "why.png")) as written:
        assert written.width > 500
    overlay = explanation.overlay(Image.new("RGB", (480, 320)), index=1)
    assert overlay.size == (480, 320)
    assert len(np.unique(np.asarray(overlay).reshape(-1, 3), axis=0)) > 20
    assert explanation.overlay().size == (48, 32)
    with pytest.raises(ValueError, match="another aspect"):
        explanation.overlay(Image.new("RGB", (320, 320)))
    with pytest.raises(ValueError, match="one per map"):
        explanation.save(tmp_path / "why.png", images=[Image.new("RGB", (48, 32))])
    with pytest.raises(ValueError, match=r"must end in one of .*got 'why.xyz'"):
        explanation.save(tmp_path / "why.xyz")
    with pytest.raises(IndexError, match="0 to 1, got 2"):
        explanation.overlay(index=2)
    with pytest.raises(ValueError, match="values from 0 to 255"):
        explanation.overlay(np.linspace(0, 255, 32 * 48 * 3).reshape(32, 48, 3))


def test_each_method_says_in_two_lines_when_to_use_it_and_when_not():
    for name, method in EXPLANATION_METHODS.items():
        use, avoid = method.text.splitlines()
        assert use.startswith("Use it ")
        assert avoid.startswith("Not ")
        assert method.name == name
