"""Detectors in the same loops as classifiers: equal losses however a batch is cut, resumed runs, folders that load."""

import json

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoModelForObjectDetection, pipeline
from vithub.data.images import BadImageError
from vithub.data.samplers import AspectGroupedOrder
from vithub.data.seeding import Stream, derived_seed
from vithub.hub.conversion.detr_backbones import backbone_from, load_backbone_weights
from vithub.modeling.detr_loss import detection_loss
from vithub.modeling.detr_targets import read_targets
from vithub.training.optim.parameter_groups import parameter_groups
from vithub.training.recipe.presets import preset
from vithub.training.recipe.recipe import RecipeError
from vithub.training.tasks.registry import build_task

import vithub

FIELDS = {
    "d_model": 32, "encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "num_queries": 8,
    "backbone_config": {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 8, 16, 16],
                        "depths": [1, 1, 1, 1], "layer_type": "basic", "out_features": ["stage3"]},
}  # fmt: skip
SMALL = {**FIELDS, "anchor_queries": True, "denoising_queries": 8, "focal_loss": True, "dropout": 0.1}


def squares(count=8, size=64):
    """Images with one to three bright squares, red or blue, on grey."""
    draws, rows = np.random.default_rng(0), []
    for number in range(count):
        pixels = np.full((size, size, 3), 90, np.uint8)
        boxes, classes = [], []
        for _ in range(1 + number % 3):
            side, kind = int(draws.integers(12, 24)), int(draws.integers(2))
            left, top = (int(v) for v in draws.integers(0, size - side, 2))
            pixels[top : top + side, left : left + side] = ([240, 30, 30], [30, 30, 240])[kind]
            boxes.append([float(v) for v in (left, top, side, side)])
            classes.append(kind)
        objects = {"bbox": boxes, "category": classes}
        rows.append({"image": Image.fromarray(pixels), "image_id": number, "objects": objects})
    return Dataset.from_list(rows)


def values(**changes):
    return {
        "model.fields": SMALL, "model.backbone_stride": None, "model.image_size": 64, "data.workers": 0,
        "data.validation_fraction": 0.25, "data.test_fraction": 0.25, "training.epochs": 2,
        "training.batch_size": 4, "training.warmup": 0, "training.precision": "fp32", "training.trackers": [],
        "boxes.sides": (800,), "evaluation.batch_size": 2,
    } | changes  # fmt: skip


