"""Call patterns of transformers' example scripts: which arguments are labels, what `Trainer` evaluates and keeps."""

import warnings

import numpy as np
import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForMaskedImageModeling,
    DetrConfig,
    DetrForObjectDetection,
    Trainer,
    TrainingArguments,
)
from transformers.utils.generic import can_return_loss, find_labels

import vithub

MODELS = [getattr(vithub, name) for name in vithub.__all__ if "Model" in name or "For" in name]
WITHOUT_LABELS = {vithub.HubViTModel, vithub.HubDeiTModel, vithub.HubDetrModel, vithub.HubViTForMaskedImageModeling}


@pytest.mark.parametrize("model_class", MODELS)
def test_the_trainer_finds_the_labels_and_nothing_else(model_class):
    assert find_labels(model_class) == ([] if model_class in WITHOUT_LABELS else ["labels"])
    assert can_return_loss(model_class) == (model_class is vithub.HubViTForMaskedImageModeling)


def arguments(folder, **values):
    return TrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=2, per_device_eval_batch_size=2, max_steps=4,
        eval_strategy="steps", eval_steps=2, save_strategy="steps", save_steps=2, load_best_model_at_end=True,
        report_to="none", use_cpu=True, dataloader_num_workers=0, disable_tqdm=True, **values,
    )  # fmt: skip


def images(count, side=32):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(3, side, side, generator=generator) for _ in range(count)]


def classified(count=6):
    return [{"pixel_values": image, "labels": index % 5} for index, image in enumerate(images(count))]


def masked(count=6):
    return [
        {"pixel_values": image, "bool_masked_pos": torch.arange(16) % 2} for image in images(count)
    ]  # whole numbers, as the example's mask generator gives them


def with_boxes(count=6):
    classes, boxes = torch.tensor([0, 2]), torch.tensor([[0.5, 0.5, 0.4, 0.3], [0.25, 0.5, 0.2, 0.6]])
    rows = []
    for index, image in enumerate(images(count, 64)):
        some = slice(1 + index % 2)
        labels = {"class_labels": classes[some], "boxes": boxes[some], "orig_size": torch.tensor([64, 64])}
        rows.append({"pixel_values": image, "labels": labels | {"image_id": torch.tensor([index])}})
    return rows


def collate_boxes(rows):
    return {
        "pixel_values": torch.stack([row["pixel_values"] for row in rows]),
        "labels": [row["labels"] for row in rows],
    }


@pytest.mark.parametrize("model_class", [vithub.HubViTForImageClassification, vithub.HubDeiTForImageClassification])
def test_classifiers_are_evaluated_and_the_best_is_loaded(model_class, tiny, tmp_path):
    """As run_image_classification.py: `compute_metrics` over logits (N, L) and label_ids (N,)."""
    seen = []

    def accuracy(predicted):
        seen.append((np.shape(predicted.predictions), predicted.label_ids.tolist()))
        return {"accuracy": float((predicted.predictions.argmax(1) == predicted.label_ids).mean())}

    trainer = Trainer(
        tiny_model(model_class, tiny), arguments(tmp_path, metric_for_best_model="eval_accuracy"),
        train_dataset=classified(), eval_dataset=classified(), compute_metrics=accuracy,
    )  # fmt: skip
    trainer.train()
    metrics = trainer.evaluate()
    assert seen[-1] == ((6, 5), [0, 1, 2, 3, 4, 0])
    assert np.isfinite(metrics["eval_loss"])
    assert trainer.state.best_model_checkpoint is not None
    trainer.model.eval()
    with torch.no_grad():
        batch = torch.stack([row["pixel_values"] for row in classified()])
        logits = trainer.model(batch).logits
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(seen[-1][1]))
    assert metrics["eval_loss"] == pytest.approx(loss.item(), abs=1e-5)


def tiny_model(model_class, tiny):
    torch.manual_seed(0)
    return model_class(tiny(model_class.config_class))


