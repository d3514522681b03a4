"""The model card of a run: everything in it comes from the run's own files."""

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, StrictUndefined

from ..configuration.configuration_deit import HubDeiTConfig

PACKAGE_URL = "https://pypi.org/project/vithub/"
_CITATIONS = {
    "vit": "Dosovitskiy et al., An Image is Worth 16x16 Words, ICLR 2021. https://arxiv.org/abs/2010.11929",
    "deit": "Touvron et al., Training data-efficient image transformers & distillation through attention, ICML 2021. "
    "https://arxiv.org/abs/2012.12877",
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
    labels = [config["id2label"][str(index)] for index in range(len(config["id2label"]))]
    split = metrics["reported_split"]
    base_model = _base_model(recipe)
    deit = config["model_type"] == HubDeiTConfig.model_type
    values = {
        "card_data": _card_data(recipe, metrics, base_model).to_yaml(),
        "title": f"{'DeiT' if deit else 'ViT'} for {metrics['data']['name']}",
        "family": "data-efficient image transformer (DeiT)" if deit else "vision transformer (ViT)",
        "labels": labels,
        "labels_text": ", ".join(labels[:20]) + (f" and {len(labels) - 20} more" if len(labels) > 20 else ""),
        "package_url": PACKAGE_URL,
        "data": metrics["data"],
        "base_model": base_model,
        "split": split,
        "results": metrics[split],
        "validation": metrics["validation"],
        "per_class": metrics["per_class"],
        "published_epoch": metrics["published_epoch"],
        "publish": recipe["training"]["publish"],
        "epochs": len(metrics["history"]),
        "parameters": metrics["parameters"],
        "image_hw": _pair(config["image_size"]),
        "patch_hw": _pair(config["patch_size"]),
        "location": location or str(folder),
        "worst": _worst(metrics["per_class"]),
        "confused": _confused(metrics["confusion"], labels),
        "seconds_text": _duration(metrics["seconds"]),
        "hardware": metrics["hardware"],
        "precision": metrics["precision"],
        "processes": metrics["processes"],
        "batch_size": metrics["batch_size"],
        "recipe_text": recipe_text,
        "versions": metrics["versions"],
        "license_text": "No licence was chosen for these weights; ask their author before you pass them on.",
        "citations": [_CITATIONS["vit"]] + ([_CITATIONS["deit"]] if deit else []),
    }
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)  # noqa: S701
    environment.globals["percent"] = lambda value: f"{100 * value:.1f} %"
    template = (files("vithub.model_cards") / "image_classification.md").read_text(encoding="utf-8")
    return environment.from_string(template).render(values)


def _card_data(recipe: dict[str, Any], metrics: dict[str, Any], base_model: str | None) -> ModelCardData:
    source = recipe["data"]["source"]
    hub_data = source if source.count("/") == 1 and not Path(source).exists() else None
    split = metrics["reported_split"]
    results = [
        EvalResult(
            task_type="image-classification",
            dataset_type=hub_data or metrics["data"]["name"],
            dataset_name=metrics["data"]["name"],
            dataset_split=split,
            metric_type=name,
            metric_value=round(metrics[split][key], 4),
        )
        for name, key in (("accuracy", "accuracy"), ("f1", "macro_f1"))
    ]
    return ModelCardData(
        library_name="transformers",
        pipeline_tag="image-classification",
        tags=["vithub", "vision", "image-classification", "vision-transformer"],
        datasets=[hub_data] if hub_data else None,
        base_model=base_model,
        metrics=["accuracy", "f1"],
        model_name=f"vithub on {metrics['data']['name']}",
        eval_results=results,
    )


def _base_model(recipe: dict[str, Any]) -> str | None:
    """The Hub id or the folder's name of what the run started from."""
    source = recipe["model"]["source"]
    if Path(source).exists():
        return Path(source).resolve().name
    return source if source.count("/") == 1 and not source.split("/")[1].isdigit() else None


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


def _pair(size: int | list[int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"


__all__ = ["render_card", "write_card"]
