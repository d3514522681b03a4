"""Measuring a saved classifier: the function behind `vithub evaluate`."""

import json
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from ..data.image_data import LabelledTables, load_image_data, read_labelled_tables
from ..data.image_dataset import EvaluationTransform, LabelledImages
from ..data.sources import DataError
from ..hub.checkpoints import locate
from ..hub.folders import new_folder
from .any_classifier import load_classifier
from .evaluating import default_workers, evaluate_classifier
from .figures import save_confusion_matrix
from .progress import QuietReporter, Reporter
from .recipe import Recipe
from .run_folder import METRICS, RECIPE


def evaluate(
    folder: str | Path,
    data: Any = None,
    split: str | None = None,
    *,
    out: str | Path | None = None,
    label_column: str | None = None,
    batch_size: int = 64,
    workers: int | None = None,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Metrics of a classifier on labelled images, computed as `pipeline` computes them.

    Args:
        folder: A run's folder, or any saved classifier's, or a Hub id.
        data: As `finetune`; None takes what the run was trained on, with the same splits.
        split: "train", "validation" or "test"; None takes the one that the run reported, or "test" where there is one.
        out: A new folder for `metrics.json` and `confusion_matrix.png`.
        label_column: Its name; None finds it.
        batch_size: Images at once.
        workers: Loading processes; None goes by the number of cores.
        reporter: Told of the progress.

    Returns:
        `split`, `images`, `metrics` (see `ClassificationCounts.compute`), `per_class` and `confusion`.

    Raises:
        DataError: The data cannot be used, or has a label that the model does not know.
    """
    reporter = reporter or QuietReporter()
    path = locate(folder)
    model, processor = load_classifier(path)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    found, split = _tables(path, data, split, label_column)
    table, names = found.tables[split], found.labels.names
    labelled = LabelledImages(table, EvaluationTransform(processor), name=split)
    counts = evaluate_classifier(
        _Relabelled(model, _numbers(names, model.config.id2label)), labelled, len(names), batch_size=batch_size,
        workers=default_workers() if workers is None else workers, multi_label=found.labels.multi_label,
        reporter=reporter,
    ).counts  # fmt: skip
    result = {
        "model": str(folder),
        "data": found.name,
        "split": split,
        "images": len(table),
        "metrics": counts.compute(),
        "per_class": counts.per_class(list(names)),
        "confusion": counts.confusion.tolist(),
    }
    if out is not None:
        with new_folder(out) as staging:
            (staging / METRICS).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
            save_confusion_matrix(counts.confusion.numpy(), list(names), staging / "confusion_matrix.png")
    return result


def _tables(path: Path, data: Any, split: str | None, label_column: str | None) -> tuple[LabelledTables, str]:
    """The labelled tables to choose from and the split to take."""
    column = {"label_column": label_column} if label_column else {}
    if data is not None:
        found = read_labelled_tables(data, **column)
        split = split or ("test" if "test" in found.tables else list(found.tables)[-1])
    else:
        if not (path / RECIPE).is_file():
            raise DataError(f"{path} holds no {RECIPE}, so that its data is not known; name it with --data")
        settings = Recipe.from_yaml(path / RECIPE).data.model_dump(exclude={"workers"})
        images = load_image_data(settings.pop("source"), **settings | column)
        found = LabelledTables(images.name, images.labels, images.splits)
        split = split or json.loads((path / METRICS).read_text(encoding="utf-8"))["reported_split"]
    if split not in found.tables:
        raise DataError(f"there is no split {split!r}; there are {', '.join(found.tables)}")
    return found, split


def _numbers(names: tuple[str, ...], id2label: dict[int, str]) -> list[int]:
    """The model's number of each label of the data."""
    known = {name: number for number, name in id2label.items()}
    if unknown := [name for name in names if name not in known]:
        raise DataError(
            f"the model does not know the label{'' if len(unknown) == 1 else 's'} {', '.join(unknown[:12])}; it knows "
            f"{', '.join(list(known)[:12])}"
        )
    return [known[name] for name in names]


class _Relabelled(torch.nn.Module):
    """A classifier whose logits are in the order of the data's labels."""

    def __init__(self, model: torch.nn.Module, numbers: list[int]) -> None:
        super().__init__()
        self.model, self.numbers = model, numbers

    def forward(self, pixel_values: torch.Tensor) -> Any:
        outputs = self.model(pixel_values=pixel_values)
        outputs.logits = outputs.logits[:, self.numbers]
        return outputs


def result_table(result: dict[str, Any]) -> Table:
    """A result for a terminal."""
    metrics = result["metrics"]
    title = f"{result['data']}, {result['split']} split, {result['images']} images: accuracy {metrics['accuracy']:.2%}"
    table = Table("class", title=title, title_justify="left")
    for column in ("images", "precision", "recall", "F1"):
        table.add_column(column, justify="right")
    for row in result["per_class"]:
        table.add_row(
            row["label"], str(row["images"]), f"{row['precision']:.1%}", f"{row['recall']:.1%}", f"{row['f1']:.1%}"
        )
    top5 = f"top-5 {metrics['top5_accuracy']:.2%}, " if len(result["per_class"]) > 5 else ""
    table.caption = f"{top5}macro F1 {metrics['macro_f1']:.2%}, loss {metrics['loss']:.4f}"
    return table


__all__ = ["evaluate", "result_table"]
