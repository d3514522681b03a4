"""Tables and picture of the results of `benchmarks/run.py`, which docs/speed.md shows.

python benchmarks/suite/drawing.py benchmarks/results/benchmark.json     # the table, the picture, and docs/speed.md
"""

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
BEGIN, END = "<!-- drawn from benchmarks/results/benchmark.json -->", "<!-- end of what is drawn -->"
STARTS = ("help", "import")  # processes that the measured one starts, so that its memory is not theirs
LINE = {"vithub": "#c2410c", "other": "#64748b"}  # readable on white and on black


def table(result: dict[str, Any]) -> str:
    """Markdown: a row per case and contender."""
    lines = [
        f"{result['date']}, {result['machine']['processor']}, {result['machine']['cores']} cores, torch "
        f"{result['versions']['torch']}, {result['precision']}, threads: {result['threads']}, size {result['size']}; "
        "medians, ratios by pair:",
        "",
        "| case | contender | seconds a step | images a second | ours is | peak memory |",
        "|---|---|---|---|---|---|",
    ]
    for name, case in result["cases"].items():
        for library, found in case.get("contenders", {}).items():
            rate = f"{case['images'] / found['seconds']:.1f}" if case["images"] else ""
            ratio = f"{case['ours_to'][library]:.2f} x" if library in case["ours_to"] else ""
            memory = "" if name in STARTS else f"{found['peak_mb']:.0f} MB"
            lines.append(f"| {name} | {library} | {found['seconds']:.3g} | {rate} | {ratio} | {memory} |")
    if activations := result["cases"].get("activations"):
        lines += ["", "| activations kept | MB | with gradient checkpointing | saved |", "|---|---|---|---|"]
        for library in ("vithub", "transformers"):
            found = activations[library]
            less, part = found["checkpointed_mb"], found["saved_part"]
            lines.append(f"| {library} | {found['mb']:.1f} | {less:.1f} | {part:.0%} |")
    return "\n".join(lines) + "\n"


def picture(result: dict[str, Any], file: Path) -> None:
    """Bars of our speed against each contender's, on a ground that suits light and dark pages."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    rows = [
        (f"{name} / {library}", ratio)
        for name, case in result["cases"].items()
        for library, ratio in case.get("ours_to", {}).items()
    ]
    figure, axes = plt.subplots(figsize=(7, 0.6 + 0.28 * len(rows)), layout="constrained")
    figure.patch.set_alpha(0)
    axes.patch.set_alpha(0)
    names, ratios = [name for name, _ in rows], [ratio for _, ratio in rows]
    colours = [LINE["vithub"] if ratio >= 1 else LINE["other"] for ratio in ratios]
    axes.barh(names, ratios, color=colours)
    axes.axvline(1, color=LINE["other"], linewidth=1)
    axes.set_xscale("log")
    axes.invert_yaxis()
    axes.set_xlabel("speed of vithub / speed of the other (log)", color=LINE["other"])
    axes.tick_params(colors=LINE["other"], which="both")
    for side in axes.spines.values():
        side.set_color(LINE["other"])
    figure.savefig(file, dpi=120)
    plt.close(figure)


def restored(document: str, result: dict[str, Any]) -> str:
    """The document with what lies between the two marks drawn anew."""
    before, _, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"the document has no line {BEGIN} followed by {END}")
    return f"{before}{BEGIN}\n\n{table(result)}\n{END}{after}"


def main() -> None:
    """Writes the table and the picture beside the results, and the document."""
    file = Path(sys.argv[1])
    result = json.loads(file.read_text(encoding="utf-8"))
    file.with_suffix(".md").write_text(table(result), encoding="utf-8")
    picture(result, file.with_suffix(".png"))
    document = ROOT / "docs/speed.md"
    if file.resolve() == ROOT / "benchmarks/results/benchmark.json":
        document.write_text(restored(document.read_text(encoding="utf-8"), result), encoding="utf-8")


if __name__ == "__main__":
    main()
