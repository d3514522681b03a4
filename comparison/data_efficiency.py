"""Accuracy against the number of training images: a CNN, a ViT, a DeiT with that CNN as teacher, and a hybrid.

Each network is trained from scratch with one recipe, on nested parts of the training images, with the same number of
steps and images per step as on all of them: a part is repeated (and augmented anew) to the length of the whole. Each
training is a cell, `vithub.finetune` into its own folder; finished cells are not trained again.
"""

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import broadcast_object_list
from datasets import Dataset, DatasetDict
from transformers import PreTrainedModel

from ..configuration.configuration_deit import HubDeiTConfig
from ..configuration.configuration_vit import HubViTConfig
from ..data.columns import LABEL
from ..data.image_processing import build_image_processor
from ..data.labelled.tables import ImageData, load_image_data
from ..data.seeding import derived_generator, derived_seed
from ..data.sources import DataError
from ..data.text.json_text import json_text
from ..data.whole_files import write_whole
from ..hub.checkpoints import CheckpointError, read_json
from ..hub.progress_bars import quiet_transformers
from ..modeling.modeling_deit import HubDeiTForImageClassification
from ..modeling.modeling_vit import HubViTForImageClassification
from ..training.finetuning import finetune
from ..training.recipe.presets import preset
from ..training.runtime.processes import process_state
from ..training.runtime.progress import QuietReporter, Reporter
from .curves import data_section
from .measurement import Section
from .small_networks import ConvStemViT, ConvStemViTConfig, SmallResNet, SmallResNetConfig

ARCHITECTURES = ("CNN", "ViT", "DeiT", "hybrid")
FRACTIONS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0)
CELL, GRID = "cell.json", "grid.json"


@dataclass(frozen=True)
class GridSettings:
    """Settings of the grid of trainings.

    Args:
        fractions: Shares of the training images, in (0, 1].
        seeds: Seeds of weights, order and selection of images; three or more are needed for a useful interval.
        architectures: Names from `ARCHITECTURES`; the DeiT needs the CNN.
        epochs: Passes over a table as long as all training images.
        batch_size: Images per step.
        image_size: Side of the images in pixels, a power of two from 16; the ViTs divide them into 8 x 8 patches.
        hidden_size: Hidden size of the ViTs, a multiple of 32.
        layers: Number of layers of the ViTs.
        lr: Peak learning rate of all networks.
        train_images: Approximate number of training images that 100 % stands for, in the proportions of the classes;
            None takes all.
        test_images: Largest number of test images; None takes all.
        precision: Number format of the trainings: "auto", "fp32" or "bf16", as `training.precision`.
    """

    fractions: tuple[float, ...] = FRACTIONS
    seeds: tuple[int, ...] = (0, 1, 2)
    architectures: tuple[str, ...] = ARCHITECTURES
    epochs: int = 20
    batch_size: int = 64
    image_size: int = 64
    hidden_size: int = 192
    layers: int = 6
    lr: float = 1e-3
    train_images: int | None = None
    test_images: int | None = None
    precision: str = "auto"

    def __post_init__(self) -> None:
        if unknown := set(self.architectures) - set(ARCHITECTURES):
            named = ", ".join(sorted(map(str, unknown)))
            raise ValueError(f"`architectures` must be among {', '.join(ARCHITECTURES)}, got {named}")
        if "DeiT" in self.architectures and "CNN" not in self.architectures:
            raise ValueError(f"`architectures` with DeiT must name CNN too, its teacher, got {self.architectures}")
        if not all(0 < fraction <= 1 for fraction in self.fractions):
            raise ValueError(f"`fractions` must be above 0 and at most 1, got {self.fractions}")
        if self.image_size < 16 or self.image_size & (self.image_size - 1):
            raise ValueError(f"`image_size` must be a power of two from 16, got {self.image_size}")
        if self.precision not in ("auto", "fp32", "bf16"):
            raise ValueError(f"`precision` must be auto, fp32 or bf16, got {self.precision!r}")


@dataclass(frozen=True)
class Cell:
    """One training of the grid."""

    fraction: float
    seed: int
    architecture: str

    @property
    def name(self) -> str:
        """Name of the cell's folder."""
        return f"{self.architecture.lower()}-{100 * self.fraction:g}-seed{self.seed}"


