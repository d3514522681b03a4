"""A model is left as it was found, whatever happens while it is explained."""

import pytest
import torch
from torch.overrides import _get_current_function_mode_stack
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from vithub.interpretability.explanation.score_gradients import score_gradients

import vithub
from vithub import EXPLANATION_METHODS, attention_maps, attention_rows, explain


def state_of(model):
    """All that an explanation could leave behind."""
    return {
        "training": [module.training for module in model.modules()],
        "implementation": getattr(getattr(model, "config", None), "_attn_implementation", None),
        "requires_grad": [parameter.requires_grad for parameter in model.parameters()],
        "grad": [None if parameter.grad is None else parameter.grad.clone() for parameter in model.parameters()],
        "weights": [tensor.clone() for tensor in model.state_dict().values()],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in model.modules()],
        "device": {parameter.device for parameter in model.parameters()},
        "modes": len(_get_current_function_mode_stack()),
        "grad_enabled": torch.is_grad_enabled(),
        "random": torch.get_rng_state(),
    }


def assert_same(before, after):
    for name, values in before.items():
        if isinstance(values, list) and any(isinstance(value, torch.Tensor) for value in values):
            pairs = zip(values, after[name], strict=True)
            assert all(a is None if b is None else torch.equal(a, b) for b, a in pairs), name
        elif isinstance(values, torch.Tensor):
            assert torch.equal(values, after[name]), name
        else:
            assert values == after[name], name


class Broken(torch.nn.Module):
    """A layer whose forward fails."""

    def forward(self, *args, **kwargs):
        raise RuntimeError("broken layer")


def prepared(build, name="vithub vit"):
    """A model in a mixed state: partly in training mode, partly frozen, with gradients."""
    model = build(name)
    first = next(model.parameters())
    first.grad = torch.ones_like(first)
    list(model.parameters())[-1].requires_grad_(False)
    model.train()
    next(module for module in model.modules() if isinstance(module, torch.nn.Linear)).eval()
    return model


@pytest.mark.parametrize("method", EXPLANATION_METHODS)
@pytest.mark.parametrize("name", ["vithub vit", "transformers vit", "torchvision vit"])
def test_everything_is_as_before(method, name, build, pixels):
    model, images = prepared(build, name), pixels()
    before, copy = state_of(model), images.clone()
    explain(model, images, method, steps=2)
    assert_same(before, state_of(model))
    assert torch.equal(images, copy)
    assert not images.requires_grad


@pytest.mark.parametrize("method", EXPLANATION_METHODS)
def test_everything_is_as_before_after_an_exception(method, build, pixels):
    model = prepared(build)
    model.vit.layers[-1].mlp = Broken().train()
    before = state_of(model)
    with pytest.raises(RuntimeError, match="broken layer"):
        explain(model, pixels(), method, steps=2)
    assert_same(before, state_of(model))
    for function in (attention_maps, attention_rows):
        with pytest.raises(RuntimeError, match="broken layer"):
            function(model, pixels())
        assert_same(before, state_of(model))


def test_a_model_in_training_mode_is_explained_as_in_evaluation_mode(tiny, pixels):
    torch.manual_seed(0)
    model = vithub.HubViTForImageClassification(tiny(hidden_dropout_prob=0.5, drop_path_rate=0.5)).eval()
    for method in EXPLANATION_METHODS:
        calm = explain(model, pixels(), method, steps=2).maps
        assert torch.equal(explain(model.train(), pixels(), method, steps=2).maps, calm), method
        assert model.training
        model.eval()


@pytest.fixture
def sealed_attention():
    """An attention that returns no weights and cannot be seen, as flash attention is; it counts its calls."""
    count = []

    def attend(*args, **kwargs):
        count.append(1)
        with torch._C.DisableTorchFunction():
            return sdpa_attention_forward(*args, **kwargs)

    AttentionInterface.register("sealed", attend)
    return count


@pytest.mark.parametrize("name", ["vithub vit", "transformers vit", "transformers dinov2"])
def test_an_attention_that_cannot_be_seen_is_computed_by_torch_meanwhile(name, sealed_attention, build, pixels):
    model, images = build(name), pixels()
    expected = {method: explain(model, images, method, steps=2) for method in EXPLANATION_METHODS}
    model.set_attn_implementation("sealed")
    model(images)
    assert sealed_attention
    for method, explanation in expected.items():
        assert torch.equal(explain(model, images, method, steps=2).maps, explanation.maps)
        assert model.config._attn_implementation == "sealed"
    assert len(list(attention_maps(model, images))) == 2
    seen = len(sealed_attention)
    model(images)
    assert len(sealed_attention) > seen, "the model's own attention is back"


def test_an_attention_that_cannot_be_seen_is_back_after_an_exception(sealed_attention, build, pixels):
    model = build("transformers vit")
    model.set_attn_implementation("sealed")
    model.classifier = Broken()
    with pytest.raises(RuntimeError, match="broken layer"):
        explain(model, pixels(), "rollout")
    assert model.config._attn_implementation == "sealed"


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_works_where_gradients_are_switched_off(mode, build, pixels):
    model = build("vithub vit").requires_grad_(requires_grad=False)
    for method in EXPLANATION_METHODS:
        expected = explain(model, pixels(), method, steps=2).maps
        with mode():
            images = pixels()
            assert torch.equal(explain(model, images, method, steps=2).maps, expected), method


def test_compiled_and_parallel_models_are_explained_uncompiled(build, pixels):
    model, images = build("vithub vit"), pixels()
    expected = explain(model, images, "relevance").maps
    compiled = torch.compile(model, backend="eager")
    compiled(images)
    assert torch.equal(explain(compiled, images, "relevance").maps, expected)
    assert torch.equal(explain(torch.nn.DataParallel(model), images, "relevance").maps, expected)
    model.compile(backend="eager")
    model(images)
    assert torch.equal(explain(model, images, "relevance").maps, expected)


@pytest.mark.parametrize("name", ["vithub vit", "timm vit", "torchvision vit", "timm resnet"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_gives_about_the_same_maps(name, dtype, build, pixels):
    model, images = build(name), pixels()
    methods = (
        ("grad_cam", "hires_cam") if "resnet" in name else ("rollout", "relevance", "gradient_rollout", "hires_cam")
    )
    for method in methods:
        exact = explain(model.float(), images, method, target=1).grid.flatten()
        halved = explain(model.to(dtype), images, method, target=1).grid.flatten()
        assert halved.dtype == torch.float32
        assert torch.corrcoef(torch.stack([exact, halved]))[0, 1] > 0.9, method


def test_gradients_too_small_for_fp16_are_kept():
    weights = torch.full((4,), 0.5, dtype=torch.float16, requires_grad=True)
    score = (weights * 2.0**-14).sum() * 2.0**-11
    (gradient,) = score_gradients(score, [weights])
    assert torch.equal(gradient, torch.full((4,), 2.0**-25))


def test_images_are_brought_to_the_type_of_the_model(build, pixels):
    model = build("timm vit").double()
    explanation = explain(model, pixels(), "relevance")
    assert explanation.maps.dtype == torch.float32
    expected = explain(build("timm vit"), pixels(), "relevance").maps
    assert torch.allclose(explanation.maps, expected, rtol=0, atol=1e-5)
