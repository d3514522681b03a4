"""What is compiled and in which memory format convolutions are, by recipe, model and device."""

import pytest
import torch
from torch import nn
from vithub.training.loop.checkpoints import restore, save_checkpoint
from vithub.training.recipe.recipe import Recipe
from vithub.training.tasks.compilation import (
    channels_last,
    compilation,
    compile_layers,
    put_channels_last,
    undo_compilation,
)

import vithub

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def chosen(model, device, **values):
    return compilation(Recipe().with_values({name.replace("__", "."): v for name, v in values.items()}), model, device)


def test_auto_compiles_our_classifiers_on_cuda_layer_by_layer(tiny, tiny_detr):
    vit, other = vithub.HubViTForImageClassification(tiny(drop_path_rate=0.1)), nn.Linear(2, 2)
    assert (chosen(vit, CUDA), chosen(vit, CPU), chosen(other, CUDA)) == ("layers", "no", "no")
    assert chosen(vithub.HubViTForImageClassification(tiny(hidden_dropout_prob=0.1)), CUDA) == "no"
    assert chosen(vithub.HubDetrForObjectDetection(tiny_detr()), CUDA) == "no"
    assert chosen(vit, CUDA, lora__rank=2) == chosen(vit, CUDA, model__activation_checkpointing=True) == "no"
    assert chosen(vit, CUDA, model__compile=False) == "no"
    assert (chosen(vit, CPU, model__compile=True), chosen(other, CPU, model__compile=True)) == ("layers", "whole")


def test_compiling_the_layers_is_undone_without_a_trace(tiny):
    model = vithub.HubViTForImageClassification(tiny())
    before = [set(vars(module)) for module in model.modules()]
    compile_layers(model)
    assert [set(vars(module)) for module in model.modules()] != before
    undo_compilation(model)
    assert [set(vars(module)) for module in model.modules()] == before
    assert model(torch.zeros(1, 3, 32, 32)).logits.shape == (1, 5)


def test_convolutions_have_channels_last_on_cuda_or_if_asked_for(tiny, tiny_detr):
    detector, vit = vithub.HubDetrForObjectDetection(tiny_detr()), vithub.HubViTForImageClassification(tiny())
    recipe = Recipe()
    assert channels_last(recipe, detector, CUDA)
    assert not channels_last(recipe, detector, CPU)
    assert not channels_last(recipe, vit, CUDA)  # its patches have no layer of convolution
    assert channels_last(recipe.with_values({"training.channels_last": True}), detector, CPU)
    assert not channels_last(recipe.with_values({"training.channels_last": False}), detector, CUDA)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_a_checkpoint_goes_on_in_the_memory_format_of_the_parameters(tmp_path, device):
    def stepped(optimizer):
        model(torch.rand(2, 3, 8, 8, device=device)).sum().backward()
        optimizer.step()
        return optimizer

    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3)).to(device)
    put_channels_last(model)
    checkpoint = save_checkpoint(tmp_path, 1, model, stepped(torch.optim.AdamW(model.parameters(), fused=True)), {}, 1)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    restore(checkpoint, model, optimizer)
    for parameter, expected in zip(model.parameters(), before, strict=True):
        assert torch.equal(parameter, expected)
        assert optimizer.state[parameter]["exp_avg"].stride() == parameter.stride()
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)
    stepped(optimizer)
