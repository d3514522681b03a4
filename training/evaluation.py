"""Measuring a saved classifier or detector: the function behind `vithub evaluate`."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from rich.table import Table
from rich.text import Text

from ..data.argument_names import argument, renamed, stated
from ..data.labelled.dataset import EvaluationTransform, LabelledImages
from ..data.labelled.tables import LabelledTables, load_image_data, read_labelled_tables
from ..data.sources import DataError
from ..data.table_identity import rows_identity
from ..data.text.json_text import json_text
from ..data.text.terminal_text import visible
from ..hub.checkpoints import locate
from ..hub.folders import new_folder
from ..hub.inference_loading import run_model
from ..hub.model_identity import model_identity
from .run_data import reported_split, run_data
from .run_folder import METRICS
from .runtime.bad_image_errors import way_past_bad_images
from .runtime.loading_processes import named_deaths
from .runtime.processes import new_accelerator
from .runtime.progress import QuietReporter, Reporter
from .tasks.classification.evaluation import default_workers, evaluate_classifier
from .tasks.classification.loading import load_classifier
from .tasks.classification.metrics import ClassificationCounts
from .tasks.classification.multi_label_metrics import MultiLabelCounts
from .tasks.detection.loading import is_detector
from .tasks.detection.run_evaluation import detection_table, evaluate_detections
from .tasks.partial_counts import partial_counts
from .tasks.plots import save_confusion_matrix


@renamed(out="output")
@named_deaths(lambda: f" ({stated(workers=0)})")
def evaluate(
    folder: str | Path,
    data: Any = None,
    split: str | None = None,
    *,
    output: str | Path | None = None,
    label_column: str | None = None,
    batch_size: int = 64,
    workers: int | None = None,
    on_bad_image: str = "error",
    resume: bool = False,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Metrics of a classifier or detector on labelled images, computed as `pipeline` computes them.

    Args:
        folder: A run's folder, or any saved classifier's or detector's, or a Hub id.
        data: As `finetune`; None takes what the run was trained on, with the same splits.
        split: "train", "validation" or "test"; None takes the one that the run reported, or "test" where there is one.
        output: A new folder for `metrics.json` and `confusion_matrix.png`.
        label_column: Its name, of a detector that of the column of objects; None finds it.
        batch_size: Images at once, of a detector at most 8.
        workers: Loading processes; None goes by the number of cores.
        on_bad_image: "error", or "skip" to measure without images that cannot be decoded, and list them.
        resume: Go on with an evaluation into `output` that was killed; its counts so far lie beside that folder.
        reporter: Told of the progress.

    Returns:
        `split`, `images`, `bad_images` (those left out), `metrics` (see `compute` of `ClassificationCounts` and
        `MultiLabelCounts`), and `labels`, `per_class` and `confusion` of the data's labels and of others that the model
        took an image for. Of a detector see `evaluate_detections`.

    Raises:
        DataError: The data cannot be used, has a label that the model does not know, or another number of labels per
            image than the model gives.
    """
    if resume and output is None:
        raise ValueError(f"{argument('resume')} needs {argument('output')}, beside which the counts so far are kept")
    if on_bad_image not in ("error", "skip"):
        raise ValueError(f"{argument('on_bad_image')} must be 'error' or 'skip', got {on_bad_image!r}")
    accelerator = new_accelerator()
    reporter = (reporter or QuietReporter()) if accelerator.is_main_process else QuietReporter()
    path = locate(folder)
    options: dict[str, Any] = {
        "output": None if output is None else Path(output), "label_column": label_column, "batch_size": batch_size,
        "workers": workers, "skip_bad": on_bad_image == "skip", "resume": resume, "accelerator": accelerator,
        "reporter": reporter,
    }  # fmt: skip
    skipping = "measures without such images and lists them"
    if is_detector(path):
        if data is None:  # whose images that are missing stay an error: other splits would be drawn from the rest
            skipping = f"with {argument('data')} {skipping}"
        with way_past_bad_images(on_bad_image, skipping):
            return evaluate_detections(path, data, split, **options)
    with way_past_bad_images(on_bad_image, skipping):
        return _evaluate_labels(path, folder, data, split, **options)


