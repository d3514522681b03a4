"""Complete comparison of classifiers or detectors: the function behind `vithub compare`."""

import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..configuration.model_task import DETECTION
from ..data.argument_names import argument
from ..data.sources import DataError
from ..data.text.json_text import json_text
from ..data.whole_files import write_whole
from ..hub.checkpoints import CheckpointError, read_json
from ..hub.folders import TargetError
from ..training.runtime.environment import hardware, software_versions
from ..training.runtime.precision import resolve_precision
from ..training.runtime.processes import process_state
from ..training.runtime.progress import QuietReporter, Reporter
from .contestant_sources import compared_task, load_contestants
from .contestants import Contestant
from .cost import QUICK_SIDES, CostSettings, measure_cost
from .data_efficiency import GridSettings, measure_data_efficiency
from .detection.detector_verdict import grouped_detector_verdict
from .detection.detectors import load_compared_detector
from .detection.measuring import detector_measures
from .image_sample import ImageSample, Runner, draw_images
from .locality import LocalitySettings, measure_locality
from .measurement import Measurement, Section
from .robustness import RobustnessSettings, measure_robustness
from .section_names import DEFAULT_SECTIONS, DETECTION_SECTIONS, SECTIONS
from .translation import TranslationSettings, measure_translation
from .verdict import grouped_verdict

REPORT, CELLS = "report.json", "cells"
_QUICK_CORRUPTIONS = ("gaussian noise", "gaussian blur", "jpeg", "contrast", "pixelate")


@dataclass
class Comparison:
    """Result of a comparison.

    Args:
        contestants: Entries with `name`, `source`, `library`, `family`, `parameters` and `image_hw` of each contestant.
        sections: Measured sections, in the order of `SECTIONS` or `DETECTION_SECTIONS`.
        about: Task of detectors, data, seed, command, machine and versions.
    """

    contestants: list[dict[str, Any]]
    sections: list[Section]
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> list[str]:
        """Sentences derived from the measurements."""
        return [line for lines in self.verdict_by_heading.values() for line in lines]

    @property
    def verdict_by_heading(self) -> dict[str, list[str]]:
        """Sentences derived from the measurements, by heading."""
        if self.about.get("task") == DETECTION:
            return grouped_detector_verdict(self.sections)
        return grouped_verdict(self.sections, {one["name"]: one["image_hw"][0] for one in self.contestants})

    def to_dict(self) -> dict[str, Any]:
        """Converts to plain data, in which each number has `unit`, `interval`, `protocol`, `seed` and `command`."""
        sections = [section.to_dict() for section in self.sections]
        for section in sections:
            for one in section["measurements"]:
                one["command"] = self.about.get("command")
        return {
            "about": self.about, "contestants": self.contestants, "verdict": self.verdict,
            "verdict_by_heading": self.verdict_by_heading, "sections": sections,
        }  # fmt: skip

    def save(self, folder: str | Path) -> Path:
        """Writes `report.json`, `report.md`, `report.html` and `pictures/` into a folder, and returns it."""
        from .report_page import write_report

        return write_report(self, Path(folder))

    @classmethod
    def load(cls, file: str | Path) -> "Comparison":
        """Loads a comparison from its `report.json`, or from the folder that holds it."""
        path = Path(file)
        path = path / REPORT if path.is_dir() else path
        content = read_json(path)
        try:
            return cls(content["contestants"], [_section(part) for part in content["sections"]], content["about"])
        except (KeyError, TypeError, IndexError) as error:
            raise CheckpointError(
                f"{path} is no report that `vithub compare` wrote, or damaged: {_lacking(error)}"
            ) from error


