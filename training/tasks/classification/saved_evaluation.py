"""Evaluation of a saved classifier on labelled images, as `vithub evaluate` runs and shows it."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table
from rich.text import Text

from ....data.labelled.dataset import EvaluationTransform, LabelledImages
from ....data.labelled.labels import shown_names
from ....data.labelled.tables import LabelledTables, load_image_data, read_labelled_tables
from ....data.sources import DataError
from ....data.splits import check_split
from ....data.text.terminal_text import visible
from ....hub.inference_loading import run_model
from ....hub.ready_model import Backend
from ...recipe.run_data import reported_split, run_data
from ..evaluation import Evaluation
from ..plots import save_confusion_matrix
from .evaluation import LabelEvaluator
from .loading import load_classifier


class SavedClassifier:
    """Classifier with the labelled images to evaluate it on.

    Args:
        path: Folder of the model.
        name: Name of the model in messages.
        data: Data set in any form that `finetune` takes; None takes the run's training data.
        split: Name of the split; None takes the split that the run reported, or for given data "test" if it exists,
            else the last.
        label_column: Name of the column of labels; None finds it.
        skip_bad: Whether images that cannot be decoded are left out.
        backend: Exported form to run in place of the weights, such as "onnx", or a loaded model; None takes what is
            there.

    Raises:
        DataError: The data cannot be used, has a label that the model does not know, or has single labels where the
            model gives several per image, or the reverse.
    """

    def __init__(
        self,
        path: Path,
        name: str,
        data: Any,
        split: str | None,
        label_column: str | None,
        skip_bad: bool,
        backend: Backend = None,
    ) -> None:
        self.name, self.skip_bad = name, skip_bad
        self.model, self.processor = load_classifier(path, backend=backend)
        self.found, self.split = _tables(path, data, split, label_column)
        self.data, self.rows = self.found.name, self.found.tables[self.split]
        self.multi_label = self.found.labels.multi_label
        if self.multi_label != (self.model.config.problem_type == "multi_label_classification"):
            one, other = ("any number of labels", "one") if self.multi_label else ("one label", "any number")
            raise DataError(
                f"an image of {self.data} has {one}, and the model {name} gives {other}: name data of the kind that it "
                "was trained on"
            )
        self.order = label_order(self.found.labels.names, self.model.config.id2label, only_these=self.multi_label)

    def evaluator(self, device: torch.device) -> LabelEvaluator:
        """Returns an evaluator of the split, with the classes in the data's order."""
        self.model.to(device)
        width = len(self.order) if self.multi_label else None
        transform = EvaluationTransform(self.processor)
        images = LabelledImages(self.rows, transform, width, name=self.split, skip_bad=self.skip_bad)
        relabelled = _Relabelled(self.model, self.order, self.name)
        evaluator = LabelEvaluator(relabelled, images, len(self.order), self.multi_label)
        evaluator.largest_batch = getattr(self.model, "largest_batch", None)
        return evaluator

    def results(self, evaluation: Evaluation) -> dict[str, Any]:
        """Returns metrics, and results per class for the data's classes and other classes that the model predicted."""
        counts: Any = evaluation.metrics
        names = [self.model.config.id2label[number] for number in self.order]
        rows, confusion = counts.per_class(names), counts.confusion
        if confusion is None:
            return {"metrics": counts.compute(), "labels": names, "per_class": rows, "confusion": None}
        known = len(self.found.labels.names)
        shown = [number for number in range(len(names)) if number < known or confusion[:, number].any()]
        return {
            "metrics": counts.compute(),
            "labels": [names[number] for number in shown],
            "per_class": [rows[number] for number in shown],
            "confusion": confusion[shown][:, shown].tolist(),
        }

    def save_plots(self, folder: Path, evaluation: Evaluation, results: dict[str, Any]) -> None:  # noqa: ARG002
        """Writes `confusion_matrix.png`, if each image has one label."""
        if results["confusion"] is not None:
            confusion = np.array(results["confusion"])
            save_confusion_matrix(confusion, results["labels"], folder / "confusion_matrix.png")


def _tables(path: Path, data: Any, split: str | None, label_column: str | None) -> tuple[LabelledTables, str]:
    """Returns the labelled tables and the name of the split to evaluate."""
    column = {"label_column": label_column} if label_column else {}
    if data is not None:
        found = read_labelled_tables(data, **column)
        split = split or ("test" if "test" in found.tables else list(found.tables)[-1])
    else:
        settings = run_data(path)
        images = load_image_data(settings.source, **settings.reading() | column)
        found = LabelledTables(images.name, images.labels, images.splits)
        split = split or reported_split(path)
    check_split(split, found.tables, found.name)
    return found, split


def label_order(
    names: tuple[str, ...], id2label: dict[int, str], only_these: bool, model: str = "the model"
) -> list[int]:
    """Returns the model's index of each label of the data, followed by its other labels, which it may predict too.

    Args:
        names: Label names of the data.
        id2label: Label names of the model by index.
        only_these: Whether to leave out the model's other labels.
        model: Name of the model in messages.

    Raises:
        DataError: The model does not know a label.
    """
    known = {name: number for number, name in id2label.items()}
    if unknown := [name for name in names if name not in known]:
        raise DataError(
            f"{model} does not know the label{'' if len(unknown) == 1 else 's'} {shown_names(unknown)}; it knows "
            f"{shown_names(list(known))}. Name data with these labels, or finetune the model on this data first"
        )
    own = [known[name] for name in names]
    return own if only_these else own + [number for number in id2label if number not in set(own)]


class _Relabelled(torch.nn.Module):
    """Classifier with reordered logits, such as in the order of the data's labels."""

    def __init__(self, model: torch.nn.Module, numbers: list[int], source: str | Path) -> None:
        super().__init__()
        self.model, self.numbers, self.source = model, numbers, source

    def forward(self, pixel_values: torch.Tensor) -> Any:
        outputs = run_model(self.model, self.source, pixel_values=pixel_values)
        outputs.logits = outputs.logits[:, self.numbers]
        return outputs


def classifier_table(result: dict[str, Any]) -> Table:
    """Formats the result of an evaluation for a terminal."""
    metrics = result["metrics"]
    title = f"{result['data']}, {result['split']} split, {result['images']} images: accuracy {metrics['accuracy']:.2%}"
    table = Table("class", title=Text(visible(title)), title_justify="left")
    for column in ("images", "precision", "recall", "F1"):
        table.add_column(column, justify="right")
    for row in result["per_class"]:
        shares = (f"{row[name]:.1%}" for name in ("precision", "recall", "f1"))
        table.add_row(Text(visible(row["label"])), str(row["images"]), *shares)
    shown = {"mean_average_precision": "mean average precision", "top5_accuracy": "top-5", "macro_f1": "macro F1"}
    if len(result["labels"]) <= 5:
        del shown["top5_accuracy"]
    parts = [f"{text} {metrics[name]:.2%}" for name, text in shown.items() if name in metrics]
    table.caption = ", ".join([*parts, f"loss {metrics['loss']:.4f}"])
    if bad := len(result["bad_images"]):
        table.caption += f"\n{bad} image{'' if bad == 1 else 's'} could not be decoded and count for nothing"
    return table


__all__ = ["SavedClassifier", "classifier_table", "label_order"]
