"""What transformers asks of every model class, for each public one: states, devices, gradients, attention."""

import copy
import inspect
import io

import pytest
import torch
from torch import nn
from transformers import AutoModel, DetrConfig, DetrModel, PreTrainedModel

import vithub

VIT, DEIT = vithub.HubViTConfig, vithub.HubDeiTConfig
SMALL_DATA = {"anchor_queries": True, "denoising_queries": 8, "focal_loss": True}
BACKBONE = {"model_type": "vithub_vit", "hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1,
            "intermediate_size": 32, "image_size": 32, "patch_size": 8}  # fmt: skip
CASES = {
    "vit": (vithub.HubViTModel, VIT, {}),
    "vit-classifier": (vithub.HubViTForImageClassification, VIT, {"position_embedding_type": "sincos"}),
    "vit-mim": (vithub.HubViTForMaskedImageModeling, VIT, {}),
    "deit": (vithub.HubDeiTModel, DEIT, {}),
    "deit-classifier": (vithub.HubDeiTForImageClassification, DEIT, {}),
    "detr": (vithub.HubDetrModel, None, {}),
    "detector": (vithub.HubDetrForObjectDetection, None, {}),
    "detector-small-data": (vithub.HubDetrForObjectDetection, None, SMALL_DATA),
    "detector-vit": (vithub.HubDetrForObjectDetection, None, {"backbone_config": BACKBONE, "frozen_stages": 0}),
}


@pytest.fixture(params=CASES)
def model(request, tiny, tiny_detr, randomised):
    torch.manual_seed(0)
    model_class, config_class, fields = CASES[request.param]
    if config_class is None:
        config = tiny_detr(dropout=0.0, attention_dropout=0.0, activation_dropout=0.0, **copy.deepcopy(fields))
    else:
        config = tiny(config_class, **fields)
    return randomised(model_class(config))


def is_detector(model):
    return isinstance(model.config, vithub.HubDetrConfig)


def pixels_for(model, batch=2):
    size = (64, 96) if is_detector(model) else model.config.image_hw
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(1))


def tensors(outputs):
    """Every tensor of an output, in order."""
    if isinstance(outputs, torch.Tensor):
        return [outputs]
    values = outputs.values() if isinstance(outputs, dict) else outputs
    return [tensor for value in values if value is not None for tensor in tensors(value)]


def assert_same(model, other, atol=0.0):
    pixels = pixels_for(model)
    with torch.no_grad():
        pairs = zip(tensors(model(pixels)), tensors(other(pixels)), strict=True)
    for one, two in pairs:
        torch.testing.assert_close(one, two.to(one.dtype), atol=atol, rtol=atol)


def test_every_public_model_is_among_them():
    public = {getattr(vithub, name) for name in vithub.__all__ if "Model" in name or "For" in name}
    assert public == {model_class for model_class, _, _ in CASES.values()}


def test_models_of_the_tests_are_small(model):
    assert sum(parameter.numel() for parameter in model.parameters()) < 200_000


def test_weights_survive_files_memory_and_their_state(model, tmp_path):
    model.save_pretrained(tmp_path)
    assert not list(tmp_path.glob("*.bin"))
    assert not (tmp_path / "generation_config.json").exists()
    loaded, info = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    assert all(tensor.is_contiguous() for tensor in loaded.state_dict().values())
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    of_state = type(model).from_pretrained(None, config=model.config, state_dict=model.state_dict())
    for other in (loaded, torch.load(file, weights_only=False), of_state):
        assert not other.training
        assert other.state_dict().keys() == model.state_dict().keys()
        assert_same(model, other)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name for name, parameter in loaded.named_parameters() if parameter.requires_grad} == trained


def test_weights_and_buffers_that_a_file_lacks_start_as_in_a_new_model(model, tmp_path):
    new = type(model)(copy.deepcopy(model.config)).state_dict()
    kept = next(iter(new))
    model.save_pretrained(tmp_path, state_dict={kept: model.state_dict()[kept]})
    for name, tensor in type(model).from_pretrained(tmp_path).state_dict().items():
        assert torch.isfinite(tensor).all(), name
        wanted = new[name].float()
        if name != kept and (wanted.numel() < 2 or wanted.std() == 0):
            assert torch.equal(tensor.float(), wanted), name
        elif name != kept and wanted.numel() >= 32:
            assert tensor.float().std() == pytest.approx(wanted.std().item(), rel=0.5), name