def compare(
    models: Sequence[str | Path],
    data: Any = None,
    output: str | Path | None = None,
    *,
    sections: Sequence[str] | None = None,
    quick: bool = False,
    images: int | None = None,
    split: str | None = None,
    seed: int = 0,
    precision: str = "auto",
    cost: CostSettings | None = None,
    grid: GridSettings | None = None,
    part: tuple[int, int] = (0, 1),
    resume: bool = False,
    command: str | None = None,
    reporter: Reporter | None = None,
) -> Comparison:
    """Measures several classifiers, or several detectors, and compares them.

    Args:
        models: Folders, Hub ids, `timm:NAME`, `torchvision:NAME` (see `contestant_sources`); NAME=SOURCE sets the name.
            Detectors are folders or Hub ids.
        data: Data set in any form that `finetune` takes; required by every section except "cost". The models must know
            its labels by name.
        output: Folder for report.json, report.md, report.html and pictures; None writes nothing.
        sections: Names of the sections to measure, from `SECTIONS`, of detectors from `DETECTION_SECTIONS`; None takes
            all but "data", which trains its own networks from scratch, into `output`/cells.
        quick: Whether to use fewer resolutions, rounds, corruptions and images: minutes instead of an hour on two
            cores.
        images: Number of images for evaluation; None takes 400, or 100 with `quick`.
        split: Name of the data's split; None takes "test" if it exists, else the last.
        seed: Seed of all random choices.
        precision: "auto", "fp32" or "bf16", for all sections of detectors, and for those of classifiers except "cost",
            which uses `cost.precision`.
        cost: Settings of the section "cost", of which those of detectors are `sides`, `rounds` and `batch_size`; None
            derives them from `quick`.
        grid: Settings of the trainings of the section "data"; None derives them from `quick`.
        part: Pair (i, n): run the i-th of n parts of the trainings of "data", i from 0.
        resume: Whether to reuse sections that an earlier call with the same arguments left in `output`.
        command: Command line that repeats the comparison, for the report; None composes one.
        reporter: Receives the progress; None writes to the log.

    Raises:
        ValueError: A section does not exist, an argument that a section needs is missing, or models are of different
            tasks.
        DataError: The data cannot be used, or a model lacks one of its labels.
        TargetError: `output` holds another report.
    """
    reporter, state = reporter or QuietReporter(), process_state()
    task = compared_task(models)
    wanted = _checked(sections, data, output, task)
    about: dict[str, Any] = {
        "models": [str(model) for model in models],
        "data": None if data is None else str(data) if isinstance(data, str | Path) else "a Dataset in memory",
        "sections": wanted, "quick": quick, "images": images, "split": split, "seed": seed, "precision": precision,
    }  # fmt: skip
    if task == DETECTION:
        about["task"] = task
        _refuse_training_options(grid, part)
    folder = None if output is None else Path(output).expanduser()
    if folder is not None and state.is_main_process:
        _open(folder, about, resume)
    contestants: list[Any] = []
    if models or wanted != ["data"]:
        contestants = load_contestants(models, load_compared_detector if task == DETECTION else None)
    if task == DETECTION:
        measures = detector_measures(
            contestants, wanted, None if wanted == ["cost"] else data, quick=quick, images=images, split=split,
            seed=seed, precision=precision, cost=cost, reporter=reporter,
        )  # fmt: skip
    else:
        contestants, measures = _classifier_measures(
            contestants, wanted, data, folder, quick=quick, images=images, split=split, seed=seed, precision=precision,
            cost=cost, grid=grid, part=part, reporter=reporter,
        )  # fmt: skip
    found: list[Section] = []
    for name in wanted:
        kept = None if folder is None else folder / "sections" / f"{name}.json"
        if kept is not None and resume and name != "data" and kept.is_file():
            found.append(_kept_section(kept))
            reporter.message(f"section {name}: taken from {kept}")
            continue
        if name != "data" and not state.is_main_process:
            continue  # processes of a launch share only the trainings
        start = time.monotonic()
        section = measures[name]()
        if name != "data":  # the trainings report their own times, including those of earlier calls
            section.notes.append(f"measured in {time.monotonic() - start:.0f} s")
        found.append(section)
        if kept is not None and state.is_main_process:
            _write(kept, section.to_dict())
    about |= {
        "command": command or default_command(about, output),
        "hardware": hardware("cpu"),
        "threads": torch.get_num_threads(),
        "versions": software_versions(),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    comparison = Comparison([_described(one) for one in contestants], found, about)
    if folder is not None and state.is_main_process:
        comparison.save(folder)
    return comparison


def _classifier_measures(
    contestants: list[Contestant], wanted: list[str], data: Any, folder: Path | None, *, quick: bool,
    images: int | None, split: str | None, seed: int, precision: str, cost: CostSettings | None,
    grid: GridSettings | None, part: tuple[int, int], reporter: Reporter,
) -> tuple[list[Contestant], dict[str, Callable[[], Section]]]:  # fmt: skip
    """Draws the images, and returns the contestants for their labels and the function that measures each section."""
    sample: ImageSample | None = None
    runner = Runner(resolve_precision(precision, torch.device("cpu")))
    if set(wanted) & {"translation", "locality", "robustness"}:
        sample = draw_images(data, images or (100 if quick else 400), seed, split)
        contestants = [one.for_labels(sample.names) for one in contestants]
    return contestants, {
        "cost": lambda: measure_cost(contestants, cost or _cost_settings(quick), seed, reporter),
        "translation": lambda: measure_translation(
            contestants, _given(sample), _translation_settings(quick), runner, seed, reporter
        ),
        "locality": lambda: measure_locality(
            contestants, _given(sample), LocalitySettings(8, 4) if quick else LocalitySettings(), seed, reporter
        ),
        "robustness": lambda: measure_robustness(
            contestants, _given(sample), _robustness_settings(quick), runner, seed, reporter
        ),
        "data": lambda: measure_data_efficiency(
            data, _given(folder) / CELLS, grid or grid_settings(quick), part=part, reporter=reporter
        ),
    }


def default_command(about: dict[str, Any], output: str | Path | None) -> str:
    """Returns a command line that repeats the measurements."""
    words = ["vithub", "compare", *about["models"]]
    options = {"data": about["data"], "output": output, "sections": ",".join(about["sections"])}
    options |= {name: about[name] for name in ("images", "split", "seed", "precision")}
    for name, value in options.items():
        if value is not None:
            words += [f"--{name}", str(value)]
    return shlex.join(words + (["--quick"] if about["quick"] else []))


def _checked(sections: Sequence[str] | None, data: Any, output: str | Path | None, task: str) -> list[str]:
    known, default = (DETECTION_SECTIONS,) * 2 if task == DETECTION else (SECTIONS, DEFAULT_SECTIONS)
    sections = default if sections is None else sections
    if unknown := [name for name in sections if name not in known]:
        of_task = " for detectors" if task == DETECTION else ""
        raise ValueError(f"there is no section {', '.join(unknown)}{of_task}; there are {', '.join(known)}")
    wanted = [name for name in known if name in sections]
    if not wanted:
        raise ValueError(f"{argument('sections')} must be one or more of {', '.join(known)}, got none")
    if data is None and wanted != ["cost"]:
        needing = ", ".join(name for name in wanted if name != "cost")
        raise DataError(
            f"the sections {needing} need {argument('data')}, images with labels to judge on; cost does not"
        )
    if "data" in wanted and output is None:
        raise ValueError(f"the section data needs {argument('output')}, a folder for its trainings")
    return wanted


def _refuse_training_options(grid: Any, part: tuple[int, int]) -> None:
    given = {"grid": grid is not None, "part": part != (0, 1)}
    if useless := [argument(name) for name, value in given.items() if value]:
        raise ValueError(f"{' and '.join(useless)} has no effect on detectors, which no section trains")


def _open(folder: Path, about: dict[str, Any], resume: bool) -> None:
    """Makes the folder, or checks that it holds the same comparison."""
    file = folder / "sections" / "comparison.json"
    if folder.is_file():
        raise TargetError(f"{folder} is a file; name a folder")
    same = {name: value for name, value in about.items() if name != "sections"}
    if file.is_file():
        if not resume:
            raise TargetError(f"{folder} holds a comparison already; name another folder, or give {argument('resume')}")
        before = read_json(file)
        if changed := [
            f"{name} {before.get(name)!r}, not {same[name]!r}" for name in same if before.get(name) != same[name]
        ]:
            raise TargetError(f"{folder} holds another comparison: {'; '.join(changed)}")
    elif folder.is_dir() and any(folder.iterdir()):
        raise TargetError(f"{folder} holds files already; name another folder")
    _write(file, same)


def _write(file: Path, content: dict[str, Any]) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, json_text(content, indent=1) + "\n")
    except OSError as error:
        raise TargetError(f"cannot write {file}: {error.strerror or error}") from error


