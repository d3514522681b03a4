"""Registry of the tasks; the only place that determines the task of a recipe or of a saved model."""

from pathlib import Path
from typing import Any

from ...configuration.model_task import CLASSIFICATION, DETECTION, Suits, model_task, register_model_task
from ...hub.checkpoints import read_config
from ...modeling.modeling_deit import HubDeiTModel
from ...modeling.modeling_vit import HubViTModel
from ..recipe.model_names import DETECTOR_FROM_SCRATCH
from ..recipe.recipe import Recipe
from ..recipe.task_options import register_task_options
from .classification.kind import Classification
from .detection.kind import Detection
from .pretraining.kind import Pretraining
from .task import Task, TrainingTask

PRETRAINING = "pretraining"
_TASKS: dict[str, Task] = {CLASSIFICATION: Classification(), DETECTION: Detection(), PRETRAINING: Pretraining()}
_BACKBONES = (HubViTModel.__name__, HubDeiTModel.__name__)


def register_task(task: Task, suits: Suits, unknown: dict[str, str | None]) -> None:
    """Registers a task.

    Args:
        task: Task to add.
        suits: Function that says whether a saved model belongs to the task; see `register_model_task`.
        unknown: Recipe options that the task does not accept, each with the option to use instead, or None. A name that
            ends in `*` stands for a whole section.
    """
    _TASKS[task.name] = task
    register_model_task(task.name, suits)
    register_task_options(task.name, unknown)


def task_of(what: Recipe | Path | Any) -> Task:
    """Returns the task of a recipe, of a folder with a saved model, or of a model.

    A backbone of this package without a head belongs to pretraining. A model of unknown kind is treated as a
    classifier, so that loading it reports the problem.

    Raises:
        CheckpointError: The folder's configuration is damaged.
    """
    if isinstance(what, Recipe):
        return _TASKS[what.task]
    if isinstance(what, Path):
        config = read_config(what) if (what / "config.json").is_file() else {}
        name = model_task(config) or (PRETRAINING if _is_backbone(config) else None)
    else:
        name = model_task(what)
    return _TASKS[name or CLASSIFICATION]


def _is_backbone(config: dict[str, Any]) -> bool:
    """Returns True if a `config.json` describes one of our backbones without a head."""
    classes = config.get("architectures")
    return isinstance(classes, list) and bool(classes) and classes[0] in _BACKBONES


def build_task(recipe: Recipe, data: Any = None, processes: int = 1, teacher: Any = None) -> TrainingTask:
    """Reads the data and builds the model that a recipe names.

    Args:
        recipe: Recipe of the run.
        data: `Dataset` or `DatasetDict` in memory that replaces the recipe's source.
        processes: Number of training processes.
        teacher: Module that replaces the recipe's teacher; it maps the student's pixels to logits in the order of the
            student's labels.
    """
    return task_of(recipe).build(recipe, recipe.data.source if data is None else data, processes, teacher)


def task_of_source(model: str) -> Task:
    """Returns the task of a model as a recipe names it: a model from scratch, a folder or a Hub id.

    The kind of a Hub model is unknown before it is downloaded; it is treated as a classifier.
    """
    if model == DETECTOR_FROM_SCRATCH:
        return _TASKS[DETECTION]
    return task_of(Path(model).expanduser())


__all__ = ["build_task", "register_task", "task_of", "task_of_source"]
