"""Finished models on the card: explanations, predictions and evaluation against the CPU's; waits for the card."""

import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from check import FP32_TOLERANCE, Check, Record, exact_products, measured, not_available, photos, relative_difference
from check import verdict as judged
from phase_models import SMALL, TINY
from phase_training import job
from train_once import Heard, train

METHODS = ("attention", "rollout", "gradient_rollout", "relevance", "grad_cam", "integrated_gradients", "occlusion")
RELEVANCE_TOLERANCE = 1e-3  # of heat maps, which divide by small sums


def explanations_are_those_of_the_cpu(check: Check) -> Iterator[Record]:
    """Heat maps of each method, on the device and on the CPU."""
    import vithub

    exact_products()
    torch.manual_seed(0)
    shape = TINY if check.tiny else SMALL
    model = vithub.HubViTForImageClassification(vithub.HubViTConfig(**shape, num_labels=5)).eval()
    side = 32 if check.tiny else 224
    pixels = torch.randn(1, 3, side, side)
    for method in METHODS[:3] if check.tiny else METHODS:
        here = vithub.explain(model.to(check.device), pixels.to(check.device), method, target=1, steps=4)
        there = vithub.explain(model.to("cpu"), pixels, method, target=1, steps=4)
        difference = relative_difference(here.maps, there.maps)
        yield judged(difference <= RELEVANCE_TOLERANCE, method=method, differs=difference)


def predictions_are_those_of_the_cpu(check: Check) -> Iterator[Record]:
    """Scores of `predict` and metrics of `evaluate` on the device, against the pipeline of transformers on the CPU."""
    from transformers import pipeline

    import vithub

    folder = check.folder / "predicted"
    run = job(check, "predicted")
    train(run)
    data = photos(8)
    files = []
    for number, row in enumerate(data):
        files.append(check.folder / f"{number}.png")
        row["image"].save(files[-1])
    found = vithub.predict(folder, files, top=4)
    classifier = pipeline("image-classification", model=str(folder), device="cpu")
    worst = 0.0
    for row, file in zip(found, files, strict=True):
        wanted = {entry["label"]: entry["score"] for entry in classifier(str(file), top_k=4)}
        worst = max(worst, *(abs(entry["score"] - wanted[entry["label"]]) for entry in row["predictions"]))
    yield judged(worst <= 10 * FP32_TOLERANCE, scores_differ=worst, tolerance=10 * FP32_TOLERANCE)
    result = vithub.evaluate(folder, data, "train", workers=0)
    right = sum(row["predictions"][0]["label"] == data.features["label"].int2str(label)
                for row, label in zip(found, data["label"], strict=True)) / len(files)  # fmt: skip
    accuracy = result["metrics"]["accuracy"]
    yield judged(abs(accuracy - right) < 1e-6, accuracy=accuracy, of_predictions=right)


class _Watched(Heard):
    """Reporter that lets the first steps pass and then counts the warnings of the steps that follow."""

    def __init__(self, check: Check, skip: int) -> None:
        super().__init__()
        self.check, self.skip = check, skip
        self.caught: list[Any] = []

    def advance(self, amount: int = 1, **figures: float) -> None:
        """Begins to watch after the first steps."""
        super().advance(amount, **figures)
        if self.check.gpu and "loss" in figures and len(self.losses) == self.skip:
            torch.cuda.set_sync_debug_mode("warn")


def waits_for_the_card(check: Check) -> Iterator[Record]:
    """Where a training step waits for the card: file, line, and how often a step, for a classifier and a detector."""
    for kind in ("classifier", "detector"):
        wanted = job(check, f"{kind}-watched", kind)
        watched = _Watched(check, skip=1 if check.tiny else 5)
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                train(wanted, watched)
        finally:
            if check.gpu:
                torch.cuda.set_sync_debug_mode("default")
        steps = len(watched.losses) - watched.skip
        if not check.gpu:
            yield not_available(f"a CPU is not waited for; {steps} steps of the {kind} ran")
            continue
        places = Counter(
            f"{'/'.join(Path(found.filename).parts[-3:])}:{found.lineno}"
            for found in caught
            if "synchroniz" in str(found.message)
        )
        # The evaluation after the last step is in the counts: what is seen less often than once a step may be of it.
        often = {place: round(count / steps, 2) for place, count in places.most_common(25)}
        yield measured(kind=kind, steps=steps, waits_per_step=round(sum(places.values()) / steps, 2), places=often)


STEPS = (explanations_are_those_of_the_cpu, predictions_are_those_of_the_cpu, waits_for_the_card)
