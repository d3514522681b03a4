"""Settings and fixtures that all tests share."""

import gc
import json
import os
import random
import zlib

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["MPLBACKEND"] = "Agg"
os.environ["OMP_NUM_THREADS"] = "1"  # the tests run in parallel; for the processes that they start, too

import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
import transformers
from filelock import FileLock
from hypothesis import settings
from vithub.data.seeding import seed_torch

import vithub

transformers.utils.logging.disable_progress_bar()
torch.set_num_threads(1)
os.fsync = lambda descriptor: None  # what it guards against, a power cut, no test sees, and a training waits for it

settings.register_profile("vithub", deadline=None, derandomize=True, max_examples=40)
settings.load_profile("vithub")

# The longest tests begin first, so that no process is left to work alone at the end.
FIRST = (
    "test_every_cell_runs",
    "test_many_processes.py",
    "two_processes",
    "killed",
    "interrupted_at_any_moment",
)


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        absent = pytest.mark.skip(reason="needs a CUDA device, and torch finds none here")
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(absent)
    items.sort(key=lambda item: not any(name in item.nodeid for name in FIRST))


def seed_from(name):
    """Seeds the global generators by a name, so that no test depends on what ran before it in its process."""
    seed = zlib.crc32(name.encode())
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (libraries draw from the global generator)
    seed_torch(seed)


def pytest_fixture_setup(fixturedef, request):
    seed_from(f"{fixturedef.baseid}::{fixturedef.argname}")


def pytest_runtest_call(item):
    seed_from(item.nodeid)


def pytest_collection_finish(session):
    """Collections of garbage, which some libraries ask for at every step, no longer look at all that was imported."""
    gc.collect()
    gc.freeze()


# Sizes of a model that computes in milliseconds: 4 x 4 patches of 8 x 8 pixels.
TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
    "num_labels": 5,
}

# A detector that computes in milliseconds, on a ResNet with four stages.
TINY_RESNET = {
    "model_type": "resnet",
    "embedding_size": 8,
    "hidden_sizes": [8, 16, 16, 32],
    "depths": [1, 2, 1, 2],
    "layer_type": "basic",
    "out_features": ["stage4"],
}
TINY_DETR = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "num_queries": 10,
    "num_labels": 3,
}

# A training of a second: a DeiT of 28,000 parameters that sees digits of 12 x 12 pixels, in fp32 and in this process.
QUICK = {
    "model.source": "deit-ti/4",
    "model.image_size": 12,
    "model.fields": {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2, "initializer_range": 0.1},
    "data.test_fraction": 0.2,
    "data.workers": 0,
    "augmentation.crop": "padded",
    "augmentation.horizontal_flip": 0.0,
    "training.epochs": 2,
    "training.batch_size": 40,
    "training.lr": 4e-3,
    "training.warmup": 1,
    "training.precision": "fp32",
    "training.trackers": [],
    "evaluation.crop_ratio": 1.0,
}
# A training of a quarter of a minute: a detector that finds some of the squares of `detector_data`.
QUICK_DETECTOR = {
    "model.fields": {
        **TINY_DETR,
        "backbone_config": {**TINY_RESNET, "hidden_sizes": [16, 16, 32, 32], "out_features": ["stage2"]},
        "encoder_layers": 1,
        "num_queries": 8,
        "frozen_stages": 0,
        "freeze_batch_norm": False,
        "anchor_queries": True,
        "denoising_queries": 8,
        "focal_loss": True,
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "activation_dropout": 0.0,
    },
    "model.backbone_stride": None,
    "model.image_size": 64,
    "data.workers": 0,
    "data.test_fraction": 0.3,
    "boxes.sides": (800,),
    "boxes.crop": 0.0,
    "training.epochs": 60,
    "training.batch_size": 8,
    "training.lr": 4e-3,
    "training.backbone_lr": 4e-3,
    "training.clip_norm": 5.0,
    "training.warmup": 0,
    "training.precision": "fp32",
    "training.trackers": [],
    "evaluation.batch_size": 8,
}
del QUICK_DETECTOR["model.fields"]["num_labels"]
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@pytest.fixture(scope="session")
def tiny():
    """Makes a tiny configuration: `tiny()` of a ViT, `tiny(vithub.HubDeiTConfig, distillation="hard")` of a DeiT."""

    def make(config_class=vithub.HubViTConfig, **fields):
        return config_class(**{**TINY, **fields})

    return make


@pytest.fixture(scope="session")
def tiny_detr():
    """Makes a tiny configuration of a DETR: `tiny_detr(anchor_queries=True)`."""

    def make(**fields):
        return vithub.HubDetrConfig(**{"backbone_config": dict(TINY_RESNET), **TINY_DETR, **fields})

    return make


@pytest.fixture(scope="session")
def randomised():
    """Moves every parameter (and position table) away from its start, so that none is hidden by being 0 or 1."""

    def make(model, seed=0):
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
        return model.eval()

    return make