def _evaluate_labels(
    path: Path,
    source: str | Path,
    data: Any,
    split: str | None,
    *,
    output: Path | None,
    batch_size: int,
    workers: int | None,
    skip_bad: bool,
    resume: bool,
    accelerator: Accelerator,
    reporter: Reporter,
    label_column: str | None,
) -> dict[str, Any]:
    """What `evaluate` measures of a classifier."""
    model, processor = load_classifier(path)
    model.to(accelerator.device)
    found, split = _tables(path, data, split, label_column)
    table, names = found.tables[split], found.labels.names
    multi_label = found.labels.multi_label
    if multi_label != (model.config.problem_type == "multi_label_classification"):
        one, other = ("any number of labels", "one") if multi_label else ("one label", "any number")
        raise DataError(f"an image of {found.name} has {one}, the model gives {other}")
    order = label_order(names, model.config.id2label, only_these=multi_label)
    width = len(order) if multi_label else None
    labelled = LabelledImages(table, EvaluationTransform(processor), width, name=split, skip_bad=skip_bad)
    about = {
        "model": str(source), "data": found.name, "split": split, "images": len(table), "batch_size": batch_size
    }  # fmt: skip
    partial = None
    if output is not None:
        made_from = {**model_identity(path), "data": rows_identity(table, range(len(table)))}
        partial = partial_counts(output, about, made_from, accelerator, resume)
    evaluated = evaluate_classifier(
        _Relabelled(model, order, source), labelled, len(order), batch_size=batch_size, multi_label=multi_label,
        workers=default_workers() if workers is None else workers, accelerator=accelerator, reporter=reporter,
        max_bad_share=1 - 1 / len(table) if skip_bad else 0.0, partial=partial,
    )  # fmt: skip
    counts, bad = evaluated.counts, evaluated.bad_images
    result = {
        "model": str(source),
        "data": found.name,
        "split": split,
        "images": len(table) - len(bad),
        "bad_images": bad,
        "metrics": counts.compute(),
        **_by_class(counts, [model.config.id2label[number] for number in order], len(names)),
    }
    if output is not None and accelerator.is_main_process:
        with new_folder(output) as staging:
            (staging / METRICS).write_text(json_text(result, indent=1) + "\n", encoding="utf-8")
            if result["confusion"] is not None:
                confusion = np.array(result["confusion"])
                save_confusion_matrix(confusion, result["labels"], staging / "confusion_matrix.png")
    accelerator.wait_for_everyone()
    if partial is not None and accelerator.is_main_process:
        partial.remove()
    return result


def _by_class(counts: ClassificationCounts | MultiLabelCounts, names: list[str], in_data: int) -> dict[str, Any]:
    """Figures of the first `in_data` classes, and of others that were predicted."""
    rows, confusion = counts.per_class(names), counts.confusion
    if confusion is None:
        return {"labels": names, "per_class": rows, "confusion": None}
    shown = [number for number in range(len(names)) if number < in_data or confusion[:, number].any()]
    return {
        "labels": [names[number] for number in shown],
        "per_class": [rows[number] for number in shown],
        "confusion": confusion[shown][:, shown].tolist(),
    }


def _tables(path: Path, data: Any, split: str | None, label_column: str | None) -> tuple[LabelledTables, str]:
    """The labelled tables to choose from and the split to take."""
    column = {"label_column": label_column} if label_column else {}
    if data is not None:
        found = read_labelled_tables(data, **column)
        split = split or ("test" if "test" in found.tables else list(found.tables)[-1])
    else:
        settings = run_data(path)
        images = load_image_data(settings.source, **settings.reading() | column)
        found = LabelledTables(images.name, images.labels, images.splits)
        split = split or reported_split(path)
    if split not in found.tables:
        raise DataError(f"there is no split {split!r}; there are {', '.join(found.tables)}")
    return found, split


def label_order(
    names: tuple[str, ...], id2label: dict[int, str], only_these: bool, model: str = "the model"
) -> list[int]:
    """The model's number of each label of the data, and after them of its other ones, which an answer may be too.

    Args:
        names: Of the data's labels.
        id2label: Of the model.
        only_these: Leave out the model's other labels.
        model: What a message calls it.

    Raises:
        DataError: The model does not know a label.
    """
    known = {name: number for number, name in id2label.items()}
    if unknown := [name for name in names if name not in known]:
        raise DataError(
            f"{model} does not know the label{'' if len(unknown) == 1 else 's'} {', '.join(unknown[:12])}; it knows "
            f"{', '.join(list(known)[:12])}"
        )
    own = [known[name] for name in names]
    return own if only_these else own + [number for number in id2label if number not in set(own)]


class _Relabelled(torch.nn.Module):
    """A classifier whose logits are in another order, such as that of the data's labels."""

    def __init__(self, model: torch.nn.Module, numbers: list[int], source: str | Path) -> None:
        super().__init__()
        self.model, self.numbers, self.source = model, numbers, source

    def forward(self, pixel_values: torch.Tensor) -> Any:
        outputs = run_model(self.model, self.source, pixel_values=pixel_values)
        outputs.logits = outputs.logits[:, self.numbers]
        return outputs


def result_table(result: dict[str, Any]) -> Table:
    """A result for a terminal."""
    if "errors" in result:
        return detection_table(result)
    metrics = result["metrics"]
    title = f"{result['data']}, {result['split']} split, {result['images']} images: accuracy {metrics['accuracy']:.2%}"
    table = Table("class", title=Text(visible(title)), title_justify="left")
    for column in ("images", "precision", "recall", "F1"):
        table.add_column(column, justify="right")
    for row in result["per_class"]:
        figures = (f"{row[name]:.1%}" for name in ("precision", "recall", "f1"))
        table.add_row(Text(visible(row["label"])), str(row["images"]), *figures)
    shown = {"mean_average_precision": "mean average precision", "top5_accuracy": "top-5", "macro_f1": "macro F1"}
    if len(result["labels"]) <= 5:
        del shown["top5_accuracy"]
    parts = [f"{text} {metrics[name]:.2%}" for name, text in shown.items() if name in metrics]
    table.caption = ", ".join([*parts, f"loss {metrics['loss']:.4f}"])
    if bad := len(result["bad_images"]):
        table.caption += f"\n{bad} image{'' if bad == 1 else 's'} could not be decoded and count for nothing"
    return table


__all__ = ["evaluate", "label_order", "result_table"]