def test_a_new_detector_starts_as_its_papers_say(tiny_detr):
    torch.manual_seed(0)
    detector = vithub.HubDetrForObjectDetection(tiny_detr(num_queries=100, **SMALL_DATA))
    attention = detector.detr.encoder.layers[0].self_attn
    # Xavier: of queries, keys and values as one matrix of 3 D rows, and of the output
    assert attention.q_proj.weight.std().item() == pytest.approx((2 / (4 * 32)) ** 0.5, rel=0.1)
    assert attention.o_proj.weight.std().item() == pytest.approx((2 / (2 * 32)) ** 0.5, rel=0.1)
    assert detector.detr.encoder.layers[0].mlp.fc1.weight.std().item() == pytest.approx((2 / 96) ** 0.5, rel=0.1)
    assert not attention.q_proj.bias.any()
    torch.testing.assert_close(detector.class_labels_classifier.bias.sigmoid(), torch.full((3,), 0.01))
    anchors = detector.detr.query_anchors.weight.sigmoid()
    torch.testing.assert_close(anchors[:, 2:], torch.full((100, 2), 0.1))
    cells = (anchors[:, :2] * 5).int()
    assert len({tuple(cell) for cell in cells.tolist()}) == 25  # spread evenly over the image
    assert not detector.detr.decoder.bbox_predictor.layers[-1].weight.any()
    cross = detector.detr.decoder.layers[0].encoder_attn
    assert torch.equal(cross.k_position_proj.weight, cross.q_position_proj.weight)


def test_a_base_and_a_head_load_from_each_others_folders(model, tmp_path):
    model.save_pretrained(tmp_path / "whole")
    base, info = AutoModel.from_pretrained(tmp_path / "whole", output_loading_info=True)
    assert not info["missing_keys"]
    assert type(base) is type(model.base_model)
    assert_same(model.base_model, base)
    model.base_model.save_pretrained(tmp_path / "base")
    again, info = type(model).from_pretrained(tmp_path / "base", output_loading_info=True)
    prefix = f"{model.base_model_prefix}."
    heads = (
        {name for name in model.state_dict() if not name.startswith(prefix)} if model.base_model is not model else {}
    )
    assert set(info["missing_keys"]) == set(heads)
    assert not info["unexpected_keys"]
    assert_same(model.base_model, again.base_model)


def test_the_default_device_and_the_meta_device_are_kept(model, tmp_path):
    model.save_pretrained(tmp_path)
    with torch.device("meta"):
        empty = type(model)(copy.deepcopy(model.config))
        with pytest.raises(RuntimeError, match="meta"):
            type(model).from_pretrained(tmp_path)
    assert all(tensor.is_meta for tensor in empty.state_dict().values())
    with torch.device("cpu"):
        assert_same(model, type(model).from_pretrained(tmp_path))
    assert_same(model, type(model).from_pretrained(tmp_path, device_map={"": "cpu"}))


def test_a_part_of_the_weights_can_stay_on_the_disk(model, tmp_path):
    model.save_pretrained(tmp_path / "model")
    parts = [name for name, part in model.base_model.named_children() if list(part.parameters())]
    prefix = "" if model.base_model is model else f"{model.base_model_prefix}."
    others = [name for name, _ in model.named_children() if model.base_model is not model and f"{name}." != prefix]
    places = dict.fromkeys([prefix + part for part in parts] + others, "cpu") | {prefix + parts[-1]: "disk"}
    loaded = type(model).from_pretrained(tmp_path / "model", device_map=places, offload_folder=tmp_path / "off")
    assert any(parameter.is_meta for parameter in loaded.parameters())
    assert_same(model, loaded)


def test_every_tensor_is_a_parameter_or_a_buffer(model):
    for name, module in model.named_modules():
        assert not [key for key, value in vars(module).items() if isinstance(value, torch.Tensor)], name


def test_the_first_argument_and_the_base_are_what_the_class_names(model):
    assert next(iter(inspect.signature(model.forward).parameters)) == model.main_input_name == "pixel_values"
    assert model.base_model is getattr(model, model.base_model_prefix, model)
    assert not model.can_generate()


def test_the_input_layer_can_be_replaced_and_there_is_no_output_layer(model, tiny_detr):
    assert model.get_output_embeddings() is None
    model.enable_input_require_grads()
    model.disable_input_require_grads()
    if is_detector(model):  # as in transformers' DETR: its input layer is the backbone's
        for detector in (model, DetrModel(DetrConfig(backbone_config=tiny_detr().backbone_config.to_dict()))):
            with pytest.raises(NotImplementedError):
                detector.get_input_embeddings()
        return
    assert model.get_input_embeddings() is model.base_model.embeddings.patch_embeddings
    other = copy.deepcopy(model.get_input_embeddings())
    nn.init.zeros_(other.weight)
    model.set_input_embeddings(other)
    assert model.base_model.embeddings.patch_embeddings is other
    pixels = pixels_for(model).requires_grad_()
    model.base_model(pixels).last_hidden_state.square().sum().backward()
    assert not pixels.grad.any()  # no pixel gets through


def test_the_same_pixels_give_the_same_answer_alone_and_in_a_batch_and_as_a_tuple(model):
    pixels = pixels_for(model, batch=3)
    if is_detector(model) and not model.config.anchor_queries:  # convolutions of another batch round otherwise
        model, pixels = model.double(), pixels.double()
    with torch.no_grad():
        named, again, plain = model(pixels), model(pixels), model(pixels, return_dict=False)
        alone = [tensors(model(pixels[image : image + 1])) for image in range(3)]
    assert isinstance(plain, tuple)
    for one, other, third in zip(tensors(named), tensors(again), tensors(plain), strict=True):
        assert torch.equal(one, other)
        assert torch.equal(one, third)
    for place, whole in enumerate(tensors(named)):
        parts = [outputs[place] for outputs in alone]
        axis = 0 if len(whole) == 3 else 1  # of each layer, where a detector stacks them
        torch.testing.assert_close(torch.cat(parts, dim=axis), whole, atol=1e-5, rtol=1e-5)