@pytest.fixture(scope="session")
def quick():
    """Makes the values of a training of a second: `quick({"training.epochs": 3})`."""

    def make(values=None):
        return QUICK | (values or {})

    return make


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """Makes a folder once for all parallel processes: `once("digits", write)` calls `write(folder)` in the first."""
    root = tmp_path_factory.getbasetemp()
    root = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "once"
    root.mkdir(exist_ok=True)

    def give(name, make):
        with FileLock(root / f"{name}.lock"):
            if not (root / f"{name}.made").exists():
                make(root / name)
                (root / f"{name}.made").touch()
        return root / name

    return give


@pytest.fixture(scope="session")
def trained_once(once, tmp_path_factory):
    """A run that is trained once for all parallel processes, each of which gets a copy of its folder."""
    from vithub.training.finetuning import Run

    def give(name, train):
        def make(folder):
            losses = train(folder).losses
            (folder.parent / f"{name}-losses.json").write_text(json.dumps(losses))

        made = once(name, make)
        folder = shutil.copytree(made, tmp_path_factory.mktemp("runs") / name)
        metrics = json.loads((folder / "metrics.json").read_text())
        losses = json.loads((made.parent / f"{name}-losses.json").read_text())
        return Run(folder, metrics, vithub.load(folder), losses)

    return give


@pytest.fixture(scope="session")
def digit_folders(once):
    """400 real digits as PNG files in one folder per class, so named that the order of the names is another."""
    from vithub.data.digits import digits_dataset

    def write(folder):
        for number, row in enumerate(digits_dataset().select(range(400))):
            file = folder / WORDS[row["label"]] / f"{number:03}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            row["image"].save(file)

    return once("digits", write)


@pytest.fixture(scope="session")
def finished_run(digit_folders, trained_once, quick):
    """A run that has learned something, about half of the labels; tests read its folder and do not write to it."""
    from vithub.training.recipe.recipe import Recipe

    def train(folder):
        values = quick({"training.epochs": 10})
        return vithub.finetune(data=digit_folders, output=folder, recipe=Recipe(), values=values)

    return trained_once("finished", train)


@pytest.fixture(scope="session")
def detector_data():
    """40 images of two shapes with one or two squares, red or blue, on grey."""
    from datasets import ClassLabel, Dataset, Features, Image, List, Value

    draws, images, objects = np.random.default_rng(0), [], []
    for number in range(40):
        pixels = np.full((64, 64 + 16 * (number % 2), 3), 90, np.uint8)
        boxes, classes = [], []
        for _ in range(1 + number % 2):
            side, kind = int(draws.integers(18, 30)), int(draws.integers(2))
            left, top = (int(place) for place in draws.integers(0, 64 - side, 2))
            pixels[top : top + side, left : left + side] = ([240, 30, 30], [30, 30, 240])[kind]
            boxes.append([float(value) for value in (left, top, side, side)])
            classes.append(kind)
        images.append(PIL.Image.fromarray(pixels))
        objects.append({"bbox": boxes, "category": classes})
    kinds = {"bbox": List(List(Value("float64"))), "category": List(ClassLabel(names=["red", "blue"]))}
    return Dataset.from_dict(
        {"image": images, "objects": objects}, features=Features({"image": Image(), "objects": kinds})
    )


@pytest.fixture(scope="session")
def quick_detector():
    """Makes the values of a detector's training on `detector_data`: `quick_detector({"model.fields.dropout": 0.1})`."""

    def make(values=None):
        made = {name: dict(value) if isinstance(value, dict) else value for name, value in QUICK_DETECTOR.items()}
        for name, value in (values or {}).items():
            group, _, field = name.rpartition(".")
            if group == "model.fields":
                made[group][field] = value
            else:
                made[name] = value
        return made

    return make


@pytest.fixture(scope="session")
def detector_run(detector_data, quick_detector, trained_once):
    """The run of a detector that has learned something; tests read its folder and do not write to it."""

    def train(folder):
        return vithub.finetune(data=detector_data, output=folder, preset="detr-small-data", values=quick_detector())

    return trained_once("detector", train)


@pytest.fixture(scope="session")
def real_files():
    """The folder of real data sets and weights that `VITHUB_TEST_DATA` names; without it the test is skipped."""
    named = os.environ.get("VITHUB_TEST_DATA")
    if not named:
        pytest.skip("VITHUB_TEST_DATA names no folder with real data sets and weights")
    folder = Path(named)
    assert (folder / "weights").is_dir(), f"VITHUB_TEST_DATA={folder} has no folder weights"
    assert (folder / "data").is_dir(), f"VITHUB_TEST_DATA={folder} has no folder data"
    return folder


@pytest.fixture(scope="module")
def browser():
    """Chromium of the system; CI sets VITHUB_NEEDS_BROWSER, so that it is never skipped there.

    Not for the whole session: while it is open, its event loop runs in this thread, and no other can.
    """
    needed = os.environ.get("VITHUB_NEEDS_BROWSER")
    if not needed:
        pytest.importorskip("playwright", reason="pages are tested with playwright")
    from playwright import sync_api

    executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if executable is None:
        assert not needed, "there is no chromium; install the package `chromium`"
        pytest.skip("no chromium on the PATH: pages are not tested in a browser")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield started
        started.close()
