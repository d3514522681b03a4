"""DETR as a whole: against transformers' DETR, alone and in a batch, and in every way it is run."""

import copy

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoModel,
    AutoModelForObjectDetection,
    ConditionalDetrImageProcessor,
    DetrConfig,
    DetrForObjectDetection,
    DetrImageProcessor,
    pipeline,
)

import vithub

OPTIONS = {
    "plain": {},
    "anchors": {"anchor_queries": True},
    "small data": {"anchor_queries": True, "denoising_queries": 8, "focal_loss": True},
}


@pytest.fixture(params=OPTIONS)
def model(request, tiny_detr, randomised):
    torch.manual_seed(0)
    return randomised(vithub.HubDetrForObjectDetection(tiny_detr(**OPTIONS[request.param])))


def batch():
    """Two images, the second smaller and padded at right and bottom; their boxes."""
    pixels = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(2, 64, 96, dtype=torch.int64)
    mask[1, 33:], mask[1, :, 64:] = 0, 0
    pixels *= mask[:, None]
    labels = [
        {"class_labels": torch.tensor([0, 2]), "boxes": torch.tensor([[0.5, 0.5, 0.2, 0.2], [0.3, 0.3, 0.1, 0.4]])},
        {"class_labels": torch.empty(0, dtype=torch.int64), "boxes": torch.empty(0, 4)},
    ]
    return pixels, mask, labels


def native_of(config):
    """transformers' DETR of the same sizes, and our names of its tensors."""
    names = ("d_model", "encoder_layers", "decoder_layers", "encoder_attention_heads", "decoder_attention_heads",
             "encoder_ffn_dim", "decoder_ffn_dim", "num_queries", "id2label")  # fmt: skip
    values = {name: getattr(config, name) for name in names}
    return DetrForObjectDetection(DetrConfig(backbone_config=config.backbone_config.to_dict(), **values)).eval()


def our_names(state):
    renamed = {}
    for name, value in state.items():
        name = name.replace("model.", "detr.", 1).replace("query_position_embeddings", "query_embeddings")
        renamed[name] = value
    return renamed


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_it_computes_what_transformers_does(tiny_detr, randomised, attention):
    config = tiny_detr(num_queries=7)
    native, ours = randomised(native_of(config)), vithub.HubDetrForObjectDetection(config).eval()
    loaded = ours.load_state_dict(our_names(native.state_dict()), strict=False)
    assert not loaded.unexpected_keys
    assert all(name.endswith("num_batches_tracked") for name in loaded.missing_keys)
    native.set_attn_implementation({"": attention})
    ours.set_attn_implementation(attention)
    pixels, mask, _ = batch()
    with torch.no_grad():
        for arguments in ((pixels,), (pixels, mask)):
            got, expected = ours(*arguments), native(*arguments)
            assert torch.allclose(got.logits, expected.logits, atol=1e-5)
            assert torch.allclose(got.pred_boxes, expected.pred_boxes, atol=1e-5)


def test_auxiliary_outputs_leave_the_last_layer_as_it_is(model):
    """transformers normalises the stream between decoder layers where auxiliary losses are on, and so changes it."""
    pixels, mask, labels = batch()
    other = vithub.HubDetrForObjectDetection(copy.deepcopy(model.config)).eval()
    other.config.auxiliary_loss = False
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        with_aux, without = model(pixels, mask, labels), other(pixels, mask, labels)
    assert len(with_aux.auxiliary_outputs) == 1
    assert without.auxiliary_outputs is None
    assert torch.equal(with_aux.logits, without.logits)
    assert torch.allclose(with_aux.pred_boxes, without.pred_boxes, atol=1e-6)
    last = {name: term for name, term in with_aux.loss_dict.items() if not name[-1].isdigit()}
    assert all(torch.allclose(term, without.loss_dict[name], atol=1e-5) for name, term in last.items())
    assert with_aux.loss > without.loss