def test_gradients_of_hidden_states_and_maps_can_be_kept(model):
    outputs = model(pixels_for(model), output_hidden_states=True, output_attentions=True)
    names = ["hidden_states", "attentions"]
    if is_detector(model):
        names = ["encoder_hidden_states", "encoder_attentions", "cross_attentions"]
        names += [] if model.config.anchor_queries else ["decoder_attentions"]
    kept = {(name, layer): state for name in names for layer, state in enumerate(outputs[name])}
    if is_detector(model):  # the first are zeros, as in transformers
        kept |= {("decoder_hidden_states", place): outputs["decoder_hidden_states"][place] for place in (1,)}
    for state in kept.values():
        state.retain_grad()
    sum(tensor.pow(2).sum() for tensor in tensors(outputs) if tensor.requires_grad).backward()
    for name, state in kept.items():
        assert state.grad is not None, name
        assert state.grad.any(), name


@pytest.mark.parametrize("reentrant", [False, True])
def test_activations_computed_anew_change_no_gradient(model, reentrant):
    model.double().train()  # gradients are summed in another order, which rounds
    gradients = []
    for checkpointing in (False, True, False):
        if checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": reentrant})
        else:
            model.activation_checkpointing_disable()
        assert model.is_activation_checkpointing is checkpointing
        model.zero_grad()
        sum(tensor.pow(2).mean() for tensor in tensors(model(pixels_for(model).double()))).backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    for other in gradients[1:]:
        assert other.keys() == gradients[0].keys()
        for name, gradient in gradients[0].items():
            torch.testing.assert_close(other[name], gradient, atol=1e-9, rtol=1e-6)


def test_attention_is_chosen_when_made_when_loaded_and_later(model, tmp_path):
    model.save_pretrained(tmp_path)
    chosen = [
        type(model)._from_config(copy.deepcopy(model.config), attn_implementation="eager"),
        type(model).from_pretrained(tmp_path, attn_implementation="eager"),
        type(model).from_pretrained(tmp_path),
    ]
    chosen[2].set_attn_implementation("eager")
    chosen[0].load_state_dict(model.state_dict())
    model.set_attn_implementation("sdpa")
    for other in chosen:
        assert implementations(other) == {"eager"}
        assert_same(model, other.eval(), atol=1e-5)
    assert implementations(model) == {"sdpa"}


def implementations(model):
    """The implementations of all parts that have attention, a backbone of ours among them."""
    parts = [part for part in model.modules() if isinstance(part, PreTrainedModel)]
    return {part.config._attn_implementation for part in parts if type(part).__module__.startswith("vithub.")}


def test_parts_share_the_configuration_of_the_whole(model):
    for part in model.modules():
        if isinstance(part, PreTrainedModel) and type(part.config) is type(model.config):
            assert part.config is model.config
    if is_detector(model):
        assert model.base_model.backbone.model.config is model.config.backbone_config


def test_what_differs_from_the_defaults_makes_the_same_model(model):
    config = type(model.config)(**model.config.to_diff_dict())
    other = type(model)(config).eval()
    other.load_state_dict(model.state_dict())
    assert_same(model, other)


def test_the_old_name_of_the_type_of_weights_is_taken(model, tmp_path):
    model.save_pretrained(tmp_path)
    assert type(model).from_pretrained(tmp_path, torch_dtype=torch.bfloat16).dtype == torch.bfloat16


@pytest.mark.parametrize("model", [name for name in CASES if "class" in name or "detector" in name], indirect=True)
def test_another_number_of_labels_is_refused_or_starts_anew(model, tmp_path):
    model.save_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match="mismatch"):
        type(model).from_pretrained(tmp_path, num_labels=7)
    loaded = type(model).from_pretrained(tmp_path, num_labels=7, ignore_mismatched_sizes=True)
    assert loaded(pixels_for(model)).logits.shape[-1] in (7, 8)
    old = model.state_dict()
    for name, tensor in loaded.state_dict().items():
        if old[name].shape == tensor.shape:
            assert torch.equal(tensor, old[name]), name
        else:
            assert tensor.shape[0] in (7, 8, 9), name
            assert torch.isfinite(tensor).all(), name


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")  # raised inside torch's tracer
@pytest.mark.parametrize("option", ["detector", "detector-small-data"])
def test_detectors_export_and_compute_the_same(option, tiny_detr, randomised):
    torch.manual_seed(0)
    model = randomised(vithub.HubDetrForObjectDetection(tiny_detr(**CASES[option][2])))
    pixels = pixels_for(model)
    with torch.no_grad():
        exported = torch.export.export(model, (pixels,)).module()(pixels + 0.1)
        expected = model(pixels + 0.1)
    torch.testing.assert_close(exported.logits, expected.logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(exported.pred_boxes, expected.pred_boxes, atol=1e-5, rtol=1e-5)
