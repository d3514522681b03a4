"""Values of the next run of a sweep, proposed by Optuna from the results of the runs before."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...data.argument_names import argument
from ...hub.checkpoints import read_json

MOST_TRIALS = 999
_TRIES = 50  # seeds that are tried for values that no run had


class MissingOptunaError(RuntimeError):
    """Optuna is not installed."""


@dataclass(frozen=True)
class Range:
    """Range of a recipe field that a search draws from, both ends included.

    Args:
        low: Smallest value.
        high: Largest value.
        log: Whether the logarithm of the value is drawn.
    """

    low: float
    high: float
    log: bool = False

    @classmethod
    def parsed(cls, name: str, stated: Any) -> "Range":
        """Range from [LOW, HIGH] or [LOW, HIGH, "log"].

        Raises:
            ValueError: It has another form, or no values lie in it.
        """
        parts = list(stated) if isinstance(stated, Sequence) and not isinstance(stated, str) else []
        log = parts[2:] == ["log"]
        numbers = [part for part in parts[:2] if isinstance(part, int | float) and not isinstance(part, bool)]
        if len(numbers) != 2 or (parts[2:] and not log) or not all(map(math.isfinite, numbers)):
            raise ValueError(f"{argument('ranges')}: {name} must be [LOW,HIGH] or [LOW,HIGH,log], got {stated!r}")
        low, high = numbers
        if not low < high or (log and low <= 0):
            above = " and both must be above 0" if log else ""
            raise ValueError(f"{argument('ranges')}: {name} must have LOW < HIGH{above}, got {stated!r}")
        return cls(low, high, log)

    @property
    def whole(self) -> bool:
        """Whether only whole numbers are drawn, as both ends are."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def rounded(self, value: float) -> float:
        """Value with four significant digits, within the range."""
        return int(value) if self.whole else min(max(float(f"{value:.4g}"), self.low), self.high)


@dataclass(frozen=True)
class Search:
    """Search over some recipe fields.

    Args:
        trials: Number of runs.
        grid: Values of fields by dotted name, of which one is chosen.
        ranges: Ranges of further fields by dotted name.
        seed: Random seed of the proposals.
    """

    trials: int
    grid: Mapping[str, Sequence[Any]]
    ranges: Mapping[str, Range]
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.trials <= MOST_TRIALS:
            raise ValueError(f"{argument('search')} must be 1 to {MOST_TRIALS} runs, got {self.trials}")
        if both := sorted(set(self.grid) & set(self.ranges)):
            raise ValueError(
                f"{', '.join(both)} has values in {argument('grid')} and in {argument('ranges')}; give one"
            )
        if not {**self.grid, **self.ranges}:
            raise ValueError(
                f"{argument('search')} has nothing to vary: give {argument('grid')} or {argument('ranges')}"
            )

    def to_dict(self) -> dict[str, Any]:
        """The search without its number of runs, which may grow, as JSON values; another Optuna proposes others."""
        ranges = {name: [one.low, one.high, *(["log"] if one.log else [])] for name, one in self.ranges.items()}
        return {
            "grid": {name: list(one) for name, one in self.grid.items()},
            "ranges": ranges,
            "search_seed": self.seed,
            "optuna": import_optuna().__version__,
        }

    def extremes(self) -> Iterator[dict[str, Any]]:
        """Combinations in which every value and both ends of every range occur, to be checked before any run."""
        ends = {name: [one.low, one.high] for name, one in self.ranges.items()}
        values = {**{name: list(given) for name, given in self.grid.items()}, **ends}
        for place in range(max(map(len, values.values()))):
            yield {name: given[min(place, len(given) - 1)] for name, given in values.items()}

    def cells(self, figure: Callable[[int, dict[str, Any]], float | None]) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yields the number of each run, from 1, and its values, which the figures of the runs before it determine.

        Args:
            figure: Function of the number and the values of a run that returns the figure to maximise, or None if the
                run has none. It is called when the next run is asked for.
        """
        optuna = import_optuna()
        history: list[tuple[dict[str, Any], float | None]] = []
        for number in range(1, self.trials + 1):
            cell = self._proposed(optuna, history, number)
            yield number, cell
            history.append((cell, figure(number, cell)))

    def _proposed(self, optuna: Any, history: list[tuple[dict[str, Any], float | None]], number: int) -> dict[str, Any]:
        """Values that Optuna's TPE sampler proposes after the results so far, preferably such as no run had."""
        spaces = optuna.distributions
        choices = {name: spaces.CategoricalDistribution(range(len(given))) for name, given in self.grid.items()}
        drawn = {
            name: (spaces.IntDistribution if one.whole else spaces.FloatDistribution)(one.low, one.high, log=one.log)
            for name, one in self.ranges.items()
        }
        for attempt in range(_TRIES):
            sampler = optuna.samplers.TPESampler(seed=self.seed + 1000 * number + 1_000_000 * attempt)
            study = optuna.create_study(direction="maximize", sampler=sampler)
            for cell, value in history:
                parameters = {name: list(self.grid[name]).index(cell[name]) for name in choices}
                parameters |= {name: cell[name] for name in drawn}
                state = optuna.trial.TrialState.FAIL if value is None else optuna.trial.TrialState.COMPLETE
                study.add_trial(
                    optuna.trial.create_trial(
                        state=state, value=value, params=parameters, distributions={**choices, **drawn}
                    )
                )
            found = study.ask({**choices, **drawn}).params
            cell = {name: self.grid[name][found[name]] for name in self.grid}
            cell |= {name: one.rounded(found[name]) for name, one in self.ranges.items()}
            if all(cell != before for before, _ in history):
                break
        return cell


def validation_figure(file: Path) -> float | None:
    """Headline figure of a run on the validation split, by its `metrics.json`; None without such a file or figure.

    The test split must not choose: the best of many runs is better there by chance alone.
    """
    if not file.is_file():
        return None
    metrics = read_json(file)
    value = metrics.get("validation", {}).get(metrics.get("headline", "accuracy"))
    return float(value) if isinstance(value, int | float) else None


def import_optuna() -> Any:
    """Imports Optuna, and keeps it from reporting each proposal; a `MissingOptunaError` says how to install it."""
    try:
        import optuna
    except ImportError as error:
        raise MissingOptunaError("a search needs Optuna: pip install 'vithub[search]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


__all__ = ["MOST_TRIALS", "MissingOptunaError", "Range", "Search", "import_optuna", "validation_figure"]
