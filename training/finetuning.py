"""Training from beginning to end: the function behind `vithub finetune`."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from .accelerate_loop import AccelerateLoop, LoopResult
from .environment import hardware, software_versions
from .evaluating import evaluate_classifier
from .model_source import is_from_scratch
from .presets import preset
from .progress import QuietReporter, Reporter
from .recipe import Recipe
from .run_folder import RECIPE, open_run_folder, write_run
from .task import TrainingTask, build_task


@dataclass
class Run:
    """A finished training.

    Args:
        folder: Loads with `from_pretrained`.
        metrics: The content of its `metrics.json`.
        model: The published weights, in evaluation mode.
        losses: Of each step of this process, resumed runs from where they resumed.
    """

    folder: Path
    metrics: dict[str, Any]
    model: PreTrainedModel
    losses: list[float]


def finetune(
    model: str | None = None,
    data: Any = None,
    out: str | Path | None = None,
    *,
    recipe: Recipe | str | Path | None = None,
    preset_name: str | None = None,
    epochs: int | None = None,
    seed: int | None = None,
    resume: bool = False,
    values: dict[str, Any] | None = None,
    reporter: Reporter | None = None,
) -> Run:
    """Trains a classifier and leaves a folder that `AutoModelForImageClassification` and `pipeline` load.

    With no argument at all it trains a small DeiT on handwritten digits that ship with scikit-learn.

    Args:
        model: A preset from scratch ("deit-s", "vit-b/32"), a folder or a Hub id. None takes the recipe's.
        data: "digits", a folder, a `.csv` or `.parquet` file, a Hub id, or a `Dataset` in memory.
        out: The run's folder; None makes one below `runs/`.
        recipe: A whole recipe or the file of one, such as the `recipe.yaml` of a run.
        preset_name: A named recipe to begin from; None chooses by model and data.
        epochs: Overrides the recipe's.
        seed: Overrides the recipe's.
        resume: Go on with the run in `out`.
        values: Further fields by dotted name, such as {"training.lr": 1e-3}.
        reporter: Told of the progress; None writes to the log.

    Raises:
        RecipeError: A field of the recipe is wrong.
        DataError: The data set cannot be used.
        TargetError: The folder holds something already or cannot be written.
    """
    reporter = reporter or QuietReporter()
    in_memory = None if data is None or isinstance(data, str | Path) else data
    named = {
        "model.source": model,
        "data.source": "a Dataset in memory" if in_memory is not None else None if data is None else str(data),
        "training.epochs": epochs,
        "seed": seed,
    }
    given = {name: value for name, value in named.items() if value is not None} | (values or {})
    if resume and recipe is None and preset_name is None and out is not None:
        recipe = Path(out) / RECIPE
    chosen = resolve_recipe(recipe, preset_name, model, data).with_values(given)
    folder = Path(out).expanduser() if out is not None else free_folder(chosen)
    open_run_folder(folder, chosen, resume)
    task = build_task(chosen, in_memory)
    sizes = ", ".join(f"{count} {split}" for split, count in task.data.sizes.items())
    parameters = sum(p.numel() for p in task.model.parameters())
    reporter.message(
        f"{type(task.model).__name__} ({parameters / 1e6:.1f} M parameters) on {task.data.name} ({sizes} images, "
        f"{task.num_labels} classes), {task.total_steps} steps of {task.batch_size} images, into {folder}"
    )
    return complete_run(task, AccelerateLoop(task, folder, reporter).run(), folder, reporter)


def complete_run(task: TrainingTask, result: LoopResult, folder: Path, reporter: Reporter) -> Run:
    """Evaluates the best weights as they will be served, in fp32, and writes the run's folder."""
    split = "test" if task.data.test is not None else "validation"
    figures: dict[str, Any] = {}
    for name in dict.fromkeys(["validation", split]):
        counts = evaluate_classifier(
            task.model, task.evaluation_images(name), task.num_labels,
            batch_size=task.recipe.evaluation.batch_size, workers=task.workers, reporter=reporter,
        )  # fmt: skip
        figures[name] = counts.compute()
    metrics = {
        **figures,
        "reported_split": split,
        "per_class": counts.per_class(list(task.data.labels.names)),
        "confusion": counts.confusion.tolist() if task.num_labels <= 200 else None,
        "published_epoch": result.published_epoch,
        "history": result.history,
        "data": {"name": task.data.name, "sizes": task.data.sizes, "notes": task.data.notes},
        "parameters": sum(p.numel() for p in task.model.parameters()),
        "batch_size": task.batch_size,
        "seconds": round(result.seconds, 1),
        "precision": result.precision,
        "device": result.device,
        "processes": result.processes,
        "hardware": hardware(),
        "versions": software_versions(),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    write_run(folder, task.model, task.image_processor, metrics, counts)
    accuracy = 100 * figures[split]["accuracy"]
    reporter.message(f"{split} accuracy {accuracy:.2f} % after {result.seconds:.0f} s; {folder} is ready to load")
    return Run(folder, metrics, task.model, result.losses)


def resolve_recipe(recipe: Recipe | str | Path | None, preset_name: str | None, model: str | None, data: Any) -> Recipe:
    """The recipe to begin from: the one given, the named one, or the one that suits model and data."""
    if isinstance(recipe, Recipe):
        return recipe
    if recipe is not None:
        return Recipe.from_yaml(recipe)
    if preset_name is not None:
        return preset(preset_name)
    if model is not None and not is_from_scratch(model):
        return preset("finetune")
    return preset("digits" if model is None and data in (None, "digits") else "from-scratch-small")


def free_folder(recipe: Recipe) -> Path:
    """`runs/NAME` for a recipe, with a number where that exists."""
    name = "-".join(Path(source).name.replace("/", "-") for source in (recipe.data.source, recipe.preset))
    name = "digits" if recipe.preset == "digits" else name
    taken = (Path("runs") / (name if number == 1 else f"{name}-{number}") for number in range(1, 10_000))
    return next(folder for folder in taken if not folder.exists())


__all__ = ["Run", "complete_run", "finetune", "free_folder", "resolve_recipe"]
