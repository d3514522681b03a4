"""Undamaged things that cases copy and damage: photos, runs, saved models, data sets of boxes."""

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .calling import command

CLASSES = ("bird", "cat", "dog")
# A DeiT of 28,000 parameters that sees photos of 12 x 12 pixels.
QUICK: dict[str, Any] = {
    "model.source": "deit-ti/4",
    "model.image_size": 12,
    "model.fields": {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2},
    "data.test_fraction": 0.2,
    "data.workers": 0,
    "augmentation.crop": "padded",
    "augmentation.rand_augment": None,
    "training.epochs": 2,
    "training.batch_size": 8,
    "training.warmup": 0,
    "training.precision": "fp32",
    "training.trackers": [],
    "evaluation.crop_ratio": 1.0,
}
DETECTOR: dict[str, Any] = {
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "num_queries": 6,
    "num_labels": 3,
    "backbone_config": {
        "model_type": "resnet",
        "embedding_size": 8,
        "hidden_sizes": [8, 16],
        "depths": [1, 1],
        "layer_type": "basic",
        "out_features": ["stage2"],
    },
}
# (width, height), then boxes as corners with their classes
SCENES = [
    ((64, 48), [((4, 6, 20, 30), 0), ((30, 10, 60, 40), 1)]),
    ((48, 64), [((2, 2, 40, 60), 1)]),
    ((60, 60), [((10, 20, 30, 50), 0), ((35, 2, 58, 25), 2)]),
    ((70, 50), [((2, 3, 11, 9), 2), ((20, 10, 69, 49), 1)]),
    ((40, 80), [((1, 1, 10, 10), 0), ((5, 40, 38, 78), 1)]),
    ((64, 48), [((3, 20, 33, 40), 0), ((40, 5, 50, 12), 1)]),
]


def settle() -> None:
    """Imports what takes long, once."""
    import torch
    import transformers
    import vithub.scripts.command_line  # noqa: F401

    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()


def tidy() -> None:
    """Takes back what a case may leave in the process."""
    import matplotlib.pyplot as plt
    import torch

    plt.close("all")
    torch.set_default_dtype(torch.float32)
    logging.getLogger().handlers.clear()


def made(shared: Path, name: str, make: Callable[[Path], None]) -> Path:
    """A folder of the stock, made where it is missing."""
    target = shared / name
    if not target.exists():
        staging = shared / f".{name}-{os.getpid()}"
        shutil.rmtree(staging, ignore_errors=True)
        staging.parent.mkdir(parents=True, exist_ok=True)
        make(staging)
        staging.rename(target)
    return target


def photos(shared: Path) -> Path:
    """30 noisy images of 12 x 12 pixels in a folder for each of three classes."""

    def make(folder: Path) -> None:
        import numpy as np
        from PIL import Image

        draws = np.random.default_rng(0)
        for label, name in enumerate(CLASSES):
            (folder / name).mkdir(parents=True)
            for number in range(10):
                pixels = draws.integers(0, 80, (12, 12, 3), dtype=np.uint8) + np.uint8(80 * label)
                Image.fromarray(pixels).save(folder / name / f"{number}.png")

    return made(shared, "photos", make)


def train(data: Path, out: Path, values: dict[str, Any] | None = None, *further: str) -> str:
    """`vithub finetune` of a second."""
    settings = QUICK | (values or {})
    words = [word for name, value in settings.items() for word in ("--set", f"{name}={json.dumps(value)}")]
    return command("finetune", "--preset", "from-scratch-small", "--data", data, "--output", out, *words, *further)


def train_detector(data: Path, out: Path, values: dict[str, Any] | None = None, *further: str) -> str:
    """`vithub finetune` of a detector for a step."""
    fields = {name: value for name, value in DETECTOR.items() if name != "num_labels"}
    settings: dict[str, Any] = {
        "model.fields": fields,
        "model.image_size": 48,
        "model.backbone_stride": None,
        "data.workers": 0,
        "data.validation_fraction": 0.2,
        "data.test_fraction": 0.2,
        "training.epochs": 1,
        "training.batch_size": 2,
        "training.max_steps": 1,
        "training.warmup": 0,
        "training.precision": "fp32",
        "training.trackers": [],
        **(values or {}),
    }
    words = [word for name, value in settings.items() for word in ("--set", f"{name}={json.dumps(value)}")]
    return command("finetune", "--preset", "detr-small-data", "--data", data, "--output", out, *words, *further)


