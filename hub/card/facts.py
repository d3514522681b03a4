"""Facts of a classifier's run for its model card, read from its `config.json` and `metrics.json`."""

import re
from pathlib import Path
from typing import Any

from ...configuration.configuration_deit import HubDeiTConfig
from ...configuration.configuration_vit import HubViTConfig
from ...data.text.markdown_text import Markdown, markdown_code
from .header import MULTI_LABEL, headline_of
from .kinds import TEMPLATES, CardKind, register_card_kind

_VIT = "Dosovitskiy et al., An Image is Worth 16x16 Words, ICLR 2021. https://arxiv.org/abs/2010.11929"
_DEIT = (
    "Touvron et al., Training data-efficient image transformers & distillation through attention, ICML 2021. "
    "https://arxiv.org/abs/2012.12877"
)
_CALIBRATION = "Guo et al., On Calibration of Modern Neural Networks, ICML 2017. https://arxiv.org/abs/1706.04599"
_VIT_FAMILY = ("ViT", "A vision transformer (ViT)", [_VIT])
_DEIT_FAMILY = ("DeiT", "A data-efficient image transformer (DeiT)", [_VIT, _DEIT])
OURS = (HubViTConfig.model_type, HubDeiTConfig.model_type)
# Short name, long name and citations, by model type.
_FAMILIES: dict[str, tuple[str, str, list[str]]] = {
    HubViTConfig.model_type: _VIT_FAMILY,
    HubDeiTConfig.model_type: _DEIT_FAMILY,
    "vit": _VIT_FAMILY,
    "deit": _DEIT_FAMILY,
}
# Rows of the results table: key in metrics.json, and name.
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
_OVERLAYS = re.compile(r"(attention|explanation|overlay)[\w-]*\.png")


def about_model(config: dict[str, Any], metrics: dict[str, Any], native: str | None) -> dict[str, Any]:
    """Description of the classifier and of how it is loaded.

    The entry `code` names the code that loads it: "bundle" (files beside the weights), "native" (a class of
    transformers), "timm" or "vithub" (a folder of ours without code files, as older versions saved it). Third-party
    models are described by their configuration only.

    Args:
        config: Content of `config.json`.
        metrics: Content of `metrics.json`.
        native: Class of transformers under which the model is published instead of its own; None keeps its own.
    """
    model_type, ours = config["model_type"], config["model_type"] in OURS
    architecture = config.get("architecture")
    short, family, citations = _FAMILIES.get(
        model_type,
        (architecture or model_type, Markdown(f"An image classifier of type {markdown_code(model_type)}"), []),
    )
    if architecture and not ours:
        family = f"The image classifier {markdown_code(architecture)} ({markdown_code(model_type)})"
    size = metrics.get("image_hw") or (config["image_size"] if ours else None)
    return {
        "title": f"{short} for {metrics['data']['name']}",
        "family": Markdown(family),
        **code_of(config, native, ours),
        "citations": citations + ([_CALIBRATION] if metrics.get("reliability") else []),
        "parameters": metrics["parameters"],
        "image_hw": _pair(size) if size else None,
        "patch_hw": _pair(config["patch_size"]) if ours else None,
    }


def about_results(folder: Path, metrics: dict[str, Any], labels: list[str]) -> dict[str, Any]:
    """Metrics, plots and per-class results of the reported split, as values for the card's template."""
    split, multi_label, headline = (
        metrics["reported_split"],
        metrics.get("problem") == MULTI_LABEL,
        headline_of(metrics),
    )
    names = dict(_MULTI_ROWS if multi_label else _SINGLE_ROWS)
    names = {headline: names[headline]} | names
    if len(labels) <= 5:
        names.pop("top5_accuracy", None)
    intervals = metrics.get("intervals") or {}
    bad = left_out(metrics)
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
        "wilson_intervals": metrics.get("share_intervals") == "wilson",
        "headline_name": names[headline],
        "validation_headline": metrics["validation"][headline],
        "per_class": metrics["per_class"],
        "imbalance": _imbalance(metrics["data"].get("imbalance"), metrics["per_class"]),
        "bad_images": bad,
        "pictures": {name for name, due in pictures.items() if due or (folder / name).is_file()},
        "overlays": overlays(folder),
        "examples": metrics.get("examples") or [],
        "worst": _worst(metrics["per_class"]),
        "confused": confused(metrics.get("confusion"), labels),
        "trust": _trust(metrics.get("reliability")),
        "shifts": metrics.get("shifts"),
    }


def code_of(config: dict[str, Any], native: str | None, ours: bool) -> dict[str, Any]:
    """The entries `code` and `native_class` that `about_model` returns."""
    code = "bundle" if config.get("auto_map") else "vithub"
    if native or not ours:
        code = "timm" if config["model_type"] == "timm_wrapper" else "native"
    return {"code": code, "native_class": native or (config.get("architectures") or [config["model_type"]])[0]}


