"""What every model of transformers must do, for each of ours."""

import copy
import textwrap

import processes
import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModel
from vithub.modeling.rotary_positions import rotary_angles

import vithub
from vithub import (
    HubDeiTConfig,
    HubDeiTForImageClassification,
    HubDeiTModel,
    HubViTConfig,
    HubViTForImageClassification,
    HubViTForMaskedImageModeling,
    HubViTModel,
)

CASES = {
    "vit": (HubViTModel, HubViTConfig, {}),
    "vit-classifier": (HubViTForImageClassification, HubViTConfig, {}),
    "vit-mim": (HubViTForMaskedImageModeling, HubViTConfig, {}),
    "deit": (HubDeiTModel, HubDeiTConfig, {}),
    "deit-classifier": (HubDeiTForImageClassification, HubDeiTConfig, {}),
    "vit-dinov2": (
        HubViTForImageClassification, HubViTConfig,
        {"num_register_tokens": 2, "layer_scale_init_value": 0.1, "use_swiglu_ffn": True, "pool": "cls+mean",
         "intermediate_size": 48},
    ),
    "vit-clip": (
        HubViTForImageClassification, HubViTConfig,
        {"embedding_norm": True, "patch_bias": False, "hidden_act": "quick_gelu", "position_embedding_prefix": False},
    ),
    "vit-gap": (
        HubViTForImageClassification, HubViTConfig,
        {"use_cls_token": False, "pool": "mean", "norm_after_pool": True, "qkv_bias": False,
         "position_embedding_type": "sincos"},
    ),
    "vit-dinov3": (
        HubViTForImageClassification, HubViTConfig,
        {"position_embedding_type": "rotary", "key_bias": False, "num_register_tokens": 2, "use_swiglu_ffn": True,
         "layer_scale_init_value": 0.1, "qk_norm": True, "rotary_shift": 0.1, "rotary_jitter": 1.5,
         "rotary_rescale": 2.0},
    ),
    "vit-siglip": (
        HubViTForImageClassification, HubViTConfig,
        {"use_cls_token": False, "pool": "map", "hidden_act": "gelu_pytorch_tanh"},
    ),
    "vit-rectangle": (HubViTForImageClassification, HubViTConfig, {"image_size": (24, 20), "patch_size": (6, 4)}),
    "deit-registers": (HubDeiTForImageClassification, HubDeiTConfig, {"num_register_tokens": 3}),
    "deit-one-head": (HubDeiTForImageClassification, HubDeiTConfig, {"use_distillation_head": False}),
}  # fmt: skip


@pytest.fixture(params=CASES, name="case")
def case_(request, tiny):
    model_class, config_class, fields = CASES[request.param]
    return model_class, tiny(config_class, **fields)


def pixels_for(config, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, config.num_channels, *config.image_hw, generator=generator)


def inputs_for(model, batch=2):
    config = model.config
    inputs = {"pixel_values": pixels_for(config, batch)}
    if hasattr(model, "decoder"):
        inputs["bool_masked_pos"] = (
            torch.arange(batch * config.grid_size[0] * config.grid_size[1]).view(batch, -1) % 3 == 0
        )
    elif hasattr(model, "classifier"):
        inputs["labels"] = torch.arange(batch) % config.num_labels
    return inputs


def result(outputs):
    return next(outputs[k] for k in ("logits", "reconstruction", "last_hidden_state") if outputs.get(k) is not None)


def test_every_public_model_is_tested_here():
    public = {getattr(vithub, name) for name in vithub.__all__ if "Model" in name or "For" in name}
    detectors = {vithub.HubDetrModel, vithub.HubDetrForObjectDetection}  # in test_modeling_detr.py
    assert public == {model_class for model_class, _, _ in CASES.values()} | detectors


def test_initial_weights_are_finite_varied_and_scaled(case):
    model_class, config = case
    torch.manual_seed(0)
    model = model_class(config)
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter).all(), name
        if name.endswith("bias") or "mask_token" in name:
            assert (parameter == 0).all(), name
        elif "norm" in name:
            assert (parameter == 1).all(), name
        elif "layer_scale" in name:
            assert torch.equal(parameter, torch.full_like(parameter, config.layer_scale_init_value)), name
        else:
            fan_in = config.num_channels * config.patch_hw[0] * config.patch_hw[1]
            wanted = fan_in**-0.5 if "patch_embeddings" in name else config.initializer_range
            assert parameter.std().item() == pytest.approx(wanted, rel=0.5), name


def test_the_seed_decides_the_weights(case):
    model_class, config = case
    models = []
    for _ in range(2):
        torch.manual_seed(7)
        models.append(model_class(config))
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(one, other)


def test_saved_and_loaded_models_are_equal_to_the_bit(case, randomised, tmp_path):
    model_class, config = case
    model = randomised(model_class(config))
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").is_file()
    assert not list(tmp_path.glob("*.bin"))
    loaded, info = model_class.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    assert not loaded.training
    for (name, one), other in zip(model.state_dict().items(), loaded.state_dict().values(), strict=True):
        assert torch.equal(one, other), name
    inputs = inputs_for(model)
    assert torch.equal(result(loaded(**inputs)), result(model(**inputs)))