def test_targets_of_an_image_do_not_depend_on_its_batch(model):
    """Fault 3: relative boxes mean the image without padding, in the loss and in what becomes of the predictions."""
    pixels, mask, _ = batch()
    small = {"class_labels": torch.tensor([1]), "boxes": torch.tensor([[0.5, 0.5, 1.0, 1.0]])}  # the whole image
    with torch.no_grad():
        together = model(
            pixels, mask, [{"class_labels": small["class_labels"][:0], "boxes": small["boxes"][:0]}, small]
        )
    # the processor turns them into pixels with the size of the image, not of the batch
    best = together.pred_boxes[1:].clone()
    best[:] = small["boxes"]
    together.logits, together.pred_boxes = together.logits[1:] * 0 + 5, best
    processor = ConditionalDetrImageProcessor() if model.config.focal_loss else DetrImageProcessor()
    found = processor.post_process_object_detection(together, threshold=0.0, target_sizes=[(33, 64)])[0]
    assert torch.allclose(found["boxes"], torch.tensor([0.0, 0.0, 64.0, 33.0]).expand_as(found["boxes"]))


def test_what_lies_under_padding_is_not_seen(tiny_detr):
    """With a backbone of patches, whose cells do not overlap, other padding changes nothing at all."""
    convnext = {"model_type": "convnext", "hidden_sizes": [8, 8], "depths": [0, 0], "num_stages": 2, "patch_size": 4,
                "out_features": ["stage2"]}  # fmt: skip
    model = vithub.HubDetrForObjectDetection(tiny_detr(backbone_config=convnext, frozen_stages=0)).eval()
    pixels = torch.randn(1, 3, 32, 64, generator=torch.Generator().manual_seed(0))
    wide = torch.nn.functional.pad(pixels, (0, 32, 0, 64), value=9.0)
    mask = torch.nn.functional.pad(torch.ones(1, 32, 64), (0, 32, 0, 64))
    with torch.no_grad():
        alone, padded = model(pixels), model(wide, mask)
    assert torch.allclose(alone.logits, padded.logits, atol=1e-5)
    assert torch.allclose(alone.pred_boxes, padded.pred_boxes, atol=1e-5)


def test_eager_and_fused_attention_agree_and_maps_come_with_both(model):
    pixels, mask, _ = batch()
    model.set_attn_implementation("sdpa")
    with torch.no_grad():
        fused, maps = model(pixels, mask), model(pixels, mask, output_attentions=True, output_hidden_states=True)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        eager = model(pixels, mask)
    assert torch.allclose(fused.logits, eager.logits, atol=1e-5)
    assert torch.equal(maps.logits, eager.logits)
    cells = maps.feature_size[0] * maps.feature_size[1]
    assert maps.cross_attentions[-1].shape == (2, 4, 10, cells)
    assert torch.allclose(maps.cross_attentions[-1].sum(-1), torch.ones(2, 4, 10), atol=1e-5)
    # padding, and the 31 rows of the second image that are not shown, get nothing
    seen = maps.cross_attentions[-1][1].sum((0, 1)).view(maps.feature_size)
    assert seen[:, 2:].abs().max() == 0
    assert len(maps.decoder_hidden_states) == len(maps.decoder_attentions) + 1 == 3
    assert len(maps.encoder_hidden_states) == len(maps.encoder_attentions) + 1 == 3


