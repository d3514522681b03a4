"""Results of a run in the form that the Hub shows on the model's page, for the benchmarks of the Hub alone.

The Hub shows `.eval_results` of data sets with its own tag for benchmarks, under the task ids that their `eval.yaml`
lists. The results of a run on any other data are in the card's `model-index` only.
"""

from pathlib import Path
from typing import Any

import yaml

from ..card.header import RESULTS, eval_results, hub_id
from ..card.model_card import read_recipe
from ..checkpoints import read_json
from .files import PublishFile
from .target import PushTarget

OFFICIAL, TASKS = "benchmark:official", "eval.yaml"


def with_results(files: list[PublishFile], folder: Path, target: PushTarget) -> list[PublishFile]:
    """Returns the files, with `.eval_results/vithub.yaml` if the Hub shows it.

    Args:
        files: Files to publish.
        folder: Folder of a run.
        target: Repository on the Hub, which is asked about the data set.
    """
    recipe, metrics = read_recipe(folder)[1], read_json(folder / "metrics.json")
    dataset, split = hub_id(recipe["data"]["source"]), _own_split(recipe, metrics)
    task = _task(target, dataset, split) if dataset is not None and split is not None else None
    text = eval_results(recipe, metrics, task) if task is not None else None
    if text is None:
        return files
    content = text.encode()
    results = PublishFile(RESULTS, len(content), True, "results for the Hub's page", content)
    return sorted([results, *(file for file in files if file.path != RESULTS)], key=lambda file: file.path)


def _own_split(recipe: dict[str, Any], metrics: dict[str, Any]) -> str | None:
    """Name of the reported split in the data set; None where the run drew it itself, or an older run does not say."""
    split = metrics["reported_split"]
    if named := recipe["data"].get(f"{split}_split"):
        return str(named)
    return None if split in metrics["data"].get("drawn", [split]) else str(split)


def _task(target: PushTarget, dataset: str, split: str) -> str | None:
    """Id of the benchmark's only task on a split; None for a data set that is no benchmark of the Hub."""
    if OFFICIAL not in target.dataset_tags(dataset):
        return None
    try:
        stated: Any = yaml.safe_load(target.read_dataset(dataset, TASKS) or b"")
    except (yaml.YAMLError, ValueError, RecursionError):
        return None
    listed = stated.get("tasks") if isinstance(stated, dict) else None
    found = [
        task["id"]
        for task in (listed if isinstance(listed, list) else [])
        if isinstance(task, dict) and isinstance(task.get("id"), str) and task.get("split") == split
    ]
    return found[0] if len(found) == 1 else None


__all__ = ["with_results"]
