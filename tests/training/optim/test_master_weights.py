"""bf16 throughout over fp32 master weights: the bf16 model's own gradients, and runs that repeat and resume."""

import copy

import pytest
import torch
from safetensors.torch import load_file
from transformers import ResNetConfig, ResNetForImageClassification, ViTImageProcessor
from vithub.training.optim.master_weights import MasterWeights
from vithub.training.recipe.presets import preset
from vithub.training.recipe.recipe import RecipeError

import vithub

FIELDS = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2, "initializer_range": 0.1}
VALUES = {
    "model.fields": FIELDS | {"drop_path_rate": 0.2},
    "training.precision": "bf16",
    "training.master_weights": True,
    "training.max_steps": 6,
    "training.batch_size": 8,
    "training.accumulation": 2,
    "training.clip_norm": 0.5,
    "training.ema_decay": 0.9,
    "augmentation.mixup": 0.8,
}


@pytest.fixture(scope="module")
def whole(train, tmp_path_factory):
    return train(tmp_path_factory.mktemp("runs") / "whole", VALUES)


def same_weights(one, other):
    files = [load_file(run.folder / "model.safetensors") for run in (one, other)]
    return files[0].keys() == files[1].keys() and all(torch.equal(files[0][name], files[1][name]) for name in files[0])


# dynamo reads `.grad` of the casts and hides torch's warning, which comes all the same where warnings are errors
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "layers compiled"])
@pytest.mark.parametrize("positions", ["learned", "sincos"])
def test_states_and_gradients_are_those_of_the_model_in_bf16(tiny, randomised, positions, compiled):
    config = tiny(vithub.HubDeiTConfig, position_embedding_type=positions, layer_scale_init_value=0.1)
    model = randomised(vithub.HubDeiTForImageClassification(config)).train()
    model.deit.embeddings.cls_token.requires_grad_(False)
    half = copy.deepcopy(model).bfloat16()
    pixels = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    if compiled:
        for layer in model.deit.layers:
            layer.compile(backend="aot_eager")
    ours, theirs = (module(pixels).logits for module in (MasterWeights(model), half))
    assert ours.dtype == torch.bfloat16
    assert torch.equal(ours, theirs)
    for logits in (ours, theirs):
        logits.float().square().mean().backward()
    reference = dict(half.named_parameters())
    for name, parameter in model.named_parameters():
        assert parameter.dtype == torch.float32
        if reference[name].grad is None:
            assert parameter.grad is None, name
        else:
            assert torch.equal(parameter.grad, reference[name].grad.float()), name
    torch.compiler.reset()


def test_gradients_of_pieces_add_up_in_fp32(tiny, randomised):
    model = randomised(vithub.HubViTForImageClassification(tiny(vithub.HubViTConfig)))
    pixels = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    compute, apart = MasterWeights(model), []
    for piece in pixels.split(2):
        compute(piece).logits.float().sum().backward()
        apart.append(model.classifier.weight.grad.clone())
    model.zero_grad()
    single = []
    for piece in pixels.split(2):
        model.zero_grad()
        compute(piece).logits.float().sum().backward()
        single.append(model.classifier.weight.grad.clone())
    assert torch.equal(apart[-1], (single[0] + single[1]) + single[2])


def test_a_run_learns_as_one_in_fp32_and_computes_otherwise_than_autocast(train, tmp_path, whole):
    exact = train(tmp_path / "exact", VALUES | {"training.precision": "fp32", "training.master_weights": False})
    cast = train(tmp_path / "cast", VALUES | {"training.master_weights": False})
    assert whole.losses != cast.losses
    assert whole.losses == pytest.approx(exact.losses, rel=0.02)
    assert whole.metrics["precision"] == "bf16"
    weights = load_file(whole.folder / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}


def test_the_trainer_and_a_resumed_run_give_the_same_bits(train, listener, tmp_path, whole):
    trainer = train(tmp_path / "trainer", VALUES, front_end="trainer")
    assert trainer.losses == whole.losses
    assert same_weights(trainer, whole)
    values = VALUES | {"training.checkpoint_steps": 3}
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", values, reporter=listener(4))
    resumed = train(tmp_path / "run", values, resume=True)
    assert resumed.losses == whole.losses[3:]
    assert same_weights(resumed, whole)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"training.precision": "fp32"}, "training.precision must be bf16 or auto, got fp32"),
        ({"training.precision": "bf16", "model.activation_checkpointing": True}, "model.activation_checkpointing"),
    ],
)
def test_what_it_does_not_go_with_is_refused(values, message):
    with pytest.raises(RecipeError, match=message):
        preset("digits").with_values({"training.master_weights": True, **values})


def test_models_of_other_libraries_are_refused_by_name(train, tmp_path):
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type="basic")
    ResNetForImageClassification(config).save_pretrained(tmp_path / "theirs")
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "theirs")
    values = {"model.source": str(tmp_path / "theirs"), "model.fields": {}, "training.precision": "bf16"}
    with pytest.raises(RecipeError, match="ViT and DeiT models of this package, got ResNetForImageClassification"):
        train(tmp_path / "run", values | {"training.master_weights": True})