def test_models_load_through_the_meta_device(case, randomised, tmp_path):
    model_class, config = case
    model = randomised(model_class(config))
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    loaded = model_class.from_pretrained(tmp_path, device_map={"": "cpu"})
    assert torch.equal(result(loaded(**inputs_for(model))), result(model(**inputs_for(model))))


def test_missing_weights_are_initialised_as_in_a_new_model(case, tmp_path):
    model_class, config = case
    model = model_class(config)
    state = {k: v for k, v in model.state_dict().items() if "layernorm_before" not in k and "position" not in k}
    model.save_pretrained(tmp_path, state_dict=state)
    loaded = model_class.from_pretrained(tmp_path)
    positions = loaded.base_model.embeddings.position_embeddings
    assert (positions is None) == (config.position_embedding_type == "rotary")
    if positions is not None:
        assert torch.isfinite(positions).all()
        assert 0 < positions.std() <= 1
    assert (loaded.base_model.layers[1].layernorm_before.weight == 1).all()


def test_the_bare_encoder_loads_from_any_folder_and_computes_the_same(case, randomised, tmp_path, caplog):
    model_class, config = case
    model = randomised(model_class(config))
    model.save_pretrained(tmp_path)
    logger = transformers.utils.logging.get_logger()
    logger.addHandler(caplog.handler)
    encoder = AutoModel.from_pretrained(tmp_path)
    logger.removeHandler(caplog.handler)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    pixels = pixels_for(config)
    assert torch.equal(encoder(pixels).last_hidden_state, model.base_model(pixels).last_hidden_state)


def test_hidden_states_and_maps_have_the_right_shapes(case):
    model_class, config = case
    model = model_class(config).eval()
    outputs = model(pixels_for(config), output_hidden_states=True, output_attentions=True)
    tokens = model.config.num_prefix_tokens + config.grid_size[0] * config.grid_size[1]
    assert [tuple(h.shape) for h in outputs.hidden_states] == [(2, tokens, config.hidden_size)] * 3
    assert [tuple(a.shape) for a in outputs.attentions] == [(2, config.num_attention_heads, tokens, tokens)] * 2
    embeddings = model.base_model.embeddings(pixels_for(config))
    assert torch.equal(outputs.hidden_states[0], embeddings)
    turned = config.position_embedding_type == "rotary"
    rotary = rotary_angles(config, *config.grid_size, embeddings.device, False) if turned else None
    torch.testing.assert_close(outputs.hidden_states[1], model.base_model.layers[0](embeddings, rotary=rotary)[0])


def test_outputs_can_be_a_tuple(case):
    model_class, config = case
    model = model_class(config).eval()
    inputs = inputs_for(model)
    named, plain = model(**inputs), model(**inputs, return_dict=False)
    assert isinstance(plain, tuple)
    for one, other in zip(named.to_tuple(), plain, strict=True):
        assert torch.equal(one, other)


def test_a_batch_is_its_images_one_by_one(case, randomised):
    model_class, config = case
    model = randomised(model_class(config))
    pixels = pixels_for(config, batch=3)
    together = result(model(pixels))
    for i in range(3):
        torch.testing.assert_close(result(model(pixels[i : i + 1]))[0], together[i], atol=1e-5, rtol=1e-5)


