"""Normalisations with fixed statistics in training: torch's numbers to the bit, and none of their input kept."""

import pytest
import torch
from torch import nn
from vithub.modeling import detr_backbone
from vithub.modeling.detr_backbone import batch_norms
from vithub.modeling.fixed_batch_norm import FixedBatchNorms

import vithub

LITE = {"model_type": "timm_backbone", "backbone": "tf_efficientnet_lite0", "out_indices": [3]}
BACKBONES = {"transformers": None, "timm": LITE}


def kept_bytes(compute, own):
    """Bytes that autograd keeps of `compute()`, each storage once, without the storages of the tensors `own`."""
    left_out, found, alive = {tensor.untyped_storage().data_ptr() for tensor in own}, {}, []

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in left_out:
            found[storage.data_ptr()] = storage.nbytes()
            alive.append(storage)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = compute()
    return sum(found.values()), result


@pytest.mark.parametrize("weights", [True, False])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_both_passes_are_torchs_to_the_bit_and_keep_nothing_of_the_input(weights, layout, dtype):
    generator = torch.Generator().manual_seed(0)
    norm = nn.BatchNorm2d(6, affine=weights, eps=1e-3).eval().requires_grad_(False)
    for tensor in norm.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    images = torch.randn(3, 6, 9, 11, generator=generator).to(dtype, memory_format=layout)
    upstream = torch.randn(3, 6, 9, 11, generator=generator).to(dtype, memory_format=layout)
    results = []
    for fixed in (False, True):
        leaf = images.clone().requires_grad_()
        context = FixedBatchNorms() if fixed else torch.enable_grad()
        with context:
            kept, output = kept_bytes(lambda leaf=leaf: norm(leaf), norm.state_dict().values())
        results.append((output, torch.autograd.grad(output, leaf, upstream)[0]))
        assert (kept >= leaf.nbytes) is not fixed
        assert kept == 0 or not fixed
    for plain, lean in zip(*results, strict=True):
        assert torch.equal(plain, lean)
        assert plain.stride() == lean.stride()


def test_the_second_derivative_is_torchs():
    norm = nn.BatchNorm2d(3).double().eval().requires_grad_(False)
    norm.running_var.uniform_(0.5, 2)
    leaf = torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)

    def compute(images):
        with FixedBatchNorms():
            return norm(images).tanh()

    assert torch.autograd.gradcheck(compute, leaf)
    assert torch.autograd.gradgradcheck(compute, leaf)


@pytest.mark.parametrize("case", ["weights learn", "statistics move", "nothing learns"])
def test_every_other_normalisation_is_left_to_torch(case):
    norm = nn.BatchNorm1d(4).train(case == "statistics move").requires_grad_(case == "weights learn")
    leaf = torch.randn(5, 4, requires_grad=case != "nothing learns")
    with FixedBatchNorms():
        output = norm(leaf)
    name = type(output.grad_fn).__name__
    assert name == {"nothing learns": "NoneType"}.get(case, "NativeBatchNormBackward0")
    assert (norm.num_batches_tracked == 1) == (case == "statistics move")


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_training_step_is_the_same_to_the_bit_and_keeps_less(backbone, tiny_detr, monkeypatch):
    config = tiny_detr(backbone_config=BACKBONES[backbone]) if BACKBONES[backbone] else tiny_detr()
    torch.manual_seed(0)
    model = vithub.HubDetrForObjectDetection(config).train()
    for norm in batch_norms(model):
        norm.running_mean.normal_(std=0.1)
    own = [*model.parameters(), *model.buffers()]
    pixels = torch.randn(2, 3, 64, 96)
    labels = [{"class_labels": torch.tensor([1]), "boxes": torch.tensor([[0.5, 0.5, 0.25, 0.5]])}] * 2

    def step():
        model.zero_grad()
        torch.manual_seed(1)  # dropout
        kept, outputs = kept_bytes(lambda: model(pixels, labels=labels), own)
        outputs.loss.backward()
        gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        return kept, outputs.loss.detach(), gradients

    kept, loss, gradients = step()
    monkeypatch.setattr(detr_backbone, "FixedBatchNorms", torch.enable_grad)
    more, same, expected = step()
    assert torch.equal(loss, same)
    assert gradients.keys() == expected.keys()
    assert all(torch.equal(gradients[name], expected[name]) for name in expected)
    trained = sum(norm.weight.numel() for norm in batch_norms(model))
    assert trained
    assert kept < more


def test_layers_that_are_computed_again_keep_what_they_kept(tiny_detr):
    model = vithub.HubDetrForObjectDetection(tiny_detr(dropout=0.0, attention_dropout=0.0, activation_dropout=0.0))
    model.train()
    assert isinstance(model.detr.backbone._saving(), FixedBatchNorms)
    model.detr.backbone.model.encoder.gradient_checkpointing = True
    assert not isinstance(model.detr.backbone._saving(), FixedBatchNorms)
    model.detr.backbone.model.encoder.gradient_checkpointing = False
    assert not isinstance(model.eval().detr.backbone._saving(), FixedBatchNorms)
