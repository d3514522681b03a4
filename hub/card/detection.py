"""Facts of a detector's run for its model card, read from its `config.json` and `metrics.json`."""

import math
from pathlib import Path
from typing import Any

from ...configuration.configuration_detr import HubDetrConfig
from ...data.text.markdown_text import Markdown, markdown_code
from .facts import code_of, confused, left_out, overlays
from .header import DETECTION
from .kinds import TEMPLATES, CardKind, register_card_kind

_DETR = "Carion et al., End-to-End Object Detection with Transformers, ECCV 2020. https://arxiv.org/abs/2005.12872"
_COCO = "Lin et al., Microsoft COCO: Common Objects in Context, ECCV 2014. https://arxiv.org/abs/1405.0312"
_TIDE = (
    "Bolya et al., TIDE: A General Toolbox for Identifying Object Detection Errors, ECCV 2020. "
    "https://arxiv.org/abs/2008.08115"
)
# Configuration option: addition to the model's description, and its citation.
_OPTIONS = {
    "anchor_queries": (
        "queries that are anchor boxes",
        "Liu et al., DAB-DETR: Dynamic Anchor Boxes are Better Queries for DETR, ICLR 2022. "
        "https://arxiv.org/abs/2201.12329",
    ),
    "denoising_queries": (
        "denoising training",
        "Li et al., DN-DETR: Accelerate DETR Training by Introducing Query DeNoising, CVPR 2022. "
        "https://arxiv.org/abs/2203.01305",
    ),
    "focal_loss": (
        "the focal loss",
        "Lin et al., Focal Loss for Dense Object Detection, ICCV 2017. https://arxiv.org/abs/1708.02002",
    ),
    "dilation": ("a dilated last stage (DC5)", ""),
}
# COCO's twelve metrics: key in metrics.json, name, IoU, object size, most boxes per image.
_ALL = "0.50 to 0.95"
_ROWS = (
    ("map", "AP", _ALL, "all", 100), ("map_50", "AP", "0.50", "all", 100), ("map_75", "AP", "0.75", "all", 100),
    ("map_small", "AP", _ALL, "small", 100), ("map_medium", "AP", _ALL, "medium", 100),
    ("map_large", "AP", _ALL, "large", 100), ("mar_1", "AR", _ALL, "all", 1), ("mar_10", "AR", _ALL, "all", 10),
    ("mar_100", "AR", _ALL, "all", 100), ("mar_small", "AR", _ALL, "small", 100),
    ("mar_medium", "AR", _ALL, "medium", 100), ("mar_large", "AR", _ALL, "large", 100),
)  # fmt: skip
_MEANINGS = {
    "classification": "on a true box, of another class",
    "localisation": "of the right class, but overlapping the true box by less than 0.50",
    "both": "of another class, and overlapping by less than 0.50",
    "duplicate": "on a true box that a surer one has found already",
    "background": "where there is nothing of the kind",
    "missed": "true boxes that no found box was about",
}


def about_detector(config: dict[str, Any], metrics: dict[str, Any], native: str | None) -> dict[str, Any]:
    """Description of the detector and of how it is loaded.

    Args:
        config: Content of `config.json`.
        metrics: Content of `metrics.json`.
        native: Class of transformers under which the model is published instead of its own; None keeps its own.

    Returns:
        Values for the card's template; `code` is "bundle", "native" or "vithub", as in `about_model`.
    """
    ours = config["model_type"] == HubDetrConfig.model_type
    options = [texts for name, texts in _OPTIONS.items() if ours and config.get(name)]
    names = [name for name, _ in options]
    several = f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else "".join(names)
    detr = ours or config["model_type"] == "detr"
    other = f"An object detector of type {markdown_code(config['model_type'])}"
    family = "A detection transformer (DETR)" if detr else other
    backbone = config.get("backbone_config") or {}
    # Runs of version 0.1 have both sides under `image_hw`.
    sides = metrics.get("image_sides") or dict(zip(("shortest", "longest"), metrics["image_hw"], strict=True))
    return {
        "title": f"{'DETR' if detr else config['model_type']} for {metrics['data']['name']}",
        "family": Markdown(family + (f" with {several}" if names else "")),
        **code_of(config, native, ours),
        "needs_timm": backbone.get("model_type") == "timm_backbone",
        "citations": [*([_DETR] if detr else []), *(text for _, text in options if text), _COCO, _TIDE],
        "parameters": metrics["parameters"],
        "backbone": backbone.get("backbone") or backbone.get("model_type"),
        "queries": config.get("num_queries") or config.get("num_detection_tokens"),
        "image_hw": sides.get("fixed"),
        "model_notes": metrics.get("model_notes") or [],
        "shortest": sides["shortest"],
        "longest": sides["longest"],
    }


