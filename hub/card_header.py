"""The header of a card, which the Hub reads, and its list of results."""

import re
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, EvalResultEntry, ModelCardData, eval_result_entries_to_yaml

from ..configuration.configuration_deit import HubDeiTConfig
from ..configuration.configuration_vit import HubViTConfig

MULTI_LABEL = "multi_label_classification"
UNKNOWN_LICENCE = "unknown"
RESULTS = Path(".eval_results") / "vithub.yaml"
TRANSFORMERS = (HubViTConfig.model_type, HubDeiTConfig.model_type, "vit", "deit", "dinov2", "dinov2_with_registers")
_FROM_SCRATCH = re.compile(r"(vit|deit)-(ti|s|b|l|h)(/\d+)?", re.IGNORECASE)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(?<!\.csv)(?<!\.parquet)")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def headline_of(metrics: dict[str, Any]) -> str:
    """The metric that a run is judged by."""
    return "mean_average_precision" if metrics.get("problem") == MULTI_LABEL else "accuracy"


def card_header(recipe: dict[str, Any], config: dict[str, Any], metrics: dict[str, Any]) -> dict[str, Any]:
    """The fields of the header, checked by huggingface_hub's own classes."""
    hub_data, split, headline = hub_id(recipe["data"]["source"]), metrics["reported_split"], headline_of(metrics)
    results = [
        EvalResult(
            task_type="image-classification",
            dataset_type=hub_data or metrics["data"]["name"],
            dataset_name=metrics["data"]["name"],
            dataset_split=split,
            metric_type=name,
            metric_value=round(metrics[split][key], 4),
        )
        for name, key in ((headline, headline), ("f1", "macro_f1"))
    ]
    transformer = ["vision-transformer"] if config["model_type"] in TRANSFORMERS else []
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag="image-classification",
        license=UNKNOWN_LICENCE,
        tags=["vithub", "vision", "image-classification", *transformer],
        datasets=[hub_data] if hub_data else None,
        base_model=hub_id(base_model(recipe["model"]["source"]) or ""),
        metrics=[headline, "f1"],
        model_name=f"vithub on {metrics['data']['name']}",
        eval_results=results,
    )
    fields: dict[str, Any] = yaml.safe_load(data.to_yaml())
    return fields


def write_eval_results(folder: Path, recipe: dict[str, Any], metrics: dict[str, Any]) -> None:
    """Writes `.eval_results/vithub.yaml`, which names a data set of the Hub; for other data there is none."""
    dataset, split, headline = hub_id(recipe["data"]["source"]), metrics["reported_split"], headline_of(metrics)
    file = folder / RESULTS
    if dataset is None:
        file.unlink(missing_ok=True)
        return
    revision = str(recipe["data"].get("revision") or "")
    entry = EvalResultEntry(
        dataset_id=dataset,
        task_id="image-classification",
        value=round(metrics[split][headline], 4),
        dataset_revision=revision if _COMMIT.fullmatch(revision) else None,
        date=metrics.get("finished"),
        notes=f"{headline.replace('_', ' ')} on the {split} split, {metrics['data']['sizes'][split]} images",
    )
    file.parent.mkdir(exist_ok=True)
    file.write_text(yaml.safe_dump(eval_result_entries_to_yaml([entry]), sort_keys=False), encoding="utf-8")


def hub_id(source: str) -> str | None:
    """A source that is a Hub id, and no file or folder."""
    return source if _HUB_ID.fullmatch(source) and not Path(source).exists() else None


def public_name(source: str) -> str:
    """A Hub id as it is, a file or folder by its own name only."""
    return hub_id(source) or Path(source).expanduser().resolve().name


def base_model(source: str) -> str | None:
    """What the run started from; None from scratch."""
    return None if _FROM_SCRATCH.fullmatch(source) else public_name(source)


__all__ = [
    "MULTI_LABEL",
    "RESULTS",
    "TRANSFORMERS",
    "UNKNOWN_LICENCE",
    "base_model",
    "card_header",
    "headline_of",
    "hub_id",
    "public_name",
    "write_eval_results",
]