def test_training_reaches_every_parameter(case, randomised):
    model_class, config = case
    model = randomised(model_class(config)).train()
    outputs = model(**inputs_for(model))
    loss = outputs.loss if "loss" in outputs else outputs.pooler_output.pow(2).sum() + outputs.last_hidden_state.sum()
    loss.backward()
    untouched = [n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert [name for name in untouched if "k_proj.bias" not in name] == []  # softmax does not see a key bias


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_gradient_checkpointing_changes_nothing(case, randomised, rate):
    model_class, config = case
    config.drop_path_rate = rate
    model = randomised(model_class(config)).train()
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model.activation_checkpointing_enable()
        model.zero_grad()
        torch.manual_seed(11)
        outputs = model(**inputs_for(model))
        result(outputs).pow(2).sum().backward()
        gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name in gradients[0]:
        assert torch.equal(gradients[0][name], gradients[1][name]), name


def test_the_kind_of_attention_does_not_change_the_result(case, randomised):
    model_class, config = case
    model = randomised(model_class(config))
    inputs = inputs_for(model)
    outputs = {}
    for attention in ("eager", "sdpa"):
        model.set_attn_implementation(attention)
        outputs[attention] = result(model(**inputs))
    torch.testing.assert_close(outputs["eager"], outputs["sdpa"], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_close(case, randomised, tmp_path, dtype):
    model_class, config = case
    model = randomised(model_class(config))
    model.save_pretrained(tmp_path)
    half = model_class.from_pretrained(tmp_path, dtype=dtype)
    assert half.dtype == dtype
    output = result(half(pixels_for(config)))  # fp32 pixels are cast
    assert output.dtype == dtype
    torch.testing.assert_close(output.float(), result(model(pixels_for(config))), atol=0.06, rtol=0.06)


def test_any_size_of_whole_patches_works(case, randomised):
    model_class, config = case
    model = randomised(model_class(config))
    (rows, columns), (height, width) = config.grid_size, config.patch_hw
    pixels = torch.randn(1, config.num_channels, (rows + 1) * height, (columns - 1) * width)
    output = model.base_model(pixels).last_hidden_state
    assert output.shape[1] == model.config.num_prefix_tokens + (rows + 1) * (columns - 1)
    assert torch.isfinite(result(model(pixels))).all()
    with pytest.raises(ValueError, match=rf"{height} x {width}, got {height + 1} x {width}"):
        model(pixels[:, :, : height + 1, :width])
    with pytest.raises(ValueError, match=r"batch, 3, height, width.*\(1, 2, "):
        model(pixels[:, :2])
    with pytest.raises(ValueError, match="forbids resampling"):
        model(pixels, interpolate_pos_encoding=False)


def test_another_size_is_resampled_once_and_saved(case, randomised, tmp_path):
    model_class, config = case
    model = randomised(model_class(config))
    model.save_pretrained(tmp_path / "old")
    (rows, columns), (height, width) = config.grid_size, config.patch_hw
    size = ((rows + 2) * height, (columns + 1) * width)
    pixels = torch.randn(1, config.num_channels, *size)
    resized, info = model_class.from_pretrained(tmp_path / "old", image_size=size, output_loading_info=True)
    assert not any(info.values())
    assert resized.config.image_size == size
    torch.testing.assert_close(result(resized(pixels)), result(model(pixels)), atol=1e-5, rtol=1e-5)
    resized.save_pretrained(tmp_path / "new")
    reloaded = model_class.from_pretrained(tmp_path / "new")
    assert reloaded.config.image_hw == size
    assert torch.equal(result(reloaded(pixels)), result(resized(pixels)))
    through_auto = AutoModel.from_pretrained(tmp_path / "old", image_size=list(size))
    torch.testing.assert_close(
        through_auto(pixels).last_hidden_state, model.base_model(pixels).last_hidden_state, atol=1e-5, rtol=1e-5
    )


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")  # raised inside torch's compiler
def test_models_compile_whole(case, randomised):
    model_class, config = case
    model = randomised(model_class(config))
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    pixels = pixels_for(config)
    with torch.no_grad():
        torch.testing.assert_close(result(compiled(pixels)), result(model(pixels)), atol=1e-5, rtol=1e-5)
        maps = compiled(pixels, output_attentions=True).attentions
    assert len(maps) == 2
    torch.testing.assert_close(maps[1], model(pixels, output_attentions=True).attentions[1], atol=1e-5, rtol=1e-5)


def test_models_export_with_any_batch_size(case, randomised):
    model_class, config = case
    model = randomised(model_class(config))
    batch = torch.export.Dim("batch", min=1, max=64)
    exported = torch.export.export(model, (pixels_for(config),), dynamic_shapes={"pixel_values": {0: batch}})
    pixels = pixels_for(config, batch=5, seed=1)
    torch.testing.assert_close(result(exported.module()(pixels)), result(model(pixels)), atol=1e-5, rtol=1e-5)


def test_models_can_be_copied(case, randomised):
    model_class, config = case
    model = randomised(model_class(config))
    copied = copy.deepcopy(model)
    assert torch.equal(result(copied(pixels_for(config))), result(model(pixels_for(config))))


def test_the_tensor_parallel_plan_lists_every_linear_layer_of_the_encoder_and_nothing_else(case):
    model_class, config = case
    base = model_class(config).base_model
    linear = {name for name, module in base.layers.named_modules(prefix="layers") if isinstance(module, nn.Linear)}
    planned = {
        name.replace("*", str(layer)) for name in config.base_model_tp_plan for layer in range(config.num_hidden_layers)
    }
    assert planned == linear


@pytest.mark.parametrize("name", ["vit-classifier", "vit-dinov2"])
def test_two_processes_share_the_work_of_one(name, tiny, randomised, tmp_path):
    model_class, config_class, fields = CASES[name]
    config = tiny(config_class, **fields)
    model = randomised(model_class(config))
    model.save_pretrained(tmp_path)
    script = textwrap.dedent(f"""
        import os, torch, vithub
        from safetensors.torch import save_file
        model = vithub.{model_class.__name__}.from_pretrained({str(tmp_path)!r}, tp_plan="auto")
        assert model.{model_class.base_model_prefix}.layers[0].attention.q_proj.weight.to_local().shape[0] == 16
        pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            logits = model(pixels).logits
        if torch.distributed.get_rank() == 0:
            save_file({{"logits": logits.clone()}}, {str(tmp_path / "logits")!r})
        torch.distributed.barrier()  # neither leaves while the other still talks to it
        torch.distributed.destroy_process_group()
        os._exit(0)  # on a busy machine torch's threads may outlive the interpreter and abort it
    """)
    done = processes.launch(script)
    assert done.returncode == 0, done.stderr[-3000:]
    expected = model(pixels_for(config)).logits
    torch.testing.assert_close(load_file(tmp_path / "logits")["logits"], expected, atol=1e-5, rtol=1e-5)
