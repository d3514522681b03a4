"""Result of `faithfulness`: measures of every method with intervals, compared with the random map."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ...data.text.json_text import json_text
from ..analysis.plots import PAGE, paper_figure, series_style
from .insertion_deletion import CURVE_MEASURES
from .localisation import PLACE_MEASURES
from .protocol import FaithfulnessProtocol
from .streaming_bootstrap import Estimate

MEASURES = CURVE_MEASURES | PLACE_MEASURES
RANDOM = "random"


@dataclass
class MethodResult:
    """Result of one method.

    Args:
        measures: Mean over images with its interval, by name of the measure (see `MEASURES`); measures that need
            annotations are missing without them.
        gains: Improvement over the random map on the same images, with its interval, by name of the measure; above 0 is
            better, also for measures where lower is better. Empty for the random map.
        correlations: Rank correlation of the maps before and after randomisation, by the share of weights randomised.
        seconds_per_image: Wall-clock time of the explanation per image in seconds; it depends on the machine's load.
        deletion: Mean probability of the class at each step of deletion, from 0 to 100 % of the patches removed.
        insertion: Mean probability of the class at each step of insertion, from 0 to 100 % of the patches restored.
    """

    measures: dict[str, Estimate]
    gains: dict[str, Estimate]
    correlations: dict[float, Estimate]
    seconds_per_image: float
    deletion: list[float]
    insertion: list[float]

    @property
    def beats_random(self) -> bool | None:
        """Whether deletion and insertion are both better than the random map's, each with its whole interval.

        None for the random map itself.
        """
        if not self.gains:
            return None
        return all(self.gains[name].low > 0 for name in ("deletion", "insertion"))


@dataclass
class Faithfulness:
    """Faithfulness of the explanations of a model.

    Args:
        protocol: Settings of the measurement; its id belongs to every reported number.
        model: Class name of the model.
        images: Number of images.
        methods: Result of each method by name, including the random map.
    """

    protocol: FaithfulnessProtocol
    model: str
    images: int
    methods: dict[str, MethodResult] = field(default_factory=dict)

    @property
    def protocol_id(self) -> str:
        """Identifier of the protocol; results are comparable if it is the same."""
        return self.protocol.id

    def is_sane(self, method: str) -> bool | None:
        """Whether a method's maps change when the weights are randomised; None if this was not measured."""
        correlations = self.methods[method].correlations
        if not correlations:
            return None
        return correlations[max(correlations)].high < self.protocol.sanity_limit

    def to_dataframe(self) -> pd.DataFrame:
        """Measures as a data frame, one row per method and measure.

        The columns are `method`, `measure`, `better` ("higher" or "lower"), `mean`, `low`, `high`, `gain`, `gain_low`,
        `gain_high` (over the random map), `sane`, `beats_random`, `seconds_per_image`, `images` and `protocol`.
        """
        nothing = Estimate(float("nan"), float("nan"), float("nan"))
        rows = []
        for name, found in self.methods.items():
            for measure, value in found.measures.items():
                gain = found.gains.get(measure, nothing)
                rows.append(
                    {
                        "method": name,
                        "measure": measure,
                        "better": "higher" if MEASURES[measure] > 0 else "lower",
                        **dict(zip(("mean", "low", "high"), value.to_list(), strict=True)),
                        **dict(zip(("gain", "gain_low", "gain_high"), gain.to_list(), strict=True)),
                        "sane": self.is_sane(name),
                        "beats_random": found.beats_random,
                        "seconds_per_image": found.seconds_per_image,
                        "images": self.images,
                        "protocol": self.protocol_id,
                    }
                )
        return pd.DataFrame(rows)

    def to_dict(self) -> dict[str, Any]:
        """The whole result as plain data for JSON."""
        return {
            "protocol_id": self.protocol_id,
            "protocol": self.protocol.to_dict(),
            "model": self.model,
            "images": self.images,
            "methods": {
                name: {
                    "measures": {key: value.to_list() for key, value in found.measures.items()},
                    "gains": {key: value.to_list() for key, value in found.gains.items()},
                    "correlations": {str(key): value.to_list() for key, value in found.correlations.items()},
                    "sane": self.is_sane(name),
                    "beats_random": found.beats_random,
                    "seconds_per_image": found.seconds_per_image,
                    "deletion": found.deletion,
                    "insertion": found.insertion,
                }
                for name, found in self.methods.items()
            },
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Faithfulness":
        """Result from the data that `to_dict` returned.

        Raises:
            ValueError: The stored id differs from that of the stored protocol.
        """
        protocol = FaithfulnessProtocol.from_dict(values["protocol"])
        if protocol.id != values["protocol_id"]:
            raise ValueError(
                f"the result names the protocol {values['protocol_id']}, and its fields give {protocol.id}"
            )
        methods = {}
        for name, found in values["methods"].items():
            estimates = {
                part: {key: Estimate(*value) for key, value in found[part].items()}
                for part in ("measures", "gains", "correlations")
            }
            methods[name] = MethodResult(
                estimates["measures"],
                estimates["gains"],
                {float(key): value for key, value in estimates["correlations"].items()},
                found["seconds_per_image"],
                found["deletion"],
                found["insertion"],
            )
        return cls(protocol, values["model"], values["images"], methods)

    def to_markdown(self) -> str:
        """Markdown table with one row per method: means with intervals in per cent, and both verdicts."""
        measures = list(next(iter(self.methods.values())).measures)
        heads = [f"{name.replace('_', ' ')} {'↑' if MEASURES[name] > 0 else '↓'}" for name in measures]
        lines = [
            "| " + " | ".join(["method", *heads, "correlation", "sane", "beats random", "s/image"]) + " |",
            "|" + "---|" * (len(heads) + 5),
        ]
        words = {True: "yes", False: "**no**", None: "-"}
        for name, found in self.methods.items():
            cells = [_percent(found.measures[measure]) for measure in measures]
            correlations = found.correlations
            correlation = f"{correlations[max(correlations)].mean:.2f}" if correlations else "-"
            verdicts = [words[self.is_sane(name)], words[found.beats_random]]
            lines.append(
                "| " + " | ".join([name, *cells, correlation, *verdicts, f"{found.seconds_per_image:.3f}"]) + " |"
            )
        return "\n".join(lines)

    def save(self, path: str | Path, *, theme: str = "light") -> None:
        """Plots deletion and insertion of each method with intervals, or writes the result as JSON.

        The random map is drawn as a band.

        Args:
            path: A .png, .pdf or .svg file for the plot, or a .json file for the data of `to_dict`; for a plot, missing
                folders are made.
            theme: "light" or "dark".
        """
        if Path(path).suffix == ".json":
            Path(path).write_text(json_text(self.to_dict(), indent=1) + "\n", encoding="utf-8")
            return
        names = [name for name in self.methods if name != RANDOM]
        place = np.arange(len(names))
        with paper_figure(path, PAGE, 1.2 + 0.24 * len(self.methods), theme) as (figure, colors):
            panels = figure.subplots(1, 2, sharey=True)
            for axes, measure, better in zip(panels, ("deletion", "insertion"), ("lower", "higher"), strict=True):
                random = self.methods[RANDOM].measures[measure]
                axes.axvspan(100 * random.low, 100 * random.high, color=colors.faint, alpha=0.35, linewidth=0)
                axes.axvline(100 * random.mean, color=colors.faint, linewidth=1, label="random map")
                values = (
                    np.array([self.methods[name].measures[measure].to_list() for name in names]).reshape(-1, 3) * 100
                )
                style = series_style(colors, 0) | {"linestyle": "none", "markersize": 4, "capsize": 2}
                errors = np.abs(values[:, 1:] - values[:, :1]).T
                axes.errorbar(values[:, 0], place, xerr=errors, label=f"{self.protocol.level:.0%} interval", **style)
                axes.set(xlabel=f"{measure}: mean probability (%), {better} is better")
                axes.set_yticks(place, [name.replace("_", " ") for name in names])
            panels[0].invert_yaxis()
            title = f"{self.model}, {self.images} images, protocol {self.protocol_id}"
            figure.legend(*panels[0].get_legend_handles_labels(), title=title, loc="outside lower center", ncols=2)


def _percent(value: Estimate) -> str:
    return "-" if np.isnan(value.mean) else f"{100 * value.mean:.1f} ({100 * value.low:.1f} to {100 * value.high:.1f})"


__all__ = ["MEASURES", "RANDOM", "Faithfulness", "MethodResult"]
