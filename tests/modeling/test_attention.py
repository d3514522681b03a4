import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from vithub.modeling.attention import HubViTAttention, eager_attention, product_attention, products_are_faster

from vithub import HubViTForImageClassification, HubViTModel

BACKENDS = ["eager", "sdpa", "flex_attention"]


def torch_reference(attention: HubViTAttention, hidden_states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The same layer as torch's own multi-head attention."""
    width, heads = hidden_states.shape[-1], attention.config.num_attention_heads
    reference = nn.MultiheadAttention(width, heads, batch_first=True)
    projections = attention.q_proj, attention.k_proj, attention.v_proj
    with torch.no_grad():
        reference.in_proj_weight.copy_(torch.cat([p.weight for p in projections]))
        reference.in_proj_bias.copy_(torch.cat([p.bias for p in projections]))
        reference.out_proj.load_state_dict(attention.o_proj.state_dict())
    return reference(hidden_states, hidden_states, hidden_states, average_attn_weights=False)


@pytest.mark.parametrize("backend", ["eager", "sdpa"])
def test_attention_is_that_of_torch(tiny, randomised, backend):
    attention = randomised(HubViTAttention(tiny(attn_implementation=backend)))
    states = torch.randn(3, 7, 32)
    output, weights = attention(states, output_attentions=True)
    plain, _ = attention(states)
    expected, expected_weights = torch_reference(attention, states)
    torch.testing.assert_close(output, expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(plain, expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(weights, expected_weights, atol=1e-6, rtol=1e-5)


@given(
    batch=st.integers(0, 3), heads=st.integers(1, 3), tokens=st.integers(1, 9), width=st.integers(1, 6),
    scaling=st.floats(0.1, 2.0),
)  # fmt: skip
def test_product_attention_is_eager_attention(batch, heads, tokens, width, scaling):
    query, key, value = torch.randn(3, batch, heads, tokens, width, dtype=torch.float64)
    got = product_attention(query, key, value, scaling, dropout=0.0)
    # eager_attention's softmax is in fp32, so its own weights are recomputed here in fp64
    weights = (query @ key.transpose(-1, -2) * scaling).softmax(-1)
    torch.testing.assert_close(got, (weights @ value).transpose(1, 2))
    eager, _ = eager_attention(nn.Identity(), query.float(), key.float(), value.float(), None, scaling)
    torch.testing.assert_close(got.float(), eager, atol=1e-5, rtol=1e-4)


def test_bf16_on_a_cpu_takes_the_products_in_training_and_agrees_with_sdpa(tiny, randomised):
    model = randomised(HubViTForImageClassification(tiny())).to(torch.bfloat16)
    pixels = torch.randn(2, 3, 32, 32)
    query = torch.randn(1, 1, 4, 8, dtype=torch.bfloat16, requires_grad=True)
    assert products_are_faster(query)
    assert not products_are_faster(query.float())
    assert not products_are_faster(torch.empty(64, 64, 1024, 8, dtype=torch.bfloat16, requires_grad=True))
    logits = model(pixels).logits  # learning: products
    with torch.no_grad():
        model.set_attn_implementation("eager")
        torch.testing.assert_close(model(pixels).logits, logits, atol=0.02, rtol=0.02)


# raised inside torch when it traces flex attention
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("mode", ["eval", "train"])
@torch.no_grad()  # on a CPU flex attention has no backward pass
def test_maps_are_right_under_every_backend_and_leave_it_alone(tiny, randomised, backend, mode):
    model = randomised(HubViTModel(tiny(num_register_tokens=2)))
    model.set_attn_implementation("eager")
    pixels = torch.randn(2, 3, 32, 24)
    expected = model(pixels, output_attentions=True)
    model.set_attn_implementation(backend)
    model.train(mode == "train")
    got = model(pixels, output_attentions=True)
    with torch.compiler.set_stance("force_eager"):  # to generate flex attention's code takes most of a minute
        plain = model(pixels)
    assert model.config._attn_implementation == backend
    assert len(got.attentions) == 2
    for weights, expected_weights in zip(got.attentions, expected.attentions, strict=True):
        assert weights.shape == (2, 4, 1 + 2 + 12, 1 + 2 + 12)
        torch.testing.assert_close(weights, expected_weights, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 15), atol=1e-6, rtol=0)
    torch.testing.assert_close(got.last_hidden_state, expected.last_hidden_state, atol=1e-5, rtol=1e-5)
    assert plain.attentions is None
    torch.testing.assert_close(plain.last_hidden_state, expected.last_hidden_state, atol=1e-5, rtol=1e-5)


def test_maps_can_be_asked_for_in_the_configuration(tiny):
    config = tiny(output_attentions=True, output_hidden_states=True)
    output = HubViTForImageClassification(config).eval()(torch.randn(1, 3, 32, 32))
    assert len(output.attentions) == 2
    assert len(output.hidden_states) == 3


def test_maps_are_whole_with_stochastic_depth(tiny):
    model = HubViTModel(tiny(drop_path_rate=0.9, drop_path_schedule="uniform")).train()
    maps = model(torch.randn(6, 3, 32, 32), output_attentions=True).attentions
    assert [tuple(weights.shape) for weights in maps] == [(6, 4, 17, 17)] * 2


def test_maps_can_be_differentiated(tiny, randomised):
    model = randomised(HubViTForImageClassification(tiny()))
    output = model(torch.randn(1, 3, 32, 32), output_attentions=True)
    gradients = torch.autograd.grad(output.logits[0, 0], output.attentions)
    assert all(gradient.abs().sum() > 0 for gradient in gradients)


def test_attention_dropout_acts_in_training_only(tiny):
    model = HubViTModel(tiny(attention_probs_dropout_prob=0.5)).eval()
    pixels = torch.randn(1, 3, 32, 32)
    assert torch.equal(model(pixels).last_hidden_state, model(pixels).last_hidden_state)
    model.train()
    assert not torch.equal(model(pixels).last_hidden_state, model(pixels).last_hidden_state)
