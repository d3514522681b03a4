"""Images per CPU second of training loaders: ours, torchvision's v2 transforms and timm's, at equal augmentation.

python benchmarks/loader.py --output benchmarks/results/loader.json
python benchmarks/loader.py --data FOLDER_OR_HUB_ID
python benchmarks/loader.py --boxes FOLDER --output benchmarks/results/loader_boxes.json   # see loader_boxes.py

All arms read the same JPEGs from memory with the augmentation of the preset `finetune` at 224 pixels, one thread each:
random resized crop, bicubic, flip, and jitter of brightness, contrast and saturation. In every round they take turns on
the same images, and what counts is the CPU time of the process, not the clock. Two halves of ours are told apart: the
loading process's, which ends in uint8, and the last steps, which a GPU makes for whole batches and a CPU in the loading
process. The peers do all of it in the loading process; both figures are therefore given.
"""

import argparse
import io
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import ClassLabel, Dataset, Features
from datasets import Image as ImageFeature
from PIL import Image
from timm.data import create_transform
from torchvision.transforms import v2
from vithub.data.labelled.augmentation import TrainTransform
from vithub.data.labelled.dataset import LabelledImages, collate
from vithub.data.labelled.tables import load_image_data
from vithub.data.pixels.cache import PixelCache
from vithub.data.samplers import SampleKey
from vithub.training.recipe.presets import preset

SIDE, MEAN, STD = 224, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
VERSIONS = ("torch", "torchvision", "transformers", "timm", "pillow")
Arm = Callable[[Sequence[int], int], Any]


def synthetic(count: int) -> Dataset:
    """JPEGs of 320 x 240 pixels, of shapes and grain, that compress about as photos do (20 to 30 KB)."""
    generator, images = np.random.default_rng(0), []
    for _ in range(count):
        coarse = generator.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((320, 240), Image.Resampling.BICUBIC)).astype(int)
        grain = generator.normal(0, 9, smooth.shape)
        stream = io.BytesIO()
        Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8)).save(stream, "JPEG", quality=85)
        images.append({"bytes": stream.getvalue(), "path": None})
    features = Features({"image": ImageFeature(decode=False), "label": ClassLabel(names=["a", "b"])})
    return Dataset.from_dict({"image": images, "label": [n % 2 for n in range(count)]}, features=features)


def arms(table: Dataset) -> dict[str, Arm]:
    """Each arm loads a batch of rows in an epoch."""
    augmentation = preset("finetune").augmentation
    transform = TrainTransform(augmentation, (SIDE, SIDE), MEAN, STD)
    plain, cached = LabelledImages(table, transform), LabelledImages(table, transform)
    cached.cache = PixelCache(len(table), 2**32)

    def ours(images: LabelledImages, finish: bool) -> Arm:
        def load(rows: Sequence[int], epoch: int) -> Any:
            batch = collate([images[SampleKey(row, epoch, row)] for row in rows])
            return images.finish(batch) if finish else batch

        return load

    def peer(steps: Callable[[Image.Image], torch.Tensor]) -> Arm:
        def load(rows: Sequence[int], epoch: int) -> Any:  # noqa: ARG001
            samples = []
            for row in rows:
                stored = table[row]
                image = Image.open(io.BytesIO(stored["image"]["bytes"])).convert("RGB")
                samples.append({"pixel_values": steps(image), "labels": torch.tensor(stored["label"])})
            return collate(samples)

        return load

    strength = augmentation.color_jitter
    torchvision_steps = v2.Compose([
        v2.RandomResizedCrop(SIDE, augmentation.scale, augmentation.ratio, v2.InterpolationMode.BICUBIC),
        v2.RandomHorizontalFlip(augmentation.horizontal_flip),
        v2.ColorJitter(strength, strength, strength),
        v2.PILToTensor(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(MEAN, STD),
    ])  # fmt: skip
    timm_steps = create_transform(
        SIDE, is_training=True, scale=augmentation.scale, ratio=augmentation.ratio, hflip=augmentation.horizontal_flip,
        color_jitter=(strength,) * 3, auto_augment=None, interpolation="bicubic", mean=MEAN, std=STD,
    )  # fmt: skip
    return {
        "ours, uint8": ours(plain, False),
        "ours, uint8, cached": ours(cached, False),
        "ours, finished on the CPU": ours(plain, True),
        "ours, finished on the CPU, cached": ours(cached, True),
        "torchvision v2": peer(torchvision_steps),
        "timm": peer(timm_steps),
    }


def main() -> None:
    """Prints medians of images per CPU second, and of the ratios of each round, as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder or Hub id of labelled images; default: synthetic JPEGs of 320 x 240")
    parser.add_argument("--boxes", help="folder of images with boxes, to measure the loading of detectors instead")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.boxes is not None:
        from loader_boxes import box_arms

        if options.data is not None:
            parser.error("--data and --boxes are two data sets: give one")
        table, loaders = box_arms(options.boxes)
        peers, batch = ("torchvision v2 and DetrImageProcessor", "ours up to 0.1"), 8
        data = f"{Path(options.boxes).name}, training split"
    else:
        table = synthetic(options.images) if options.data is None else load_image_data(options.data).train
        loaders, peers, batch = arms(table), ("torchvision v2", "timm"), 32
        data = options.data or "synthetic JPEGs, 320 x 240"
    rows, load = range(min(options.images, len(table))), os.getloadavg()[0]
    batches = [rows[first : first + batch] for first in range(0, len(rows), batch)]
    speeds: dict[str, list[float]] = {name: [] for name in loaders}
    for turn in range(options.rounds + 1):
        names = list(loaders)[turn % len(loaders) :] + list(loaders)[: turn % len(loaders)]
        spent = dict.fromkeys(names, 0.0)
        for part in batches:  # in turns batch by batch, so that a disturbance meets every arm
            for name in names:
                begun = time.process_time()
                loaders[name](part, turn)
                spent[name] += time.process_time() - begun
        if turn:  # the first fills the cache and warms up
            for name in names:
                speeds[name].append(len(rows) / spent[name])
    found = {
        "date": datetime.now(UTC).date().isoformat(),
        "data": data,
        "images": len(rows),
        "rounds": options.rounds,
        "images_per_cpu_second": {name: round(statistics.median(values)) for name, values in speeds.items()},
        **{f"ratio_to_{peer.replace(' ', '_').replace('.', '_')}": ratios(speeds, peer) for peer in peers},
        "load": [round(load, 1), round(os.getloadavg()[0], 1)],
        "machine": {"cpu": cpu_name(), "cores": os.cpu_count(), "system": platform.system()},
        "versions": {name: version(name) for name in VERSIONS},
    }
    text = json.dumps(found, indent=1)
    print(text)
    if options.output is not None:
        options.output.write_text(text + "\n", encoding="utf-8")


def ratios(speeds: dict[str, list[float]], peer: str) -> dict[str, float]:
    """Median over the rounds of each arm's ratio to a peer in the same round."""
    return {
        name: round(statistics.median(a / b for a, b in zip(values, speeds[peer], strict=True)), 2)
        for name, values in speeds.items()
        if name.startswith("ours") and name != peer
    }


def cpu_name() -> str:
    """Name of the processor, where the system states it."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text(encoding="utf-8").splitlines() if facts.is_file() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
