"""Every option of a recipe with what shows its effect on each task, for `test_effects.py`."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from vithub.training.recipe.recipe import field_names


class Changes(NamedTuple):
    """A value that makes another run.

    Args:
        value: Of the field.
        given: What both runs have besides.
        seen: Where the difference is: "weights" (and all that follows from them), "figures" or "files".
    """

    value: Any
    given: Mapping[str, Any] = MappingProxyType({})
    seen: str = "weights"


class Stated(NamedTuple):
    """A field whose effect no number or file of a run of a few steps can show: where it shows, and what tests it."""

    reason: str


REFUSED = "refused"
MIXED = {"augmentation.mixup": 0.8, "augmentation.cutmix": 1.0}
TAUGHT = {"distillation.teacher": "TEACHER"}
FIRST = {"training.steps_per_epoch": 2, "training.max_steps": 4, "data.streaming": True}
FEATURES = {"pretraining.method": "features", "distillation.teacher": "TEACHER"}
DINO = {
    "pretraining.method": "dino", "pretraining.prototypes": 32, "pretraining.projection_width": 32,
    "pretraining.bottleneck_width": 16,
}  # fmt: skip
# What is the same for every task: the loop's options.
LOOP = {
    "task": Stated("chooses between the two tables of this test"),
    "preset": REFUSED,
    "model.activation_checkpointing": Stated("memory and time; test_front_ends holds the losses equal"),
    "model.compile": Stated("time; test_compiled_training"),
    "model.revision": REFUSED,
    "model.convert": REFUSED,  # for models from scratch; test_third_party_models trains a DETR both ways
    "data.revision": REFUSED,
    "data.workers": Stated("time; test_many_processes holds the losses equal"),
    "data.validation_fraction": Changes(0.5),
    "data.test_fraction": Changes(0.5),
    "data.split_seed": Changes(1),
    "data.on_bad_image": Changes("skip", {"data.source": "DAMAGED"}),
    "data.max_bad_share": Changes(0.9, {"data.source": "DAMAGED", "data.on_bad_image": "skip"}),
    "augmentation.repeats": Changes(2),
    "training.epochs": Changes(1),
    "training.max_steps": Changes(3),
    "training.batch_size": Changes(2),
    "training.accumulation": Stated("memory; test_front_ends holds the losses equal"),
    "training.optimizer": Changes("sgd"),
    "training.lr": Changes(1e-2),
    "training.lr_batch": Changes(16),
    "training.schedule": Changes("linear"),
    "training.min_lr": Changes(1e-3),
    "training.step_epochs": Changes(1, {"training.schedule": "step", "training.publish": "last"}),
    "training.step_factor": Changes(
        0.5, {"training.schedule": "step", "training.step_epochs": 1, "training.publish": "last"}
    ),
    "training.warmup": Changes(1),
    "training.warmup_unit": Changes("steps", {"training.warmup": 1}),
    "training.warmup_lr": Changes(1e-3, {"training.warmup": 1}),
    "training.weight_decay": Changes(0.5),
    "training.decay_all": Changes(True),
    "training.betas": Changes((0.5, 0.9)),
    "training.epsilon": Changes(1e-2),
    "training.momentum": Changes(0.5, {"training.optimizer": "sgd"}),
    "training.clip_norm": Changes(0.01),
    "training.layer_decay": Changes(0.5),
    "training.backbone_lr": Changes(1e-5),
    "training.ema_decay": Changes(0.9),
    "training.ema_warmup": Changes(False, {"training.ema_decay": 0.9}),
    "training.precision": Changes("bf16"),
    "training.early_stop": Changes(1, {"training.lr": 1e-12, "training.epochs": 3, "training.min_lr": 0.0}, "figures"),
    "training.publish": Stated("which epoch's weights are published; test_finetuning"),
    "training.keep_checkpoints": Changes(1, seen="files"),
    "training.checkpoint_steps": Changes(1, {"training.keep_checkpoints": 99}, "files"),
    "training.trackers": Changes(["tensorboard"], seen="files"),
    "training.deterministic": Stated("bits and time on CUDA; test_cuda_settings"),
    "training.tf32": Stated("rounding on CUDA; test_cuda_settings"),
    "training.cudnn_benchmark": Stated("time on CUDA; test_cuda_settings"),
    "training.channels_last": Stated("memory format, hence time; test_compilation"),
    "training.on_nonfinite": Stated("what a loss that is not finite does; test_killed_runs and test_finetuning"),
    "evaluation.batch_size": Stated("time and memory; the figures are of whole splits"),
    "seed": Changes(1),
}
STREAMED_ONLY = ("data.shuffle_buffer", "data.held_out_images", "data.labels", "training.steps_per_epoch")
ENTRIES = {
    "classification": LOOP
    | {
        "model.source": Changes("vit-s/4"),
        "model.image_size": Changes(16),
        "model.patch_size": Changes(6),
        "model.backbone": REFUSED,
        "model.backbone_stride": REFUSED,
        "model.fields": Changes({"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1}),
        "data.source": Changes("OTHER"),
        "data.image_column": Changes("second", {"data.source": "COLUMNS"}),
        "data.label_column": Changes("other_label", {"data.source": "COLUMNS"}),
        "data.train_split": Changes("first", {"data.source": "SPLITS"}),
        "data.validation_split": Changes("second", {"data.source": "SPLITS"}, "figures"),
        "data.test_split": Changes("second", {"data.source": "SPLITS"}, "figures"),
        "data.cache": Stated("time; test_front_ends holds the weights equal"),
        "data.streaming": Stated("the way of reading; test_streaming"),
        **dict.fromkeys(STREAMED_ONLY, REFUSED),
        "data.on_leakage": Stated("whether the same image in two splits stops a run; test_leakage"),
        "data.sampler": Changes("balanced"),
        "data.repair_boxes": REFUSED,
        "data.box_format": REFUSED,
        "data.group_shapes": REFUSED,
        "augmentation.crop": Changes("none"),
        "augmentation.scale": Changes((0.9, 1.0)),
        "augmentation.ratio": Changes((1.0, 1.0)),
        "augmentation.interpolation": Changes("bilinear"),
        "augmentation.horizontal_flip": Changes(1.0),
        "augmentation.vertical_flip": Changes(1.0),
        "augmentation.rand_augment": Changes("rand-m9-mstd0.5-inc1"),
        "augmentation.three_augment": Changes(True),
        "augmentation.color_jitter": Changes(0.9),
        "augmentation.random_erasing": Changes(1.0),
        "augmentation.mixup": Changes(0.8),
        "augmentation.cutmix": Changes(1.0),
        "augmentation.mix_probability": Changes(0.0, MIXED),
        "augmentation.mix_switch": Changes(0.0, MIXED),
        "augmentation.mix_off_epoch": Changes(1, MIXED),
        **{name: REFUSED for name in field_names() if name.startswith(("boxes.", "pretraining."))},
        "training.freeze": Changes(1),
        "training.head_first_epochs": Changes(2),
        "training.loss": Changes("bce", {"training.label_smoothing": 0.0}),
        "training.focal_gamma": Changes(1.0, {"training.loss": "focal"}),
        "training.class_weights": Changes("balanced"),
        "training.logit_adjustment": Changes(1.0),
        "evaluation.headline": Stated("which epoch is the best; test_imbalance"),
        "training.label_smoothing": Changes(0.3),
        "training.master_weights": Changes(True, {"training.precision": "bf16"}),
        "distillation.teacher": Changes("TEACHER"),
        "distillation.revision": REFUSED,
        "distillation.kind": Changes("soft", TAUGHT),
        "distillation.through": Changes("logits", TAUGHT),
        "distillation.temperature": Changes(3.0, TAUGHT | {"distillation.kind": "soft"}),
        "distillation.alpha": Changes(0.9, TAUGHT),
        "distillation.reduction": Changes("batchmean", TAUGHT | {"distillation.kind": "soft"}),
        "distillation.precision": Changes(
            "bf16", TAUGHT | {"distillation.kind": "soft", "distillation.precision": "fp32"}
        ),  # "auto" is bf16 already on processors that have it
        "distillation.cache": Changes(
            True, TAUGHT | {"augmentation.crop": "none", "augmentation.horizontal_flip": 0.0}, "files"
        ),
        "lora.rank": Changes(2),
        "lora.alpha": Changes(64, {"lora.rank": 2}),
        "lora.dropout": Changes(0.5, {"lora.rank": 2}),
        "lora.targets": Changes(["k_proj"], {"lora.rank": 2}),
        "lora.publish": Stated("a file beside the weights; test_lora"),
        "evaluation.crop_ratio": Changes(0.5, seen="figures"),
        "evaluation.interpolation": Changes("bilinear", seen="figures"),
    },
    "detection": LOOP
    | {
        "model.source": Stated("a checkpoint in the place of a new detector; test_detector_training"),
        "model.image_size": Changes(64),
        "model.patch_size": REFUSED,
        "model.backbone": Changes("BACKBONE"),
        "model.backbone_stride": Changes(8, {"model.backbone": "BACKBONE"}),
        "model.fields": Changes({"dropout": 0.3}),
        "data.source": Changes("OTHER"),
        "data.image_column": Changes("second", {"data.source": "COLUMNS"}),
        "data.label_column": Changes("other_objects", {"data.source": "COLUMNS"}),
        "data.train_split": Changes("first", {"data.source": "SPLITS"}),
        "data.validation_split": Changes("second", {"data.source": "SPLITS"}, "figures"),
        "data.test_split": Changes("second", {"data.source": "SPLITS"}, "figures"),
        "training.master_weights": REFUSED,
        "data.cache": Stated("time; detection/test_training holds the weights equal"),
        "data.streaming": REFUSED,
        **dict.fromkeys(STREAMED_ONLY, REFUSED),
        "data.on_bad_image": Stated("what a bad image does; seen by data.max_bad_share, which needs it"),
        "training.early_stop": Changes(
            1,
            {
                "training.lr": 1e-12,
                "training.epochs": 3,
                "training.min_lr": 0.0,
                "model.fields": {"freeze_batch_norm": True},
            },
            "figures",
        ),
        "data.on_leakage": REFUSED,
        "data.sampler": REFUSED,
        "training.focal_gamma": REFUSED,
        "training.class_weights": REFUSED,
        "training.logit_adjustment": REFUSED,
        "evaluation.headline": REFUSED,
        "data.repair_boxes": Stated("what a box that does not fit does; test_box_checks"),
        "data.box_format": Changes("cxcywh pixels"),
        "data.group_shapes": Changes(True),
        "augmentation.repeats": Changes(2),
        **{
            name: REFUSED for name in field_names() if name.startswith("augmentation.") and not name.endswith("repeats")
        },
        "boxes.horizontal_flip": Changes(0.0),
        "boxes.vertical_flip": Changes(1.0),
        "boxes.sides": Changes((640,)),
        "boxes.longest": Changes(801),
        "boxes.batch_scale": REFUSED,  # for a new DETR, which takes images of any shape; test_third_party_models
        "boxes.crop": Changes(1.0),
        "boxes.crop_sides": Changes((800,), {"boxes.crop": 1.0}),
        "boxes.crop_size": Changes((500, 600), {"boxes.crop": 1.0}),
        "boxes.min_visible": Changes(1.0, {"boxes.crop": 1.0}),
        "boxes.color_jitter": Changes(0.9),
        "training.freeze": REFUSED,
        "training.head_first_epochs": REFUSED,
        "training.loss": REFUSED,
        "training.label_smoothing": REFUSED,
        **{name: REFUSED for name in field_names() if name.startswith(("distillation.", "lora.", "pretraining."))},
        "evaluation.crop_ratio": REFUSED,
        "evaluation.interpolation": REFUSED,
    },
    "pretraining": LOOP
    | {
        "model.source": Changes("deit-ti/4"),
        "model.image_size": Changes(16),
        "model.patch_size": Changes(6),
        "model.backbone": REFUSED,
        "model.backbone_stride": REFUSED,
        "model.fields": Changes({"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1}),
        "data.source": Changes("OTHER"),
        "data.image_column": Changes("second", {"data.source": "COLUMNS"}),
        "data.label_column": REFUSED,
        "data.train_split": Changes("first", {"data.source": "SPLITS"}),
        "data.validation_split": Changes("second", {"data.source": "SPLITS"}, "figures"),
        "data.test_split": Changes("second", {"data.source": "SPLITS"}, "figures"),
        "data.cache": Stated("time; test_front_ends holds the weights of classifiers equal"),
        "data.streaming": Stated("the way of reading; test_pretraining"),
        **dict.fromkeys(STREAMED_ONLY, REFUSED),
        "data.on_leakage": REFUSED,
        "data.sampler": REFUSED,
        "data.repair_boxes": REFUSED,
        "data.box_format": REFUSED,
        "data.group_shapes": REFUSED,
        "augmentation.crop": Changes("none"),
        "augmentation.scale": Changes((0.9, 1.0)),
        "augmentation.ratio": Changes((1.0, 1.0)),
        "augmentation.interpolation": Changes("bilinear"),
        "augmentation.horizontal_flip": Changes(1.0),
        "augmentation.vertical_flip": Changes(1.0),
        "augmentation.rand_augment": Changes("rand-m9-mstd0.5-inc1"),
        "augmentation.three_augment": Changes(True),
        "augmentation.color_jitter": Changes(0.9),
        "augmentation.random_erasing": Changes(1.0),
        **{name: REFUSED for name in field_names() if name.startswith(("augmentation.mix", "boxes.", "lora."))},
        "augmentation.cutmix": REFUSED,
        "training.freeze": REFUSED,
        "training.head_first_epochs": REFUSED,
        "training.loss": REFUSED,
        "training.focal_gamma": REFUSED,
        "training.class_weights": REFUSED,
        "training.logit_adjustment": REFUSED,
        "training.label_smoothing": REFUSED,
        "training.master_weights": REFUSED,
        "training.early_stop": Stated("a run without a measure of quality refuses it; test_pretraining"),
        **{name: REFUSED for name in field_names() if name.startswith("distillation.")},
        "distillation.teacher": Changes("TEACHER", {"pretraining.method": "features"}),
        "distillation.precision": Changes("bf16", FEATURES | {"distillation.precision": "fp32"}),
        "evaluation.headline": REFUSED,
        "evaluation.crop_ratio": Changes(0.5, seen="figures"),
        "evaluation.interpolation": Changes("bilinear", seen="figures"),
        "pretraining.method": Changes("simmim"),
        "pretraining.mask_ratio": Changes(0.3),
        "pretraining.mask_unit": Changes(3, {"pretraining.method": "simmim", "model.image_size": 24}),
        "pretraining.normalize_targets": Changes(False),
        "pretraining.decoder_width": Changes(32),
        "pretraining.decoder_layers": Changes(2),
        "pretraining.decoder_heads": Changes(4),
        "pretraining.probe": Changes("digits", seen="figures"),
        "pretraining.probe_images": Changes(50, {"pretraining.probe": "digits"}, "figures"),
        "pretraining.probe_neighbours": Changes(1, {"pretraining.probe": "digits"}, "figures"),
        "pretraining.masked_weight": Changes(1.0, DINO),
        "pretraining.local_crops": Changes(0, DINO),
        "pretraining.local_size": Changes(8, DINO),
        "pretraining.local_scale": Changes((0.3, 0.4), DINO),
        "pretraining.prototypes": Changes(16, DINO),
        "pretraining.projection_width": Changes(16, DINO),
        "pretraining.bottleneck_width": Changes(8, DINO),
        "pretraining.frozen_prototypes": Changes(0, DINO),
        "pretraining.student_temperature": Changes(0.2, DINO),
        "pretraining.teacher_temperature": Changes(0.1, DINO),
        "pretraining.teacher_momentum": Changes(0.5, DINO),
        "pretraining.centre_momentum": Changes(0.5, DINO),
        "pretraining.image_weight": Changes(0.0, FEATURES),
        "pretraining.patch_weight": Changes(0.0, FEATURES),
        "pretraining.cosine_share": Changes(0.0, FEATURES),
    },
}
CASES = [(task, name) for task, entries in ENTRIES.items() for name in entries]
# A value that is not the default, of a field that is refused whatever its value.
OTHER_VALUES = {
    "preset": "deit", "model.convert": False, "model.patch_size": 8, "model.backbone": "x/y",
    "model.backbone_stride": 16, "data.cache": "memory",
    "data.streaming": True, "data.shuffle_buffer": 7, "data.held_out_images": 7, "data.labels": ["a"],
    "data.on_leakage": "warn",
    "data.repair_boxes": True, "data.box_format": "xyxy pixels", "data.group_shapes": True,
    "training.master_weights": True, "data.sampler": "balanced", "training.class_weights": "balanced",
    "training.logit_adjustment": 1.0, "evaluation.headline": "macro_f1",
    "training.steps_per_epoch": 7,
    "augmentation.crop": "padded", "augmentation.scale": (0.5, 1.0), "augmentation.ratio": (1.0, 1.0),
    "augmentation.interpolation": "bilinear", "augmentation.rand_augment": "rand-m9",
    "augmentation.three_augment": True,
    "augmentation.mix_off_epoch": 3, "boxes.sides": (640,), "boxes.longest": 900, "boxes.crop_sides": (500,),
    "boxes.crop_size": (300, 600), "training.freeze": 1, "training.loss": "bce", "distillation.teacher": "x/y",
    "distillation.kind": "soft", "distillation.through": "logits", "distillation.reduction": "batchmean",
    "distillation.precision": "bf16", "distillation.cache": True, "lora.rank": 2, "lora.alpha": 3,
    "lora.targets": ["q_proj"], "lora.publish": "adapter", "evaluation.interpolation": "bilinear",
    "pretraining.method": "simmim", "pretraining.mask_ratio": 0.5, "pretraining.normalize_targets": False,
    "pretraining.local_size": 16,
}  # fmt: skip
# What a value needs to be a recipe at all.
ALSO = {"data.streaming": {"training.max_steps": 5}, "training.loss": {"training.label_smoothing": 0.0}}