def measure_data_efficiency(
    data: Any, folder: str | Path, settings: GridSettings, *, part: tuple[int, int] = (0, 1),
    reporter: Reporter | None = None,
) -> Section:  # fmt: skip
    """Trains the cells that are missing in `folder`, and makes the section "data" from all finished ones.

    Under `accelerate launch` the processes share each training; with `part` several launches share the cells.

    Args:
        data: Data set in any form that `finetune` takes.
        folder: Folder of the cells; made if missing, continued if present.
        settings: Settings of the grid.
        part: Pair (i, n): train every n-th combination of fraction and seed, beginning with the i-th (from 0).
        reporter: Receives the progress of each cell; None writes to the log.

    Raises:
        DataError: The data cannot be used, or the folder holds cells of other settings or data.
    """
    reporter = reporter or QuietReporter()
    folder, state = Path(folder).expanduser(), process_state()
    images = load_image_data(data)
    if state.is_main_process:
        _open(folder, settings, images)
    state.wait_for_everyone()
    own = [cell for number, cells in enumerate(grid(settings)) if number % part[1] == part[0] for cell in cells]
    missing = broadcast_object_list([[cell for cell in own if not (folder / cell.name / CELL).is_file()]])[0]
    if state.is_main_process:
        reporter.start("data efficiency", len(own), len(own) - len(missing))
    for cell in missing:
        metrics = _train(cell, images, folder, settings)
        if state.is_main_process:
            reporter.advance(accuracy=100 * metrics["accuracy"])
        state.wait_for_everyone()
    if state.is_main_process:
        reporter.stop()
    return data_section(read_cells(folder), asdict(settings) | {"data": images.name})


def grid(settings: GridSettings) -> list[list[Cell]]:
    """Lists the cells, grouped by fraction and seed, the CNN before the DeiT that it teaches."""
    order = [name for name in ARCHITECTURES if name in settings.architectures]
    return [
        [Cell(fraction, seed, name) for name in order] for seed in settings.seeds for fraction in settings.fractions
    ]


def read_cells(folder: Path) -> list[dict[str, Any]]:
    """Reads the results of all finished cells, sorted."""
    files = sorted(folder.glob(f"*/{CELL}"))
    cells = [_read_cell(file) for file in files]
    return sorted(cells, key=lambda cell: (ARCHITECTURES.index(cell["architecture"]), cell["fraction"], cell["seed"]))


def _read_cell(file: Path) -> dict[str, Any]:
    cell = read_json(file)
    if cell.get("architecture") not in ARCHITECTURES or not {"fraction", "seed"} <= cell.keys():
        raise CheckpointError(f"{file} describes no training: architecture, fraction or seed is missing")
    return cell


def part_rows(labels: Sequence[int], fraction: float, seed: int) -> list[int]:
    """Selects a share of each class's rows, at least one; with one seed, larger parts contain the smaller ones."""
    values = np.asarray(labels)
    order = derived_generator(seed, 1).permutation(len(values))
    kept: list[int] = []
    for label in np.unique(values):
        rows = order[values[order] == label]
        kept += rows[: max(1, round(fraction * len(rows)))].tolist()
    return sorted(kept)


def repeated(rows: Sequence[int], length: int) -> list[int]:
    """Repeats the rows cyclically to `length` rows."""
    return [rows[number % len(rows)] for number in range(length)]