def _kept_section(file: Path) -> Section:
    """Loads a section measured by an earlier comparison.

    Raises:
        CheckpointError: The file is damaged.
    """
    content = read_json(file)
    try:
        return _section(content)
    except (KeyError, TypeError, IndexError) as error:
        raise CheckpointError(f"{file} holds no section: {_lacking(error)}; remove it to measure again") from error


def _lacking(error: Exception) -> str:
    """Names the field that a file lacks."""
    return f"it lacks {error}" if isinstance(error, KeyError) else str(error)


def _section(content: dict[str, Any]) -> Section:
    rows = []
    for row in content["measurements"]:
        interval = row["interval"]
        known = {name: value for name, value in row.items() if name != "command"}
        rows.append(Measurement(**known | {"interval": None if interval is None else (interval[0], interval[1])}))
    return Section(content["name"], content["protocols"], rows, content["notes"], content["maps"])


def _described(one: Any) -> dict[str, Any]:
    if not isinstance(one, Contestant):
        described: dict[str, Any] = one.described()
        return described
    return {
        "name": one.name, "source": one.source, "library": one.library, "family": one.family,
        "architecture": type(one.model).__name__, "parameters": one.parameters, "image_hw": list(one.image_hw),
    }  # fmt: skip


def _given(value: Any) -> Any:
    assert value is not None
    return value


def _cost_settings(quick: bool) -> CostSettings:
    return CostSettings(sides=QUICK_SIDES, training_sides=(96, 160, 224), rounds=5) if quick else CostSettings()


def _translation_settings(quick: bool) -> TranslationSettings:
    if not quick:
        return TranslationSettings()
    return TranslationSettings(
        pairs=2, steps=6, shifts=6, equivariance_shifts=(1, 4, 7, 8, 14, 16, 28, 32), equivariance_images=8,
        map_step=4, map_images=4,
    )  # fmt: skip


def _robustness_settings(quick: bool) -> RobustnessSettings:
    if not quick:
        return RobustnessSettings()
    return RobustnessSettings(_QUICK_CORRUPTIONS, (1, 3, 5), (2, 4, 8), (0.25, 0.5, 0.75))


def grid_settings(quick: bool) -> GridSettings:
    """Returns the default settings of the trainings of the section "data"."""
    if not quick:
        return GridSettings()
    return GridSettings(fractions=(0.05, 0.25, 1.0), epochs=6, image_size=32, hidden_size=96, layers=4)


__all__ = [
    "CELLS",
    "REPORT",
    "Comparison",
    "compare",
    "default_command",
    "grid_settings",
]