def test_masked_image_models_are_evaluated_and_the_best_is_loaded(tiny, tmp_path):
    """As run_mim.py: the configuration is read and updated, the model made of it, and nothing are labels."""
    tiny().save_pretrained(tmp_path / "start")
    config = AutoConfig.from_pretrained(tmp_path / "start")
    config.update(
        {"image_size": config.image_size, "patch_size": config.patch_size, "encoder_stride": config.encoder_stride}
    )
    model = AutoModelForMaskedImageModeling.from_config(config)
    trainer = Trainer(
        model, arguments(tmp_path / "run"), train_dataset=masked(), eval_dataset=masked()
    )  # the best by its loss
    trainer.train()
    metrics = trainer.evaluate()
    expected = model.eval()(
        torch.stack([r["pixel_values"] for r in masked()]), torch.stack([r["bool_masked_pos"] for r in masked()])
    )
    assert metrics["eval_loss"] == pytest.approx(expected.loss.item(), abs=1e-5)
    assert trainer.state.best_metric == pytest.approx(min(losses(trainer)), abs=1e-6)
    assert AutoModelForMaskedImageModeling.from_pretrained(trainer.state.best_model_checkpoint) is not None


def losses(trainer):
    return [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]


def test_detectors_are_evaluated_as_the_example_reads_their_predictions(tiny_detr, tmp_path):
    """As run_object_detection.py: one tuple per batch, with the logits at 1 and the boxes at 2."""
    seen = []

    def read(predicted):
        seen.append(predicted)
        return {}

    torch.manual_seed(0)
    model = vithub.HubDetrForObjectDetection(tiny_detr())
    trainer = Trainer(
        model, arguments(tmp_path, eval_do_concat_batches=False, remove_unused_columns=False),
        train_dataset=with_boxes(), eval_dataset=with_boxes(), data_collator=collate_boxes, compute_metrics=read,
    )  # fmt: skip
    trainer.train()
    metrics = trainer.evaluate()
    assert np.isfinite(metrics["eval_loss"])
    predictions, targets = seen[-1].predictions, seen[-1].label_ids
    assert len(predictions) == len(targets) == 3
    for batch, target, first in zip(predictions, targets, (0, 2, 4), strict=True):
        assert set(batch[0]) >= {"loss_ce", "loss_bbox", "loss_giou"}
        pixels = torch.stack([row["pixel_values"] for row in with_boxes()[first : first + 2]])
        with torch.no_grad():
            expected = model(pixels)
        np.testing.assert_allclose(batch[1], expected.logits, atol=1e-5)
        np.testing.assert_allclose(batch[2], expected.pred_boxes, atol=1e-5)
        assert [len(t["class_labels"]) for t in target] == [1, 2]


def test_predictions_of_a_detector_have_the_form_of_transformers_detr(tiny_detr, tmp_path):
    """The same nesting, lengths and shapes, concatenated as `Trainer` does by default."""
    config = tiny_detr(auxiliary_loss=True)
    native = DetrForObjectDetection(
        DetrConfig(
            backbone_config=config.backbone_config.to_dict(), num_labels=3, auxiliary_loss=True,
            **{name: getattr(config, name) for name in (
                "d_model", "encoder_layers", "decoder_layers", "encoder_attention_heads", "decoder_attention_heads",
                "encoder_ffn_dim", "decoder_ffn_dim", "num_queries")},
        )
    )  # fmt: skip
    forms = []
    for model in (vithub.HubDetrForObjectDetection(config), native):
        trainer = Trainer(
            model, TrainingArguments(str(tmp_path), per_device_eval_batch_size=2, report_to="none", use_cpu=True,
                                     disable_tqdm=True, remove_unused_columns=False),
            data_collator=collate_boxes,
        )  # fmt: skip
        predicted = trainer.predict(with_boxes(4))
        terms = {name for name in predicted.predictions[0] if "cardinality" not in name}  # transformers', no loss
        forms.append((form(predicted.predictions[1:]), form(predicted.label_ids), terms))
    assert forms[0] == forms[1]


def form(nested):
    if isinstance(nested, dict):
        return {name: form(value) for name, value in nested.items()}
    return [form(value) for value in nested] if isinstance(nested, list | tuple) else np.shape(nested)


def test_the_old_name_of_a_teachers_decisions_is_taken_for_a_version(tiny):
    model = vithub.HubDeiTForImageClassification(tiny(vithub.HubDeiTConfig, distillation="hard")).eval()
    pixels, labels, decisions = torch.stack(images(3)), torch.tensor([0, 1, 2]), torch.tensor([2, 2, 0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        new = model(pixels, labels=labels, teacher_decisions=decisions).loss
    with pytest.warns(FutureWarning, match="`teacher_labels` is now called `teacher_decisions`"):
        old = model(pixels, labels=labels, teacher_labels=decisions).loss
    assert torch.equal(new, old)
    with pytest.raises(ValueError, match="got both"):
        model(pixels, labels=labels, teacher_labels=decisions, teacher_decisions=decisions)
