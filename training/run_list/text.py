"""List of runs as text for a terminal, and their curves in one plot."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from matplotlib.ticker import MaxNLocator

from ...data.argument_names import argument
from ..runtime.progress import duration
from ..tasks.plots import HEADLINES, drawable, new_figure
from .listing import FINISHED, RunEntry

_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#666666")  # Okabe and Ito's
_DASHES = ("-", "--", ":", "-.")
FORMATS = (".png", ".svg", ".pdf")


def runs_text(entries: Sequence[RunEntry], folder: Path) -> str:
    """Formats a list of runs: for each a line with the figures, and below it what differs from the others.

    Args:
        entries: Runs in the order to show.
        folder: Folder that they were found below, which their names leave out.
    """
    rows = [_columns(one, folder) for one in entries]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))] if rows else []
    lines: list[str] = []
    for one, row in zip(entries, rows, strict=True):
        lines.append("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
        lines += [f"    {line}" for line in _further(one)]
    return "\n".join(lines)


def _columns(one: RunEntry, folder: Path) -> tuple[str, ...]:
    return (
        _name(one, folder),
        (one.date or "").replace("T", " ").removesuffix("Z")[:16],
        one.task or "",
        one.model or "",
        _figure(one),
        "" if one.seconds is None else duration(one.seconds),
        one.state,
    )


def _name(one: RunEntry, folder: Path) -> str:
    return str(one.folder.relative_to(folder)) if one.folder != folder else one.folder.name


def _figure(one: RunEntry) -> str:
    if one.value is None:
        return ""
    ends = "" if one.interval is None else f" ({100 * one.interval[0]:.1f} to {100 * one.interval[1]:.1f})"
    sofar = "" if one.state == FINISHED else " so far"
    return f"{_title(one.headline)} {100 * one.value:.1f} %{ends} on {one.split}{sofar}"


def _title(headline: str | None) -> str:
    return HEADLINES.get(headline or "", (headline or "").replace("_", " "))


def _further(one: RunEntry) -> Iterator[str]:
    if one.differences:
        yield ", ".join(f"{name} {_shown(value)}" for name, value in one.differences.items())
    if one.reason:
        yield one.reason


def _shown(value: Any) -> str:
    return "none" if value is None else str(value)


def save_curves(entries: Sequence[RunEntry], folder: Path, file: Path) -> None:
    """Plots the training loss, the validation loss and the headline metric of several runs against the epoch.

    Args:
        entries: Runs, of which those without an epoch are left out.
        folder: Folder that they were found below, which their names leave out.
        file: Path of the picture to write: .png, .svg or .pdf.

    Raises:
        ValueError: No run has a curve, or the picture has another format.
    """
    if file.suffix.lower() not in FORMATS:
        raise ValueError(f"{argument('plot')} takes a file that ends in {', '.join(FORMATS)}, got {file.name}")
    drawn = [one for one in entries if one.history]
    if not drawn:
        raise ValueError(f"{argument('plot')} has nothing to draw: no run below {folder} has finished an epoch")
    figure = new_figure(13, 4.2)
    panels = figure.subplots(1, 3)
    headlines = list(dict.fromkeys(one.headline for one in drawn))
    names = drawable([_name(one, folder) for one in drawn], longest=40)
    for number, (one, name) in enumerate(zip(drawn, names, strict=True)):
        label = name if len(headlines) == 1 else f"{name}, {_title(one.headline)}"
        style = {"color": _COLORS[number % len(_COLORS)], "linestyle": _DASHES[number // len(_COLORS) % len(_DASHES)]}
        keys = ("train_loss", "validation_loss", f"validation_{one.headline}")
        for axes, key, factor in zip(panels, keys, (1, 1, 100), strict=True):
            points = [(entry["epoch"], factor * entry[key]) for entry in one.history if key in entry]
            marker = "o" if len(points) <= 30 else ""
            axes.plot(
                [epoch for epoch, _ in points], [value for _, value in points], label=label, marker=marker,
                markersize=3, **style,
            )  # fmt: skip
    quality = f"{_title(headlines[0])} (%)" if len(headlines) == 1 else "headline metric (%)"
    for axes, name in zip(panels, ("training loss (nats)", "validation loss (nats)", quality), strict=True):
        axes.set(xlabel="epoch", ylabel=name)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
        axes.spines[["top", "right"]].set_visible(False)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(3, len(labels)), frameon=False, fontsize=9)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file)


__all__ = ["FORMATS", "runs_text", "save_curves"]
