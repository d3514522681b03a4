"""YAML header of a model card, which the Hub reads, and the file of evaluation results."""

import re
from pathlib import Path, PureWindowsPath
from typing import Any

import yaml
from huggingface_hub import EvalResult, EvalResultEntry, ModelCardData, eval_result_entries_to_yaml

from ...configuration.configuration_deit import HubDeiTConfig
from ...configuration.configuration_detr import HubDetrConfig
from ...configuration.configuration_vit import HubViTConfig
from ...data.text.terminal_text import visible
from .kinds import card_kind

MULTI_LABEL = "multi_label_classification"
DETECTION = "object_detection"
UNKNOWN_LICENCE = "unknown"
RESULTS = ".eval_results/vithub.yaml"
TRANSFORMERS = (HubViTConfig.model_type, HubDeiTConfig.model_type, "vit", "deit", "dinov2", "dinov2_with_registers")
_TITLES = {"map": "mAP (IoU 0.50 to 0.95)"}
# Tags of the Hub by model type.
_TAGS = {**dict.fromkeys(TRANSFORMERS, "vision-transformer"), HubDetrConfig.model_type: "detr", "detr": "detr"}
_FROM_SCRATCH = re.compile(r"(vit|deit)-(ti|s|b|l|h)(/\d+)?|detr", re.IGNORECASE)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(?<!\.csv)(?<!\.parquet)")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def headline_of(metrics: dict[str, Any]) -> str:
    """Key of the headline metric of a run in `metrics.json`; runs before 0.2 do not name it."""
    keys, stated = [key for key, _, _ in card_kind(metrics).reported], metrics.get("headline")
    return str(stated) if stated in keys or not keys else keys[0]


def card_header(recipe: dict[str, Any], config: dict[str, Any], metrics: dict[str, Any]) -> dict[str, Any]:
    """Fields of the header, validated by the classes of huggingface_hub."""
    hub_data, split, kind = hub_id(recipe["data"]["source"]), metrics["reported_split"], card_kind(metrics)
    task, headline = kind.hub_task, headline_of(metrics)
    reported = sorted(kind.reported, key=lambda row: row[0] != headline)
    figures, name_of_data = metrics[split], visible(metrics["data"]["name"])
    results = [
        EvalResult(
            task_type=task,
            dataset_type=hub_data or name_of_data,
            dataset_name=name_of_data,
            dataset_split=split,
            metric_type=metric,
            metric_name=name,
            metric_value=round(figures[key], 4),
        )
        for key, metric, name in reported
        if figures[key] is not None
    ]
    tag = _TAGS.get(config["model_type"])
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag=task,
        license=UNKNOWN_LICENCE,
        tags=["vithub", "vision", task, *([tag] if tag else [])],
        datasets=[hub_data] if hub_data else None,
        base_model=hub_id(base_model(recipe["model"]["source"]) or ""),
        metrics=[metric for _, metric, _ in reported] or None,
        model_name=f"vithub on {name_of_data}" if results else None,
        eval_results=results or None,
    )
    fields: dict[str, Any] = yaml.safe_load(data.to_yaml())
    return fields


def eval_results(recipe: dict[str, Any], metrics: dict[str, Any], task_id: str) -> str | None:
    """Content of `.eval_results/vithub.yaml`, the headline metric of a run on a data set of the Hub.

    Args:
        recipe: Content of `recipe.yaml`, whose data set is a benchmark of the Hub.
        metrics: Content of `metrics.json`.
        task_id: Task of the benchmark, as its `eval.yaml` names it.

    Returns:
        Text of the file; None for a run that reports no metrics, as that of a backbone.
    """
    dataset, split, headline = hub_id(recipe["data"]["source"]), metrics["reported_split"], headline_of(metrics)
    value = metrics[split][headline] if card_kind(metrics).reported else None
    if dataset is None or value is None:
        return None
    revision = str(recipe["data"].get("revision") or "")
    figure = _TITLES.get(headline, headline.replace("_", " "))
    entry = EvalResultEntry(
        dataset_id=dataset,
        task_id=task_id,
        value=round(value, 4),
        dataset_revision=revision if _COMMIT.fullmatch(revision) else None,
        date=metrics.get("finished"),
        notes=f"{figure} on the {split} split, {metrics['data']['sizes'][split]} images",
    )
    return yaml.safe_dump(eval_result_entries_to_yaml([entry]), sort_keys=False)


def hub_id(source: str) -> str | None:
    """The source if it is a Hub id and not a file or folder, otherwise None."""
    return source if _HUB_ID.fullmatch(source) and not Path(source).exists() else None


def public_name(source: str) -> str:
    """Public name of a source: a Hub id unchanged, or the last part of a path."""
    if re.match(r"[A-Za-z]:[\\/]|\\\\", source):
        return PureWindowsPath(source).name
    return hub_id(source) or Path(source).expanduser().resolve().name


def base_model(source: str) -> str | None:
    """Public name of the checkpoint that the run started from; None for training from scratch."""
    return None if _FROM_SCRATCH.fullmatch(source) else public_name(source)


__all__ = [
    "DETECTION",
    "MULTI_LABEL",
    "RESULTS",
    "TRANSFORMERS",
    "UNKNOWN_LICENCE",
    "base_model",
    "card_header",
    "eval_results",
    "headline_of",
    "hub_id",
    "public_name",
]
