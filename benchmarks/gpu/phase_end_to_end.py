"""Finetuning from JPEG files with the loader, against the same steps on images that are on the device already."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from check import Check, Record, in_turns, measured
from phase_throughput import SIZES, batch, build, training_step
from train_once import Heard

CLASSES = ("daisy", "dandelion", "rose", "tulip")


def jpegs(check: Check, count: int) -> Path:
    """Folder with a folder of JPEG files per class: the given photos repeated, or generated ones of 320 x 240."""
    from PIL import Image

    folder = check.folder / "jpegs"
    given = sorted(check.photos.rglob("*.jp*g")) if check.photos else []
    draws = np.random.default_rng(0)
    for number in range(count):
        kind = CLASSES[number % len(CLASSES)]
        file = folder / kind / f"{number:06}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        if given:
            file.write_bytes(given[number % len(given)].read_bytes())
        else:
            coarse = draws.integers(0, 255, (15, 20, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize((320, 240), Image.Resampling.BICUBIC).save(file, quality=90)
    return folder


def finetuning_from_jpegs(check: Check) -> Iterator[Record]:
    """Images per second of `finetune` on a ViT-S/16 in bf16, part of the time that waits for images, memory."""
    import vithub

    size, count = SIZES["S"][4], 24 if check.tiny else 8192
    folder = jpegs(check, count)
    settings: dict[str, Any] = {"training.batch_size": size, "training.max_steps": 90, "training.precision": "bf16"}
    fields: dict[str, Any] = {}
    if check.tiny:
        fields = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
        settings |= {
            "training.batch_size": 4, "training.max_steps": 4, "model.image_size": 32, "data.workers": 0,
            "training.precision": "fp32",
        }  # fmt: skip
    heard = Heard()
    begun = time.perf_counter()
    run = vithub.finetune(
        model="vit-s/16", data=folder, output=check.folder / "run", preset="finetune", reporter=heard,
        values={"model.fields": fields, "training.epochs": 100, "training.trackers": [],
                "training.keep_checkpoints": 0, **settings},
    )  # fmt: skip
    entry = run.metrics["history"][-1]
    yield measured(
        files=count, given_photos=check.photos is not None, images_per_second=round(entry["images_per_second"], 2),
        waited_for_images=round(entry["waited_for_images"], 3), last_rate_shown=round(heard.rates[-1], 2),
        peak_memory_mb=entry["peak_memory_mb"], whole_run_seconds=round(time.perf_counter() - begun, 1),
    )  # fmt: skip
    pixels, labels = batch("S", check)
    step = training_step(build("vithub", "S", check), pixels, labels, check)
    times = in_turns({"step": step}, check, rounds=3, seconds=0.7)["step"]
    synthetic = len(labels) / sorted(times)[len(times) // 2]
    yield measured(
        synthetic_images_per_second=round(synthetic, 2),
        share_of_synthetic=round(entry["images_per_second"] / synthetic, 3),
    )


def the_loader_alone(check: Check) -> Record:
    """Images per second that the loading processes decode, augment and collate, with nothing trained."""
    from vithub.training.recipe.presets import preset
    from vithub.training.tasks.registry import build_task

    folder = check.folder / "jpegs"
    size = 4 if check.tiny else SIZES["S"][4]
    values: dict[str, Any] = {
        "model.source": "vit-ti/16", "data.source": str(folder), "training.batch_size": size, "training.max_steps": 40,
        "training.epochs": 100,
    }  # fmt: skip
    if check.tiny:
        values |= {"model.image_size": 32, "data.workers": 0, "training.max_steps": 4}
    task = build_task(preset("finetune").with_values(values), None, 1, None)
    loader = iter(task.train_loader())
    for _ in range(1 if check.tiny else 10):  # the queues of the loading processes are full afterwards
        next(loader)
    begun, images = time.perf_counter(), 0
    for found in loader:
        images += len(found["pixel_values"])
    rate = images / (time.perf_counter() - begun)
    return measured(
        images=images, workers=task.workers, images_per_second=round(rate, 2), threads=torch.get_num_threads()
    )


STEPS = (finetuning_from_jpegs, the_loader_alone)
