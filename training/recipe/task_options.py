"""Tables of the recipe's options that a task does not accept; every task has an entry."""

# Options that a task does not accept, and the options to use instead. A name that ends in * stands for a whole section.
UNKNOWN_TO: dict[str, dict[str, str | None]] = {
    "classification": {
        "model.backbone": "model.source",
        "model.backbone_stride": None,
        "data.repair_boxes": None,
        "data.box_format": None,
        "data.group_shapes": None,
        "boxes.horizontal_flip": "augmentation.horizontal_flip",
        "boxes.vertical_flip": "augmentation.vertical_flip",
        "boxes.crop": "augmentation.crop",
        "boxes.color_jitter": "augmentation.color_jitter",
        "boxes.*": "augmentation.*",
        "pretraining.*": None,
    },
    "detection": {
        "model.patch_size": None,
        "data.streaming": None,
        "data.shuffle_buffer": None,
        "data.held_out_images": None,
        "data.labels": None,
        "data.on_leakage": None,
        "augmentation.crop": "boxes.crop",
        "augmentation.scale": "boxes.sides and boxes.crop_size",
        "augmentation.ratio": "boxes.crop_size",
        "augmentation.interpolation": None,
        "augmentation.horizontal_flip": "boxes.horizontal_flip",
        "augmentation.vertical_flip": "boxes.vertical_flip",
        "augmentation.rand_augment": "boxes.color_jitter",
        "augmentation.three_augment": "boxes.color_jitter",
        "augmentation.color_jitter": "boxes.color_jitter",
        "augmentation.random_erasing": None,
        "augmentation.mixup": None,
        "augmentation.cutmix": None,
        "augmentation.mix_probability": None,
        "augmentation.mix_switch": None,
        "augmentation.mix_off_epoch": None,
        "training.steps_per_epoch": None,
        "training.freeze": "model.fields.frozen_stages",
        "training.head_first_epochs": None,
        "data.sampler": None,
        "training.loss": "model.fields.focal_loss",
        "training.focal_gamma": "model.fields.focal_gamma",
        "training.class_weights": None,
        "training.logit_adjustment": None,
        "training.label_smoothing": None,
        "training.master_weights": None,
        "distillation.*": None,
        "lora.*": None,
        "evaluation.crop_ratio": "model.image_size",
        "evaluation.interpolation": None,
        "evaluation.headline": None,
        "pretraining.*": None,
    },
    "pretraining": {
        "model.backbone": "model.source",
        "model.backbone_stride": None,
        "model.convert": None,
        "data.label_column": None,
        "data.labels": None,
        "data.on_leakage": None,
        "data.sampler": None,
        "data.repair_boxes": None,
        "data.box_format": None,
        "data.group_shapes": None,
        "augmentation.mixup": None,
        "augmentation.cutmix": None,
        "augmentation.mix_probability": None,
        "augmentation.mix_switch": None,
        "augmentation.mix_off_epoch": None,
        "boxes.horizontal_flip": "augmentation.horizontal_flip",
        "boxes.vertical_flip": "augmentation.vertical_flip",
        "boxes.crop": "augmentation.crop",
        "boxes.color_jitter": "augmentation.color_jitter",
        "boxes.*": "augmentation.*",
        "training.freeze": None,
        "training.head_first_epochs": None,
        "training.loss": "pretraining.method",
        "training.focal_gamma": None,
        "training.class_weights": None,
        "training.logit_adjustment": None,
        "training.label_smoothing": None,
        "training.master_weights": None,
        "distillation.kind": None,
        "distillation.through": None,
        "distillation.temperature": None,
        "distillation.alpha": None,
        "distillation.reduction": None,
        "distillation.cache": None,
        "lora.*": None,
        "evaluation.headline": None,
    },
}


def register_task_options(task: str, unknown: dict[str, str | None]) -> None:
    """Registers a task.

    Args:
        task: Name of the task.
        unknown: Options that the task does not accept, in the form of an entry of `UNKNOWN_TO`.
    """
    UNKNOWN_TO[task] = unknown


__all__ = ["UNKNOWN_TO", "register_task_options"]
