"""Measuring a saved model: the function behind `vithub evaluate`, for every task."""

from pathlib import Path
from typing import Any

from rich.table import Table

from ..data.argument_names import argument, renamed, stated
from ..data.table_identity import rows_identity
from ..data.text.json_text import json_text
from ..hub.checkpoints import locate
from ..hub.folders import new_folder
from ..hub.model_identity import model_identity
from .recipe.run_files import METRICS
from .runtime.bad_image_errors import way_past_bad_images
from .runtime.loading_processes import named_deaths
from .runtime.processes import new_accelerator
from .runtime.progress import QuietReporter, Reporter
from .tasks.evaluation import default_workers, evaluate_split
from .tasks.partial_counts import partial_counts
from .tasks.registry import task_of


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
        output: A new folder for `metrics.json` and plots.
        label_column: Name of the column of labels, or of objects; None finds it.
        batch_size: Images at once, of a detector at most 8.
        workers: Loading processes; None goes by the number of cores.
        on_bad_image: "error", or "skip" to measure without images that cannot be decoded, and list them.
        resume: Go on with an evaluation into `output` that was killed; its counts so far lie beside that folder.
        reporter: Told of the progress.

    Returns:
        `model`, `data`, `split`, `images`, `bad_images` (those left out), `metrics`, `labels` and `per_class`. Of a
        classifier also `confusion` of the data's labels and of others that the model took an image for, see
        `SavedClassifier`; of a detector `boxes` and `errors`, see `SavedDetector`.

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
    task = task_of(path)
    with way_past_bad_images(on_bad_image, task.skipping(own_data=data is None)):
        skip_bad = on_bad_image == "skip"
        saved = task.open_evaluation(path, str(folder), data, split, label_column, skip_bad)
        evaluator = saved.evaluator(accelerator.device)
        about = {"model": str(folder), "data": saved.data, "split": saved.split}
        size = len(saved.rows)
        partial = None
        if output is not None:
            made_from = {**model_identity(path), "data": rows_identity(saved.rows, range(size))}
            largest = min(batch_size, evaluator.largest_batch or batch_size)
            counted = {**about, "images": size, "batch_size": largest}
            partial = partial_counts(Path(output), counted, made_from, accelerator, resume)
        evaluation = evaluate_split(
            evaluator, batch_size=batch_size, workers=default_workers() if workers is None else workers,
            accelerator=accelerator, reporter=reporter, partial=partial,
            max_bad_share=1 - 1 / size if skip_bad else 0.0,
        )  # fmt: skip
    bad = evaluation.bad_images
    result = {**about, "images": size - len(bad), "bad_images": bad, **saved.results(evaluation)}
    if output is not None and accelerator.is_main_process:
        with new_folder(output) as staging:
            (staging / METRICS).write_text(json_text(result, indent=1) + "\n", encoding="utf-8")
            saved.save_plots(staging, evaluation, result)
    accelerator.wait_for_everyone()
    if partial is not None and accelerator.is_main_process:
        partial.remove()
    return result


def result_table(folder: str | Path, result: dict[str, Any]) -> Table:
    """A result for a terminal.

    Args:
        folder: As `evaluate` was given it.
        result: What `evaluate` returned.
    """
    return task_of(locate(folder)).result_table(result)


__all__ = ["evaluate", "result_table"]