def left_out(metrics: dict[str, Any]) -> dict[str, int]:
    """Number of images that could not be decoded, by split; splits without such images are missing."""
    return {name: len(set(images)) for name, images in (metrics.get("bad_images") or {}).items() if images}


def overlays(folder: Path) -> list[str]:
    """Names of explanation overlays that the user put into the folder.

    None are made automatically, because they show images of the data set.
    """
    return sorted(file.name for file in folder.glob("*.png") if _OVERLAYS.fullmatch(file.name))


def label_names(config: dict[str, Any], metrics: dict[str, Any]) -> list[str]:
    """Class names in the order of the logits, from `metrics` if the configuration does not number them (timm)."""
    numbered = config.get("id2label")
    if numbered:
        return [str(name) for _, name in sorted(numbered.items(), key=lambda item: int(item[0]))]
    return [str(row["label"]) for row in metrics["per_class"]]


def percent(value: float | None) -> str:
    """A share in [0, 1] as per cent, or "-" for None."""
    return "-" if value is None else f"{100 * value:.1f} %"


def duration(seconds: float) -> str:
    """A duration as text in seconds, minutes or hours."""
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"


def energy(kwh: float) -> str:
    """An energy as text in watt hours or kilowatt hours, with two digits."""
    return f"{1000 * kwh:.2g} Wh" if kwh < 0.1 else f"{float(f'{kwh:.2g}'):g} kWh"


def confused(confusion: list[list[int]] | None, labels: list[str], count: int = 3) -> list[dict[str, Any]]:
    """Pairs of classes that are most often confused, at most `count`, with the number of images each."""
    pairs: list[dict[str, Any]] = [
        {"true": labels[row], "predicted": labels[column], "count": value}
        for row, values in enumerate(confusion or [])
        for column, value in enumerate(values)
        if row != column and value
    ]
    return sorted(pairs, key=lambda pair: -pair["count"])[:count]


def _imbalance(entry: dict[str, Any] | None, rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Facts about imbalanced classes for the card's template; None if the run recorded none.

    They are the options that were used against imbalance, as text, and by class the number of training images and the
    weight in the loss.
    """
    if entry is None:
        return None
    weights, counts = entry.get("class_weights"), entry.get("train_images")
    answers = [
        "class weights in the loss" if weights else None,
        "batches with each class equally often" if entry.get("sampler") == "balanced" else None,
        f"logit adjustment with tau {entry['logit_adjustment']:g}" if entry.get("logit_adjustment") else None,
        f"the focal loss with exponent {entry['focal_gamma']:g}" if entry.get("focal_gamma") is not None else None,
    ]
    named = [row["label"] for row in rows]
    by_size = sorted(named, key=lambda name: counts[name]) if counts else []
    return {
        "imbalanced": bool(entry.get("imbalanced")),
        "answers": [text for text in answers if text],
        "train_images": counts,
        "weights": weights,
        "smallest": by_size[0] if by_size else None,
        "largest": by_size[-1] if by_size else None,
    }


def _worst(rows: list[dict[str, Any]], count: int = 3) -> list[dict[str, Any]]:
    return sorted((row for row in rows if row["images"] and row["recall"] < 1), key=lambda row: row["recall"])[:count]


def _trust(bins: list[dict[str, Any]] | None) -> dict[str, float] | None:
    """Mean confidence and accuracy of all decisions, and their gap; None without decisions."""
    filled = [entry for entry in bins or [] if entry["images"]]
    total = sum(entry["images"] for entry in filled)
    if not total:
        return None
    means = {
        name: sum(entry[name] * entry["images"] for entry in filled) / total for name in ("confidence", "accuracy")
    }
    return {**means, "gap": means["confidence"] - means["accuracy"]}


def _with_interval(value: float, ends: list[float] | None) -> str:
    """A share as per cent with its interval; an interval of zero width is left out, as it says nothing."""
    if ends is None or ends[0] == ends[1]:
        return percent(value)
    return f"{percent(value)} (95 % interval {100 * ends[0]:.1f} to {100 * ends[1]:.1f})"


def _pair(size: int | list[int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _facts(
    folder: Path, config: dict[str, Any], metrics: dict[str, Any], labels: list[str], native: str | None
) -> dict[str, Any]:
    return about_model(config, metrics, native) | about_results(folder, metrics, labels)


_HUB_TASK, _TEMPLATE = "image-classification", TEMPLATES / "image_classification.md"
_SINGLE = (("accuracy", "accuracy", None), ("macro_f1", "f1", None))
_SEVERAL = (("mean_average_precision", "mean_average_precision", None), ("macro_f1", "f1", None))
register_card_kind(None, CardKind(_HUB_TASK, _TEMPLATE, _SINGLE, _facts))
register_card_kind(MULTI_LABEL, CardKind(_HUB_TASK, _TEMPLATE, _SEVERAL, _facts))

__all__ = [
    "OURS",
    "about_model",
    "about_results",
    "code_of",
    "confused",
    "duration",
    "energy",
    "label_names",
    "left_out",
    "overlays",
    "percent",
]
