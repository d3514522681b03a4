"""The model card of a run: everything in it comes from the run's own files."""

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, StrictUndefined

from ..configuration.configuration_deit import HubDeiTConfig
from ..configuration.configuration_vit import HubViTConfig

PACKAGE_URL = "https://pypi.org/project/vithub/"
IN_MEMORY = "a Dataset in memory"  # what a recipe says of data that has no name
MULTI_LABEL = "multi_label_classification"
_FROM_SCRATCH = re.compile(r"(vit|deit)-(ti|s|b|l|h)(/\d+)?", re.IGNORECASE)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(?<!\.csv)(?<!\.parquet)")
_VIT = "Dosovitskiy et al., An Image is Worth 16x16 Words, ICLR 2021. https://arxiv.org/abs/2010.11929"
_DEIT = (
    "Touvron et al., Training data-efficient image transformers & distillation through attention, ICML 2021. "
    "https://arxiv.org/abs/2012.12877"
)
_CALIBRATION = "Guo et al., On Calibration of Modern Neural Networks, ICML 2017. https://arxiv.org/abs/1706.04599"
# Short and long name, and what to cite, of the models of this package.
_FAMILIES: dict[str, tuple[str, str, list[str]]] = {
    HubViTConfig.model_type: ("ViT", "A vision transformer (ViT)", [_VIT]),
    HubDeiTConfig.model_type: ("DeiT", "A data-efficient image transformer (DeiT)", [_VIT, _DEIT]),
}
# The rows of the table of results: key in metrics.json and name.
_SINGLE_ROWS = {
    "accuracy": "accuracy",
    "top5_accuracy": "top-5 accuracy",
    "macro_f1": "macro F1",
    "expected_calibration_error": "expected calibration error",
}
_MULTI_ROWS = {
    "mean_average_precision": "mean average precision",
    "micro_f1": "micro F1",
    "macro_f1": "macro F1",
    "accuracy": "images with every label right",
    "expected_calibration_error": "expected calibration error",
}


def write_card(folder: Path) -> None:
    """Writes `README.md` of a run from its `config.json`, `recipe.yaml` and `metrics.json`."""
    (folder / "README.md").write_text(render_card(folder), encoding="utf-8")


def render_card(folder: Path, location: str | None = None) -> str:
    """The card's text.

    Args:
        folder: Of the run.
        location: What the snippets load; None takes the folder's path as it was given.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    recipe_text = (folder / "recipe.yaml").read_text(encoding="utf-8")
    recipe = yaml.safe_load(recipe_text)
    labels, teacher = _labels(config, metrics), metrics.get("teacher")
    values = {
        **_about_model(config, metrics),
        **_about_results(folder, metrics, labels),
        "card_data": _card_data(recipe, config, metrics).to_yaml(),
        "labels": labels,
        "labels_text": ", ".join(labels[:20]) + (f" and {len(labels) - 20} more" if len(labels) > 20 else ""),
        "package_url": PACKAGE_URL,
        "data": metrics["data"],
        "base_model": _base_model(recipe["model"]["source"]),
        "published_epoch": metrics["published_epoch"],
        "publish": recipe["training"]["publish"],
        "weights": metrics.get("weights"),
        "teacher": teacher and {**teacher, "name": _public_name(teacher["name"])},
        "epochs": len(metrics["history"]),
        "location": location or str(folder),
        "seconds_text": _duration(metrics["seconds"]),
        "hardware": metrics["hardware"],
        "precision": metrics["precision"],
        "processes": metrics["processes"],
        "batch_size": metrics["batch_size"],
        "recipe_text": recipe_text,
        "in_memory": recipe["data"]["source"] == IN_MEMORY,
        "versions": metrics["versions"],
        "license_text": "No licence was chosen for these weights; ask their author before you pass them on.",
    }
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)  # noqa: S701
    environment.globals["percent"] = _percent
    environment.filters["sentence"] = lambda text: text[:1].upper() + text[1:]
    environment.filters["cell"] = lambda text: " ".join(text.split()).replace("|", "\\|")
    template = (files("vithub.model_cards") / "image_classification.md").read_text(encoding="utf-8")
    return environment.from_string(template).render(values)


def _about_model(config: dict[str, Any], metrics: dict[str, Any]) -> dict[str, Any]:
    """What it is: one of ours, or another classifier, of which only that is said which its configuration says."""
    model_type, ours = config["model_type"], config["model_type"] in _FAMILIES
    architecture = config.get("architecture")
    short, family, citations = _FAMILIES.get(
        model_type, (architecture or model_type, f"An image classifier of type `{model_type}`", [])
    )
    if architecture and not ours:
        family = f"The image classifier `{architecture}` (`{model_type}`)"
    size = metrics.get("image_hw") or (config["image_size"] if ours else None)
    return {
        "title": f"{short} for {metrics['data']['name']}",
        "family": family,
        "ours": ours,
        "needs_timm": model_type == "timm_wrapper",
        "citations": citations + ([_CALIBRATION] if metrics.get("reliability") else []),
        "parameters": metrics["parameters"],
        "image_hw": _pair(size) if size else None,
        "patch_hw": _pair(config["patch_size"]) if ours else None,
    }


def _about_results(folder: Path, metrics: dict[str, Any], labels: list[str]) -> dict[str, Any]:
    """What was measured."""
    split, multi_label = metrics["reported_split"], metrics.get("problem") == MULTI_LABEL
    headline = "mean_average_precision" if multi_label else "accuracy"
    names = dict(_MULTI_ROWS if multi_label else _SINGLE_ROWS)
    if len(labels) <= 5:
        names.pop("top5_accuracy", None)
    intervals = metrics.get("intervals") or {}
    bad = {name: len(set(images)) for name, images in (metrics.get("bad_images") or {}).items() if images}
    rows: list[dict[str, Any]] = [
        {"name": name, "text": _with_interval(metrics[split][key], intervals.get(key)), "headline": key == headline}
        for key, name in names.items()
        if metrics[split].get(key) is not None
    ]
    pictures = {
        "confusion_matrix.png": metrics.get("confusion") is not None,
        "reliability.png": bool(metrics.get("reliability")),
        "learning_curves.png": bool(metrics["history"]),
    }
    return {
        "multi_label": multi_label,
        "split": split,
        "rows": rows,
        "images": metrics["data"]["sizes"][split] - bad.get(split, 0),
        "has_intervals": any("interval" in row["text"] for row in rows),
        "headline_name": names[headline],
        "validation_headline": metrics["validation"][headline],
        "per_class": metrics["per_class"],
        "bad_images": bad,
        "pictures": {name for name, due in pictures.items() if due or (folder / name).is_file()},
        "worst": _worst(metrics["per_class"]),
        "confused": _confused(metrics.get("confusion"), labels),
    }


def _labels(config: dict[str, Any], metrics: dict[str, Any]) -> list[str]:
    """Their names in the order of the logits; a configuration of timm's models does not number them."""
    numbered = config.get("id2label")
    if numbered:
        return [str(name) for _, name in sorted(numbered.items(), key=lambda item: int(item[0]))]
    return [str(row["label"]) for row in metrics["per_class"]]


