"""Facts of a folder's exported forms for the model card, read from its `export.json`."""

from pathlib import Path
from typing import Any

from ...data.text.markdown_text import Markdown
from ..exported.exported_model import BOXES
from ..exported.forms import changed_weights, check_files, form_of, read_records

_MEASURES = {"accuracy": "accuracy", "mean_average_precision": "mean average precision", "map_50": "mAP at IoU 0.50"}


def exported_facts(folder: Path) -> dict[str, Any] | None:
    """Values of the card's part on exported forms; None where nothing was exported from the folder's weights.

    Forms of other weights, which a run had before it was trained further, are left out.

    Args:
        folder: Folder of a run.

    Raises:
        BackendError: A form's file is missing or was changed since it was measured.
    """
    current = [name for name, entry in read_records(folder).items() if changed_weights(folder, entry) is None]
    records = {name: check_files(folder, form_of(name)) for name in current}
    if not records:
        return None
    measured = [record["accuracy"] for record in records.values() if record.get("accuracy")]
    plain = [name for name in records if not form_of(name).pixels]
    onnx = [form_of(name).file for name in plain if form_of(name).format == "onnx"]
    whole = [name for name in records if form_of(name).pixels]
    boxes = bool(whole) and BOXES in records[whole[0]]["outputs"]
    backend = (plain or list(records))[0]
    return {
        "forms": [_row(name, record) for name, record in records.items()],
        "measured": bool(measured),
        "measure": _MEASURES[measured[0]["measure"]] if measured else None,
        "onnx": onnx[0] if onnx else None,
        "pixels": form_of(whole[0]).file if whole else None,
        "finds_boxes": boxes,
        "backend": backend,
        "own_processor": form_of(backend).pixels,
        "outputs": ", ".join(records[backend]["outputs"]),
    }


def _row(name: str, record: dict[str, Any]) -> dict[str, Any]:
    difference = max(value for key, value in record["largest_difference"].items() if key != "batch")
    return {
        "file": form_of(name).file,
        "precision": form_of(name).precision,
        "size": f"{record['bytes'] / 1e6:.1f} MB",
        "difference": Markdown(f"{difference:.1e}"),
        "accuracy": Markdown(_accuracy(record.get("accuracy"))),
    }


def _accuracy(found: dict[str, Any] | None) -> str:
    if found is None:
        return "not measured"
    interval = found.get("interval")
    within = "" if interval is None else f", {100 * interval[0]:+.1f} to {100 * interval[1]:+.1f}"
    return f"{100 * found['exported']:.1f} % of {found['images']} images ({-found['drop_points']:+.1f}{within})"


__all__ = ["exported_facts"]