def run(shared: Path) -> Path:
    """The folder of a finished run with all its checkpoints, of steps 2 and 4.

    It lies where it was made, as its recipe names its data.
    """
    target = shared / "run"
    if not target.exists():
        shutil.rmtree(shared / "half-made", ignore_errors=True)
        with no_drawing():
            train(photos(shared), shared / "half-made", {"training.keep_checkpoints": 9, "training.ema_decay": 0.9})
        (shared / "half-made").rename(target)
    return target


def sharded(shared: Path) -> Path:
    """The run's model in several files of weights."""

    def make(folder: Path) -> None:
        import vithub

        model = vithub.HubDeiTForImageClassification.from_pretrained(run(shared))
        model.save_pretrained(folder, max_shard_size="40KB")
        shutil.copy(run(shared) / "preprocessor_config.json", folder)

    return made(shared, "sharded", make)


def detector(shared: Path) -> Path:
    """A saved detector without training, of three classes."""

    def make(folder: Path) -> None:
        import torch
        from transformers import DetrImageProcessor

        import vithub

        torch.manual_seed(0)
        fields = {**DETECTOR, "id2label": dict(enumerate(CLASSES))}
        vithub.HubDetrForObjectDetection(vithub.HubDetrConfig(**fields)).save_pretrained(folder)
        DetrImageProcessor(size={"shortest_edge": 48, "longest_edge": 96}).save_pretrained(folder)

    return made(shared, "detector", make)


def backbone(shared: Path) -> Path:
    """A saved ViT without a head."""

    def make(folder: Path) -> None:
        import torch

        import vithub

        torch.manual_seed(0)
        sizes = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2, "image_size": 12, "patch_size": 4}
        vithub.HubViTModel(vithub.HubViTConfig(**sizes)).save_pretrained(folder)
        shutil.copy(run(shared) / "preprocessor_config.json", folder)

    return made(shared, "backbone", make)


def copied_run(shared: Path, target: Path) -> Path:
    """A run's folder to damage."""
    return shutil.copytree(run(shared), target)


def scene_images(folder: Path) -> None:
    """The images of `SCENES` as `0.png`, `1.png` and so on."""
    import numpy as np
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    for number, ((width, height), _) in enumerate(SCENES):
        pixels = np.random.default_rng(number).integers(0, 255, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")


def coco_content() -> dict[str, Any]:
    """`SCENES` as the content of a COCO file."""
    images, annotations = [], []
    for number, ((width, height), objects) in enumerate(SCENES):
        images.append({"id": 100 + number, "file_name": f"{number}.png", "width": width, "height": height})
        for (left, top, right, bottom), category in objects:
            box = [left, top, right - left, bottom - top]
            annotations.append(
                {"id": len(annotations) + 1, "image_id": 100 + number, "category_id": 3 + category, "bbox": box,
                 "area": box[2] * box[3], "iscrowd": 0}
            )  # fmt: skip
    categories = [{"id": 3 + number, "name": name} for number, name in enumerate(CLASSES)]
    return {"images": images, "annotations": annotations, "categories": categories}


def coco(shared: Path) -> Path:
    """The folder of a COCO data set."""

    def make(folder: Path) -> None:
        scene_images(folder / "images")
        (folder / "annotations.json").write_text(json.dumps(coco_content()))

    return made(shared, "coco", make)


@contextlib.contextmanager
def no_drawing() -> Iterator[None]:
    """Saves figures as empty pictures: they take longer than all else, and are drawn in full where they matter."""
    from matplotlib.figure import Figure
    from PIL import Image

    drawn = Figure.savefig
    Figure.savefig = lambda self, file, **options: Image.new("RGB", (2, 2)).save(file)  # type: ignore[method-assign]
    try:
        yield
    finally:
        Figure.savefig = drawn  # type: ignore[method-assign]


__all__ = [
    "CLASSES",
    "DETECTOR",
    "QUICK",
    "SCENES",
    "backbone",
    "coco",
    "coco_content",
    "copied_run",
    "detector",
    "made",
    "no_drawing",
    "photos",
    "run",
    "scene_images",
    "settle",
    "sharded",
    "tidy",
    "train",
    "train_detector",
]
