"""Wrong labels put into flowers5, and how many of them `vithub check-data` lists first.

    python benchmarks/experiments/planted_labels.py --data flowers5 --model tf_efficientnet_lite0 --seeds 0 1 2 3 4

All images of the three splits are embedded once. For each seed, 5 % of the labels are replaced by another class, drawn
at random; the labels are then ranked as the command ranks them, and every planted one is looked up in the ranking. What
was wrong in the data before counts as right, so that the figures are, if anything, too low.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from vithub.data.checking.content import PhotoInspection
from vithub.data.checking.inspection import inspect_photos
from vithub.data.checking.photos import read_photos
from vithub.training.image_embeddings import ImageEmbeddings
from vithub.training.label_check import find_doubtful_labels
from vithub.training.runtime.progress import TerminalReporter

SHARE, FIRST = 0.05, 0.10


def inspected(data: str, model: str, cache: Path | None) -> PhotoInspection:
    """Inspection of the data set with embeddings, which are kept in a file."""
    photos = read_photos(data)
    if cache is not None and cache.is_file():
        checked = inspect_photos(photos, decode=False)
        checked.embeddings = np.load(cache)
        return checked
    embeddings = ImageEmbeddings(model)
    with TerminalReporter() as reporter:
        checked = inspect_photos(photos, prepare=embeddings.prepare, embed=embeddings.embed, progress=reporter)
    if cache is not None:
        np.save(cache, checked.embeddings)
    return checked


def planted(checked: PhotoInspection, right: np.ndarray, seed: int) -> dict[str, Any]:
    """Result of one seed: the place of each planted error in the list, as a share of its length."""
    draws = np.random.default_rng(seed)
    labels, classes = right.copy(), len(checked.label_sets)
    wrong = draws.choice(len(labels), round(SHARE * len(labels)), replace=False)
    labels[wrong] = (right[wrong] + draws.integers(1, classes, len(wrong))) % classes
    checked.rows.label[:] = type(checked.rows.label)(checked.rows.label.typecode, labels.tolist())
    ranking = find_doubtful_labels(checked, seed=0)
    place = {one.number: number for number, one in enumerate(ranking)}
    planted_ones = [number for number in wrong.tolist() if number in place]
    places = np.array([place[number] / len(ranking) for number in planted_ones])
    doubtful = [one for one in ranking if one.doubtful]
    caught = sum(one.number in set(planted_ones) for one in doubtful)
    suggested = {one.number: one.suggested for one in ranking}
    names = [", ".join(labels) for labels in checked.label_sets]
    return {
        "seed": seed, "labels": len(ranking), "planted": len(planted_ones),
        "among_first_10_percent": float((places < FIRST).mean()),
        "among_first_5_percent": float((places < SHARE).mean()),
        "flagged": len(doubtful), "flagged_planted": caught,
        "precision_of_flagged": caught / max(1, len(doubtful)), "recall_of_flagged": caught / max(1, len(planted_ones)),
        "right_class_suggested": float(np.mean([suggested[n] == names[right[n]] for n in planted_ones])),
        "places": [round(float(share), 5) for share in np.sort(places)],
    }  # fmt: skip


def draw(results: list[dict[str, Any]], file: Path) -> None:
    """Curve of each seed: planted errors found against the share of the list that was looked at."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for one in results:
        shares = np.array(one["places"])
        axes.plot(100 * shares, 100 * np.arange(1, len(shares) + 1) / len(shares), color="#0072B2", alpha=0.6)
    axes.plot([0, 100], [0, 100], color="#888888", linestyle=":", label="in random order")
    axes.axvline(100 * FIRST, color="#D55E00", linewidth=1, label="first 10 %")
    axes.set(
        xlim=(0, 40), ylim=(0, 101), xlabel="labels looked at, most doubtful first (%)",
        ylabel="planted errors found (%)", title=f"{len(results)} times 5 % of the labels of flowers5 replaced",
    )  # fmt: skip
    axes.legend(loc="lower right", frameon=False)
    figure.savefig(file, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--cache", type=Path, help=".npy file of the embeddings, written and read again")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/planted_labels.json"))
    parser.add_argument("--figure", type=Path, default=Path("docs/pictures/planted_labels.png"))
    options = parser.parse_args()
    checked = inspected(options.data, options.model, options.cache)
    right = np.asarray(checked.rows.label, dtype=np.int64).copy()
    results = [planted(checked, right, seed) for seed in options.seeds]
    shares = [one["among_first_10_percent"] for one in results]
    summary = {
        "images": len(right), "model": Path(options.model).name, "share_planted": SHARE,
        "among_first_10_percent": {"mean": float(np.mean(shares)), "lowest": min(shares), "highest": max(shares)},
        "results": results,
    }  # fmt: skip
    options.output.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    draw(results, options.figure)
    for one in results:
        print({name: value for name, value in one.items() if name != "places"})


if __name__ == "__main__":
    main()