def train(out, front_end="accelerate", resume=False, **changes):
    return vithub.finetune(
        data=squares(), output=out, preset="detr-small-data", values=values(**changes), front_end=front_end,
        resume=resume,
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(tmp_path_factory.mktemp("runs") / "squares")


def test_the_run_loads_and_serves_what_it_reports(run):
    model = AutoModelForObjectDetection.from_pretrained(run.folder)
    assert type(model) is vithub.HubDetrForObjectDetection
    metrics = json.loads((run.folder / "metrics.json").read_text())
    assert metrics["problem"] == "object_detection"
    assert set(metrics["test"]) >= {"loss", "map", "map_50", "mar_100"}
    assert [row["label"] for row in metrics["per_class"]] == list(model.config.id2label.values())
    assert len(metrics["history"]) == 2
    assert (run.folder / "precision_recall.png").is_file()
    found = pipeline("object-detection", model=str(run.folder), threshold=0.0)(squares(1)[0]["image"])
    assert {"score", "label", "box"} == set(found[0])


@pytest.mark.parametrize(("front_end", "accumulation"), [("accelerate", 4), ("trainer", 1), ("trainer", 2)])
def test_losses_do_not_depend_on_front_end_or_accumulation(run, front_end, accumulation, tmp_path):
    other = train(tmp_path / "other", front_end, **{"training.accumulation": accumulation})
    assert np.allclose(other.losses, run.losses, rtol=1e-4)
    assert len(set(run.losses)) == len(run.losses)


def test_noise_is_drawn_for_its_sample_also_where_activations_are_computed_again(tmp_path):
    """Without dropout, which is then drawn for the whole piece of a batch."""
    fields = SMALL | dict.fromkeys(("dropout", "attention_dropout", "activation_dropout"), 0.0)
    changes = {"model.fields": fields, "training.max_steps": 1}
    plain = train(tmp_path / "plain", **changes)
    for pieces in (1, 2):
        other = train(
            tmp_path / f"in {pieces}",
            **changes,
            **{"model.activation_checkpointing": True, "training.accumulation": pieces},
        )
        assert np.allclose(other.losses, plain.losses, rtol=1e-4)
    louder = train(tmp_path / "other", **{**changes, "model.fields": fields | {"denoising_box_noise": 0.8}})
    assert not np.allclose(louder.losses, plain.losses, rtol=1e-3)


def test_a_resumed_run_is_the_same_run(run, tmp_path):
    first = train(tmp_path / "half", **{"training.max_steps": 1, "training.checkpoint_steps": 1})
    assert first.losses == run.losses[:1]
    assert "max_steps: 1" in (first.folder / "recipe.yaml").read_text()
    again = train(tmp_path / "half", resume=True, **{"training.checkpoint_steps": 1})
    assert np.allclose(again.losses, run.losses[1:], rtol=1e-5)


def test_a_cache_of_decoded_images_and_loading_processes_change_no_number(run, tmp_path):
    cached = train(tmp_path / "cached", **{"data.cache": "memory", "data.workers": 2})
    assert cached.losses == run.losses
    assert cached.metrics["test"] == run.metrics["test"]
    ours, theirs = (load_file(one.folder / "model.safetensors") for one in (cached, run))
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_a_run_goes_on_without_images_that_cannot_be_decoded_and_lists_them(damaged_squares, quick_detector, tmp_path):
    changes = {"training.epochs": 2, "training.batch_size": 13, "data.on_bad_image": "skip"}
    few = quick_detector(changes | {"data.max_bad_share": 0.02})
    with pytest.raises(BadImageError, match=r"could not be decoded, more than data\.max_bad_share 0\.02"):
        vithub.finetune(data=damaged_squares, output=tmp_path / "few", preset="detr-small-data", values=few)
    more = quick_detector(changes | {"data.max_bad_share": 0.3})
    done = vithub.finetune(data=damaged_squares, output=tmp_path / "more", preset="detr-small-data", values=more)
    listed = {name.split(" (")[0] for names in done.metrics["bad_images"].values() for name in names}
    assert listed == {"4.jpg", "9.jpg"}
    assert "could not be decoded and were left out" in (done.folder / "README.md").read_text()


def test_the_loss_of_a_step_is_the_models_own_for_the_whole_batch(tmp_path):
    recipe = preset("detr").with_values(values(**{"model.fields": {**FIELDS, "dropout": 0.0, "attention_dropout": 0.0,
                                                                   "activation_dropout": 0.0}}))  # fmt: skip
    task = build_task(recipe, squares())
    batch = next(iter(task.train_loader()))
    task.prepare_step([batch])
    got = task.loss(task.model.train(), batch)
    torch.manual_seed(derived_seed(recipe.seed, Stream.MODEL, 0))
    outputs = task.model(batch["pixel_values"], batch["pixel_mask"], batch["labels"])
    logits = torch.stack([*(o["logits"] for o in outputs.auxiliary_outputs), outputs.logits])
    boxes = torch.stack([*(o["pred_boxes"] for o in outputs.auxiliary_outputs), outputs.pred_boxes])
    targets = read_targets(batch["labels"], len(boxes[0]), task.model.config, logits.device)
    expected, _ = detection_loss(logits, boxes, targets, task.model.config)
    assert torch.allclose(got, expected, rtol=1e-5)


def test_the_published_recipe_has_two_rates_and_one_decay():
    recipe = preset("detr").with_values(values(**{"model.fields": FIELDS}))
    task = build_task(recipe, squares())
    settings = recipe.training
    assert (settings.lr, settings.backbone_lr, settings.weight_decay, settings.clip_norm) == (1e-4, 1e-5, 1e-4, 0.1)
    assert task.model.config.auxiliary_loss
    groups = task.optimizer().param_groups
    inside = {id(p) for name, p in task.model.named_parameters() if ".backbone." in name}
    for group in groups:
        backbone = {id(p) in inside for p in group["params"]}
        assert len(backbone) == 1
        assert group["lr"] == pytest.approx(1e-5 if backbone.pop() else 1e-4)
        assert group["weight_decay"] == 1e-4
    trained = sum(len(group["params"]) for group in groups)
    assert trained == sum(p.requires_grad for p in task.model.parameters())
    assert any(g["weight_decay"] == 0 for g in parameter_groups(task.model, 1e-4, 1e-4, backbone_factor=0.1))


def test_a_new_detector_starts_from_a_classifiers_weights(tiny_detr, tmp_path):
    import timm

    torch.manual_seed(0)
    source = timm.create_model("tf_efficientnet_lite0", num_classes=7)
    save_file(source.state_dict(), tmp_path / "model.safetensors")
    cfg = {"mean": [0.5] * 3, "std": [0.25] * 3}
    config = {"architecture": "tf_efficientnet_lite0", "num_classes": 7, "pretrained_cfg": cfg}
    (tmp_path / "config.json").write_text(json.dumps(config))
    recipe = preset("detr-small-data").with_values({"model.backbone": str(tmp_path), "data.workers": 0})
    task = build_task(recipe, squares())
    assert task.model.detr.backbone.out_channels == 112
    assert task.input_facts() == {"image_sides": {"shortest": 240, "longest": 400}}
    assert list(task.image_processor.image_mean) == [0.5] * 3
    assert list(task.image_processor.image_std) == [0.25] * 3
    own = task.model.detr.backbone.model._backbone.state_dict()
    assert all(torch.equal(tensor, source.state_dict()[name]) for name, tensor in own.items())
    with pytest.raises(ValueError, match=r"strides \[2, 4, 8, 16, 32\], got 12"):
        backbone_from(tmp_path, 12)


def test_a_vit_and_a_resnet_are_backbones_too(tiny_detr, tiny, randomised, tmp_path):
    from transformers import ResNetConfig, ResNetForImageClassification

    vit = randomised(vithub.HubViTForImageClassification(tiny()))
    vit.save_pretrained(tmp_path / "vit")
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "layer_type": "basic"}
    resnet = randomised(ResNetForImageClassification(ResNetConfig(**sizes)))
    resnet.save_pretrained(tmp_path / "resnet")
    for name, inner in (("vit", vit.vit), ("resnet", resnet.resnet)):
        start = backbone_from(tmp_path / name, 16 if name == "resnet" else None)
        model = vithub.HubDetrForObjectDetection(tiny_detr(backbone_config=start.config))
        load_backbone_weights(model, start)
        expected = inner.state_dict()
        for key, tensor in model.detr.backbone.model.state_dict().items():
            assert torch.equal(tensor, expected[key]), key


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model.fields": {**SMALL, "num_queries": 2}},
            "num_queries: must be at least 3, .* got 2",
        ),
        ({"model.patch_size": 8}, "model.patch_size: a detector has none, got 8"),
        ({"model.image_size": (64, 80)}, "model.image_size: of a detector the shorter side"),
        ({"model.fields": {**SMALL, "anchor_queries": False}}, "they need `anchor_queries=True`"),
    ],
)
def test_wrong_settings_are_named(changes, message):
    with pytest.raises(RecipeError, match=message):
        build_task(preset("detr-small-data").with_values(values(**changes)), squares())


def test_batches_of_similar_shapes_are_trained_on_where_the_recipe_asks_for_them():
    made = values(**{"data.group_shapes": True})
    task = build_task(preset("detr").with_values(made), squares())
    order, table = task.batches.order, task.data.train
    assert isinstance(order, AspectGroupedOrder)
    ratios = [width / height for width, height in zip(table["width"], table["height"], strict=True)]
    assert order.batch(0) == AspectGroupedOrder(ratios, order.batch_size, order.seed).batch(0)
    with pytest.raises(RecipeError, match=r"data\.group_shapes .* augmentation\.repeats must be 1, got 2"):
        preset("detr").with_values(made | {"augmentation.repeats": 2})