def about_detections(folder: Path, metrics: dict[str, Any], labels: list[str]) -> dict[str, Any]:
    """Metrics, plots and errors of the reported split, as values for the card's template."""
    split = metrics["reported_split"]
    figures, per_class, bad = metrics[split], metrics["per_class"], left_out(metrics)
    boxes = sum(row["boxes"] for row in per_class)
    rows = [
        {"key": key, "name": name, "iou": iou, "size": size, "most": most, "value": figures.get(key)}
        for key, name, iou, size, most in _ROWS
    ]
    sizes = [row for row in rows if row["name"] == "AP" and row["size"] != "all" and row["value"] is not None]
    pictures = {
        "precision_recall.png": True,
        "errors.png": True,
        "learning_curves.png": bool(metrics["history"]),
    }
    return {
        "split": split,
        "figures": figures,
        "rows": rows,
        "unmeasured": any(row["value"] is None for row in rows),
        "sizes": sizes if len(sizes) > 1 else [],
        "images": metrics["data"]["sizes"][split] - bad.get(split, 0),
        "boxes": boxes,
        "most_boxes": metrics["data"].get("most_boxes"),
        "headline_name": "mAP",
        "validation_headline": metrics["validation"]["map"],
        "per_class": per_class,
        "bad_images": bad,
        "pictures": {name for name, due in pictures.items() if due or (folder / name).is_file()},
        "overlays": overlays(folder),
        "worst": _worst(per_class),
        "untested": [row["label"] for row in per_class if not row["boxes"]],
        "confused": confused(_between_classes(metrics["errors"]["confusion"]), labels),
        "errors": _errors(metrics["errors"], boxes),
        # rounded down, so that the snippets return every box that was counted
        "threshold": f"{math.floor(1e4 * metrics['errors']['threshold']) / 1e4:g}",
    }


def _worst(rows: list[dict[str, Any]], count: int = 3) -> list[dict[str, Any]]:
    measured = [row for row in rows if row["boxes"] and row["map"] is not None]
    return sorted(measured, key=lambda row: row["map"])[:count] if len(measured) > 1 else []


def _between_classes(confusion: list[list[int]]) -> list[list[int]]:
    """Confusion matrix without its last row and column, which stand for "no object"."""
    return [row[:-1] for row in confusion[:-1]]


def _errors(errors: dict[str, Any], boxes: int) -> dict[str, Any]:
    counts = errors["counts"]
    found = sum(counts.values()) - counts["missed"]
    return {
        "counts": counts,
        "found": found,
        "precision": counts["correct"] / found if found else None,
        "missed": counts["missed"] / boxes if boxes else None,
        "rows": [{"kind": kind, "count": counts[kind], "meaning": text} for kind, text in _MEANINGS.items()],
    }


def _facts(
    folder: Path, config: dict[str, Any], metrics: dict[str, Any], labels: list[str], native: str | None
) -> dict[str, Any]:
    return about_detector(config, metrics, native) | about_detections(folder, metrics, labels)


register_card_kind(
    DETECTION,
    CardKind(
        "object-detection",
        TEMPLATES / "object_detection.md",
        (
            ("map", "mean_average_precision", "mAP (IoU 0.50 to 0.95)"),
            ("map_50", "mean_average_precision_50", "mAP at IoU 0.50"),
            ("map_75", "mean_average_precision_75", "mAP at IoU 0.75"),
        ),
        _facts,
    ),
)

__all__ = ["about_detections", "about_detector"]