def test_every_trainable_parameter_learns(model):
    pixels, mask, labels = batch()
    model.train()
    model(pixels, mask, labels).loss.backward()
    assert not [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not [name for name, p in model.named_parameters() if not p.requires_grad and p.grad is not None]


def test_denoising_queries_leave_no_trace_in_the_predictions(tiny_detr, randomised):
    fields = {"anchor_queries": True, "dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0}
    model = randomised(vithub.HubDetrForObjectDetection(tiny_detr(denoising_queries=8, **fields))).train()
    pixels, mask, labels = batch()
    with_noise = model(pixels, mask, labels)
    model.eval()
    without = model(pixels, mask, labels)
    assert torch.allclose(with_noise.logits, without.logits, atol=1e-5)
    assert torch.allclose(with_noise.pred_boxes, without.pred_boxes, atol=1e-5)
    assert with_noise.pred_boxes.shape == (2, 10, 4)
    assert {"loss_ce_dn", "loss_bbox_dn_0"} <= set(with_noise.loss_dict)
    assert not [name for name in without.loss_dict if "_dn" in name]


def test_gradient_checkpointing_changes_no_gradient(tiny_detr):
    fields = {"dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0}
    model = vithub.HubDetrForObjectDetection(tiny_detr(**fields)).train()
    pixels, mask, labels = batch()
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model.activation_checkpointing_enable()
        model.zero_grad()
        model(pixels, mask, labels).loss.backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad})
    assert all(torch.allclose(gradients[0][name], gradients[1][name], atol=1e-6) for name in gradients[0])


def test_bf16_stays_close_and_boxes_are_single(model):
    pixels, mask, labels = batch()
    with torch.no_grad():
        single = model(pixels, mask, labels)
        half = model.to(torch.bfloat16)(pixels, mask, labels)
    assert half.loss.dtype == torch.float32
    assert (half.pred_boxes.float() - single.pred_boxes).abs().max() < 0.05
    assert (half.logits.float() - single.logits).abs().max() < 0.2 * single.logits.abs().max()


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # dynamo looks at it where a graph ends
@pytest.mark.parametrize("option", ["plain", "small data"])
def test_it_compiles_as_one_graph(tiny_detr, option):
    model = vithub.HubDetrForObjectDetection(tiny_detr(**OPTIONS[option])).eval()
    pixels, mask, labels = batch()
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        got, expected = compiled(pixels, mask), model(pixels, mask)
    assert torch.allclose(got.logits, expected.logits, atol=1e-6)
    training = torch.compile(model.train(), backend="eager")
    training(pixels, mask, labels).loss.backward()
    assert model.class_labels_classifier.weight.grad.abs().sum() > 0


def test_saved_it_loads_by_the_auto_classes_and_detects_in_a_pipeline(model, tmp_path):
    model.save_pretrained(tmp_path)
    processor = ConditionalDetrImageProcessor if model.config.focal_loss else DetrImageProcessor
    processor(size={"height": 64, "width": 96}).save_pretrained(tmp_path)
    again, info = AutoModelForObjectDetection.from_pretrained(tmp_path, output_loading_info=True)
    assert type(again) is vithub.HubDetrForObjectDetection
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    bare, info = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert type(bare) is vithub.HubDetrModel
    assert not info["missing_keys"]
    assert type(AutoImageProcessor.from_pretrained(tmp_path)).__name__ == processor.__name__
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 50, 3), dtype=np.uint8))
    found = pipeline("object-detection", model=str(tmp_path), threshold=0.0)(image)
    inputs = AutoImageProcessor.from_pretrained(tmp_path)(image, return_tensors="pt")
    with torch.no_grad():
        outputs = model(inputs["pixel_values"], inputs["pixel_mask"])
    scores = outputs.logits.sigmoid() if model.config.focal_loss else outputs.logits.softmax(-1)[..., :-1]
    assert max(box["score"] for box in found) == pytest.approx(scores.max().item(), abs=1e-5)


def test_without_a_processor_beside_it_there_is_detrs(tiny_detr, tmp_path):
    vithub.HubDetrForObjectDetection(tiny_detr()).save_pretrained(tmp_path)
    DetrImageProcessor().save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text("{}")
    assert isinstance(AutoImageProcessor.from_pretrained(tmp_path), DetrImageProcessor)


@pytest.mark.parametrize("option", OPTIONS)
def test_other_labels_keep_known_classes_and_no_object(tiny_detr, option):
    names = {0: "cat", 1: "dog", 2: "owl"}
    model = vithub.HubDetrForObjectDetection(tiny_detr(num_labels=3, id2label=names, **OPTIONS[option]))
    old = model.class_labels_classifier.weight.detach().clone()
    model.resize(["owl", "elk", "cat", "yak"])
    new = model.class_labels_classifier.weight
    assert new.shape[0] == model.config.num_class_logits
    assert torch.equal(new[[0, 2]], old[[2, 0]])
    if not model.config.focal_loss:
        assert torch.equal(new[-1], old[-1])
    else:
        assert model.class_labels_classifier.bias[1].sigmoid().item() == pytest.approx(0.01, abs=1e-6)
    pixels, mask, _ = batch()
    label = {"class_labels": torch.tensor([3]), "boxes": torch.tensor([[0.5, 0.5, 0.2, 0.2]])}
    model.train()(pixels, mask, [label, label]).loss.backward()


def test_wrong_inputs_are_named(tiny_detr):
    model = vithub.HubDetrForObjectDetection(tiny_detr())
    with pytest.raises(ValueError, match=r"`pixel_values` must be \(batch, 3, height, width\), got \(1, 1, 64, 64\)"):
        model(torch.zeros(1, 1, 64, 64))
    with pytest.raises(ValueError, match=r"`pixel_mask` must be .* \(1, 64, 64\), got \(1, 64\)"):
        model(torch.zeros(1, 3, 64, 64), torch.ones(1, 64))