def _card_data(recipe: dict[str, Any], config: dict[str, Any], metrics: dict[str, Any]) -> ModelCardData:
    hub_data = _hub_id(recipe["data"]["source"])
    split = metrics["reported_split"]
    headline = "mean_average_precision" if metrics.get("problem") == MULTI_LABEL else "accuracy"
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
    transformer = ["vision-transformer"] if config["model_type"] in _FAMILIES else []
    return ModelCardData(
        library_name="transformers",
        pipeline_tag="image-classification",
        tags=["vithub", "vision", "image-classification", *transformer],
        datasets=[hub_data] if hub_data else None,
        base_model=_hub_id(_base_model(recipe["model"]["source"]) or ""),
        metrics=[headline, "f1"],
        model_name=f"vithub on {metrics['data']['name']}",
        eval_results=results,
    )


def _hub_id(source: str) -> str | None:
    """A source that is a Hub id, and no file or folder."""
    return source if _HUB_ID.fullmatch(source) and not Path(source).exists() else None


def _public_name(source: str) -> str:
    """A Hub id as it is, a file or folder by its own name only."""
    return _hub_id(source) or Path(source).expanduser().resolve().name


def _base_model(source: str) -> str | None:
    """What the run started from; None from scratch."""
    return None if _FROM_SCRATCH.fullmatch(source) else _public_name(source)


def _worst(rows: list[dict[str, Any]], count: int = 3) -> list[dict[str, Any]]:
    return sorted((row for row in rows if row["images"] and row["recall"] < 1), key=lambda row: row["recall"])[:count]


def _confused(confusion: list[list[int]] | None, labels: list[str], count: int = 3) -> list[dict[str, Any]]:
    pairs: list[dict[str, Any]] = [
        {"true": labels[row], "predicted": labels[column], "count": value}
        for row, values in enumerate(confusion or [])
        for column, value in enumerate(values)
        if row != column and value
    ]
    return sorted(pairs, key=lambda pair: -pair["count"])[:count]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _with_interval(value: float, ends: list[float] | None) -> str:
    """A share in per cent; an interval without width says nothing and is left out."""
    if ends is None or ends[0] == ends[1]:
        return _percent(value)
    return f"{_percent(value)} (95 % interval {100 * ends[0]:.1f} to {100 * ends[1]:.1f})"


def _pair(size: int | list[int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"


__all__ = ["render_card", "write_card"]
