import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.layers import DropPath, GluMlp
from torch import nn
from vithub.modeling.layers import HubViTPatchEmbedding, HubViTSwiGLU, KeptSamples, add_residual

import vithub
from vithub import HubViTConfig


def patch_embedding(channels: int, patch: tuple[int, int], bias: bool = True) -> HubViTPatchEmbedding:
    config = HubViTConfig(
        hidden_size=6, num_attention_heads=1, image_size=patch, patch_size=patch, num_channels=channels, patch_bias=bias
    )
    embedding = HubViTPatchEmbedding(config)
    for parameter in embedding.parameters():
        nn.init.normal_(parameter)
    return embedding


@given(
    batch=st.integers(1, 2), channels=st.integers(1, 4), patch=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    grid=st.tuples(st.integers(1, 4), st.integers(1, 4)), bias=st.booleans(),
)  # fmt: skip
def test_patches_times_a_matrix_are_the_strided_convolution(batch, channels, patch, grid, bias):
    embedding = patch_embedding(channels, patch, bias)
    pixels = torch.randn(batch, channels, grid[0] * patch[0], grid[1] * patch[1])
    patches = nn.functional.unfold(pixels, patch, stride=patch).transpose(1, 2)  # torch's own way to cut
    expected = nn.functional.linear(patches, embedding.weight, embedding.bias)
    torch.testing.assert_close(embedding.project_patches(pixels), expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(embedding.convolve(pixels), expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(embedding(pixels), expected, atol=1e-5, rtol=1e-4)


def test_both_forms_have_the_same_gradients():
    embedding, pixels = patch_embedding(3, (4, 2)), torch.randn(2, 3, 8, 6)
    gradients = [
        torch.autograd.grad(form(pixels).pow(2).sum(), [embedding.weight, embedding.bias])
        for form in (embedding.project_patches, embedding.convolve)
    ]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_swiglu_is_that_of_timm():
    config = HubViTConfig(hidden_size=16, num_attention_heads=1, intermediate_size=24, use_swiglu_ffn=True)
    ours, theirs = HubViTSwiGLU(config), GluMlp(16, 48, act_layer=nn.SiLU, gate_last=False)
    with torch.no_grad():
        theirs.fc1.weight.copy_(torch.cat([ours.gate_proj.weight, ours.up_proj.weight]))
        theirs.fc1.bias.copy_(torch.cat([ours.gate_proj.bias, ours.up_proj.bias]))
        theirs.fc2.load_state_dict(ours.down_proj.state_dict())
    states = torch.randn(2, 5, 16)
    torch.testing.assert_close(ours(states), theirs(states))


def added(states: torch.Tensor, branch, *options, **more) -> torch.Tensor:
    """The sum that `add_residual` gives for a branch that gives nothing more."""
    total, nothing = add_residual(states, lambda x: (branch(x), None), *options, **more)
    assert nothing is None
    return total


def branch(states: torch.Tensor) -> torch.Tensor:
    return torch.tanh(states) * 3


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_stochastic_depth_is_that_of_timm(rate):
    states = torch.randn(16, 3, 4)
    torch.manual_seed(1)
    got = added(states, branch, rate)
    torch.manual_seed(1)
    kept = torch.rand(16) < 1 - rate
    timm_layer = DropPath(rate).train()
    scale = (timm_layer(torch.ones(4000, 1)).unique()).max()  # what timm multiplies kept samples by
    expected = states + branch(states) * kept.view(-1, 1, 1) * scale
    torch.testing.assert_close(got, expected)
    torch.manual_seed(1)
    torch.testing.assert_close(added(states, branch, rate, skip=False), expected)
    assert torch.equal(added(states, branch), states + branch(states))


def test_stochastic_depth_keeps_the_mean():
    states = torch.randn(20_000, 1, 2)
    got = added(states, lambda x: torch.ones_like(x), 0.3) - states
    assert got.mean().item() == pytest.approx(1.0, abs=0.02)
    assert (got[:, 0, 0] == 0).float().mean().item() == pytest.approx(0.3, abs=0.02)


@given(cut=st.integers(1, 15), rate=st.floats(0.1, 0.9), seed=st.integers(0, 100))
def test_a_cut_batch_drops_the_samples_of_the_whole(cut, rate, seed):
    states = torch.randn(16, 2, 3)
    torch.manual_seed(seed)
    whole = added(states, branch, rate)
    torch.manual_seed(seed)
    first = added(states[:cut], branch, rate, batch_window=(0, 16))
    torch.manual_seed(seed)
    second = added(states[cut:], branch, rate, batch_window=(cut, 16))
    assert torch.equal(torch.cat([first, second]), whole)


def test_dropped_samples_are_not_computed():
    seen = []

    def spy(states):
        seen.append(len(states))
        return states

    torch.manual_seed(0)
    output = added(torch.ones(100, 1, 1), spy, 0.6)
    assert seen == [int((output != 1).sum())]
    assert 20 < seen[0] < 60


def test_a_batch_of_dropped_samples_still_gives_every_parameter_a_gradient():
    layer = nn.Linear(4, 4)
    states = torch.randn(2, 3, 4, requires_grad=True)
    torch.manual_seed(0)
    output = added(states, layer, 0.999999)
    assert torch.equal(output, states)
    output.sum().backward()
    assert torch.equal(layer.weight.grad, torch.zeros(4, 4))  # distributed training waits for it
    assert torch.equal(states.grad, torch.ones(2, 3, 4))


def test_the_compiled_form_draws_the_same_samples():
    states = torch.randn(32, 2, 4)
    torch.manual_seed(3)
    expected = added(states, branch, 0.4)
    compiled = torch.compile(added, fullgraph=True, backend="aot_eager")
    torch.manual_seed(3)
    torch.testing.assert_close(compiled(states, branch, 0.4), expected)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_a_layer_whose_samples_are_all_dropped_passes_them_on(implementation, tiny):
    """Attention implementations fail on a batch of no samples."""
    config = tiny(drop_path_rate=0.5, attn_implementation=implementation)
    layer = vithub.HubViTModel(config).layers[1].train()
    states = torch.randn(2, 5, config.hidden_size, requires_grad=True)
    nobody = KeptSamples(torch.zeros(2, dtype=torch.bool), torch.zeros(0, dtype=torch.int64))
    result, _ = layer(states, kept_samples=(nobody, nobody))
    assert torch.equal(result, states)
    result.sum().backward()
    assert torch.equal(states.grad, torch.ones_like(states))
    assert all(not parameter.grad.any() for parameter in layer.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(states, kept_samples=(nobody, nobody))[0].dtype == states.dtype