def build_network(architecture: str, settings: GridSettings, labels: Sequence[str]) -> PreTrainedModel:
    """Builds an untrained network; its weights are drawn from torch's generator."""
    names = {"id2label": dict(enumerate(labels)), "label2id": {name: n for n, name in enumerate(labels)}}
    if architecture == "CNN":
        stride = max(1, settings.image_size // 32)
        return SmallResNet(SmallResNetConfig(stem_stride=stride, **names))
    fields: dict[str, Any] = {
        "hidden_size": settings.hidden_size, "num_hidden_layers": settings.layers,
        "num_attention_heads": settings.hidden_size // 32, "image_size": settings.image_size,
        "patch_size": settings.image_size // 8, **names,
    }  # fmt: skip
    if architecture == "DeiT":
        return HubDeiTForImageClassification(HubDeiTConfig(**fields, distillation="hard"))
    if architecture == "hybrid":  # the stem replaces one layer, as in its paper
        return ConvStemViT(ConvStemViTConfig(**{**fields, "num_hidden_layers": max(1, settings.layers - 1)}))
    return HubViTForImageClassification(HubViTConfig(**fields))


def _open(folder: Path, settings: GridSettings, images: ImageData) -> None:
    """Writes or compares the folder's settings; fractions, seeds and architectures may be extended later."""
    free = ("fractions", "seeds", "architectures")
    what = {name: value for name, value in asdict(settings).items() if name not in free}
    what |= {"data": images.name, "sizes": images.sizes}
    file = folder / GRID
    if file.is_file():
        before = {"precision": GridSettings.precision} | read_json(file)  # which 0.1 did not write
        if differences := [
            f"{name} {before.get(name)!r}, not {what[name]!r}" for name in what if before.get(name) != what[name]
        ]:
            raise DataError(f"{folder} holds a grid of another kind: {'; '.join(differences)}")
        return
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(json_text(what, indent=1) + "\n", encoding="utf-8")


def _train(cell: Cell, images: ImageData, folder: Path, settings: GridSettings) -> dict[str, Any]:
    """Trains a cell and writes its `cell.json`; returns its accuracy in [0, 1] and further results."""
    place, state = folder / cell.name, process_state()
    run, start = place / "run", place / "start"
    tables = _tables(cell, images, settings)
    if state.is_main_process:
        if run.is_dir() and not (run / "checkpoints").is_dir():
            shutil.rmtree(run)  # the run was killed before its first checkpoint
        if not start.is_dir():
            _save_start(cell, start, settings, images.labels.names)
    state.wait_for_everyone()
    teacher = folder / Cell(cell.fraction, cell.seed, "CNN").name / "run" if cell.architecture == "DeiT" else None
    values: dict[str, Any] = {
        "model.source": str(start), "augmentation.crop": "random_resized", "augmentation.scale": [0.35, 1.0],
        "augmentation.rand_augment": None, "augmentation.random_erasing": 0.0, "model.fields": {},
        "training.batch_size": settings.batch_size, "training.lr": settings.lr, "training.publish": "last",
        "training.warmup": 0.1, "training.warmup_unit": "ratio", "training.trackers": [],
        "training.precision": settings.precision,
        "training.keep_checkpoints": 1, "evaluation.crop_ratio": 1.0, "evaluation.batch_size": 256,
    }  # fmt: skip
    resume = broadcast_object_list([(run / "checkpoints").is_dir()])[0]
    finished = finetune(
        data=tables, output=run, recipe=preset("from-scratch-small"), epochs=settings.epochs, seed=cell.seed,
        values=values, teacher=None if teacher is None else str(teacher), resume=resume,
    )  # fmt: skip
    metrics = finished.metrics
    found = {
        **asdict(cell),
        "accuracy": metrics["test"]["accuracy"],
        "interval": metrics["intervals"]["accuracy"],
        "train_images": len(_rows(images, settings, cell)[0]),
        "test_images": len(tables["test"]),
        "parameters": metrics["parameters"],
        "steps": metrics["history"][-1].get("step", settings.epochs * (len(tables["train"]) // settings.batch_size)),
        "seconds": metrics["seconds"],
        "precision": metrics["precision"],
    }
    if state.is_main_process:
        shutil.rmtree(run / "checkpoints", ignore_errors=True)
        shutil.rmtree(start)
        write_whole(place / CELL, json_text(found, indent=1) + "\n")
    return found


def _rows(images: ImageData, settings: GridSettings, cell: Cell) -> tuple[list[int], int]:
    """Returns the rows of a cell's part in the training table, and the number of rows that 100 % stands for."""
    labels = list(images.train[LABEL])
    share = 1.0 if settings.train_images is None else min(1.0, settings.train_images / len(labels))
    whole = part_rows(labels, share, 0)
    return [whole[row] for row in part_rows([labels[row] for row in whole], cell.fraction, cell.seed)], len(whole)


def _tables(cell: Cell, images: ImageData, settings: GridSettings) -> DatasetDict:
    """Returns a cell's training, validation and test images.

    The training part is repeated to the length of the whole; few images are for validation, as nothing is selected by
    them.
    """
    if images.test is None:
        raise DataError(
            f"{images.name} has no test split, on which the section data judges its trainings: add one, or leave the "
            "section out"
        )
    rows, whole = _rows(images, settings, cell)
    train: Dataset = images.train.select(repeated(rows, max(whole, settings.batch_size)))
    test = images.test.shuffle(seed=0).select(range(min(settings.test_images or len(images.test), len(images.test))))
    validation = images.validation.select(range(min(64, len(images.validation))))
    return DatasetDict({"train": train, "validation": validation, "test": test})


def _save_start(cell: Cell, start: Path, settings: GridSettings, labels: Sequence[str]) -> None:
    """Saves the untrained network, drawn with the cell's seed, as a folder."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(cell.seed, 2))
        model = build_network(cell.architecture, settings, labels)
    start.parent.mkdir(parents=True, exist_ok=True)
    with quiet_transformers():
        model.save_pretrained(start)
    build_image_processor((settings.image_size,) * 2, crop_ratio=1.0).save_pretrained(start)


__all__ = [
    "ARCHITECTURES",
    "FRACTIONS",
    "Cell",
    "GridSettings",
    "build_network",
    "grid",
    "measure_data_efficiency",
    "part_rows",
    "read_cells",
    "repeated",
]
