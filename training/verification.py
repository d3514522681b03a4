"""Verification of published models: their files against the manifest, and their figures by measuring again."""

from pathlib import Path
from typing import Any

from datasets import ClassLabel, DatasetDict, List
from huggingface_hub import snapshot_download

from ..configuration.model_task import CLASSIFICATION
from ..data.argument_names import argument
from ..data.columns import LABEL
from ..data.labelled.tables import load_image_data
from ..data.sources import DataError
from ..data.streaming.tables import load_streamed_data
from ..data.table_identity import Fingerprint, content_fingerprint
from ..hub.push.verifying import Verification, verify_folder
from .evaluation import evaluate
from .recipe.run_data import run_data
from .runtime.environment import hardware
from .runtime.processes import process_state
from .runtime.progress import Reporter
from .tasks.registry import task_of

ROUNDING = 5e-5  # half of the last digit of a share in per cent with two digits


def verify(
    source: str | Path,
    *,
    revision: str | None = None,
    key: str | Path | None = None,
    data: Any = None,
    reporter: Reporter | None = None,
) -> Verification:
    """Checks a published model against its manifest and, with data, measures its figures again.

    Without data nothing of the model is loaded: the signature, the hash and size of each file, files that are missing
    or were added, and the code are checked. With data, the recipe of the model reads and splits it as the run did.

    Args:
        source: Folder or Hub id of a published model.
        revision: Branch, tag or commit of a Hub id; None takes the default branch.
        key: PEM file of the Ed25519 public key that must have signed the manifest; None checks no signature.
        data: Data set that the figures were measured on, in any form that `finetune` takes; None measures nothing.
        reporter: Receives the progress of the measurement; None writes to the log.

    Raises:
        CheckpointError: There is no such model, or it has no manifest.
        KeyFileError: The key cannot be used.
        DataError: The data cannot be used.
    """
    folder = Path(source).expanduser()
    if not folder.is_dir():
        folder = Path(snapshot_download(str(source), revision=revision))
    elif revision is not None:
        raise ValueError(f"{source} is a folder, which has no {argument('revision')} {revision!r}")
    result = verify_folder(folder, str(source), None if key is None else Path(key))
    if data is not None:
        if result.problems:
            result.problems.append("nothing was measured, as the files are not those of the manifest")
        else:
            _measure_again(result, folder, data, reporter)
    return result


def _measure_again(result: Verification, folder: Path, data: Any, reporter: Reporter | None) -> None:
    claimed = result.manifest.get("results")
    if not claimed:
        raise DataError(f"the manifest of {result.source} states no figures that could be measured again")
    split, tables = claimed["split"], _as_trained_on(folder, data)
    measured = evaluate(folder, tables, split, reporter=reporter)
    _compare_images(result, folder, tables, split)
    here = hardware(process_state().device.type)
    same_machine = here == result.manifest.get("hardware")
    for name, stated in claimed["figures"].items():
        found = measured["metrics"].get(name)
        if isinstance(found, int | float):
            _compare_figure(result, name, stated, found, (claimed.get("intervals") or {}).get(name), same_machine)


def _as_trained_on(folder: Path, data: Any) -> Any:
    """Splits of the data as the run's recipe makes them; for detectors the data itself."""
    if task_of(folder).name != CLASSIFICATION or not (folder / "recipe.yaml").is_file():
        return data
    settings = run_data(folder)
    if settings.streaming:
        images = load_streamed_data(data, **settings.streamed())
        names = ClassLabel(names=list(images.labels.names))
        kind = List(names) if images.labels.multi_label else names
        held_out = {name: table for name, table in images.splits.items() if name != "train"}
        return DatasetDict({name: table.cast_column(LABEL, kind) for name, table in held_out.items()})
    return DatasetDict(load_image_data(data, **settings.reading()).splits)


def _compare_images(result: Verification, folder: Path, data: Any, split: str) -> None:
    """Compares the images and labels with those that the figures are of, by their fingerprint."""
    stated = result.manifest.get("data")
    if not stated:
        result.checked.append("the manifest has no fingerprint of the images, so that they were not compared")
        return
    rows = task_of(folder).open_evaluation(folder, result.source, data, split, None, False).rows
    found, expected = content_fingerprint(rows), Fingerprint.from_dict(stated)
    if found.sha256 == expected.sha256:
        result.checked.append(f"the {found.images} images of split {split!r} and their labels are those of the run")
    elif (row := expected.first_difference(found)) is not None and row < min(found.images, expected.images):
        path = rows[row]["image"].get("path")
        where = f"row {row} of split {split!r}" + (f" ({Path(path).name})" if path else "")
        result.problems.append(
            f"the data is not that of the run: {where} is the first image that differs, or its label"
        )
    else:
        result.problems.append(
            f"the data is not that of the run: split {split!r} has {found.images} images, not {expected.images}"
        )


def _compare_figure(
    result: Verification, name: str, stated: float, found: float, interval: Any, same_machine: bool
) -> None:
    said = f"{name} is {found:.6g}, the manifest states {stated:.6g}"
    if abs(found - stated) <= ROUNDING * max(1.0, abs(stated)):
        result.checked.append(f"{said}: the same within rounding")
    elif interval and interval[0] <= found <= interval[1] and not same_machine:
        result.checked.append(f"{said}: within its interval {interval[0]:.6g} to {interval[1]:.6g}, on another machine")
    elif not same_machine and not interval:
        result.checked.append(f"{said}, without an interval, on another machine")
    else:
        than = "rounding" if same_machine else "rounding and its interval"
        result.problems.append(f"{said}, which differs by more than {than}")


__all__ = ["ROUNDING", "verify"]
