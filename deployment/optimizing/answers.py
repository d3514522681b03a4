"""Comparison of a candidate's answers with those of eager fp32."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

Answers = dict[str, torch.Tensor]  # by the number of the image and the name of the output, "0003.logits"

LARGEST_DIFFERENCE = 1e-2  # of a probability, or of a side of a box as part of the image
LEAST_AGREEMENT = 0.995  # share of the images, or boxes, with the same label
LEAST_SCORE = 0.05  # of a box, in either answer, that is compared


@dataclass(frozen=True)
class Agreement:
    """Agreement of two sets of answers.

    Args:
        difference: Largest difference of a probability, or of a box's side as part of the image.
        share: Share of the images, or boxes, with the same label, in [0, 1].
        images: Number of images that were compared.
        wrong: Why the answers are unusable, whatever their differences; None if they are not.
    """

    difference: float
    share: float
    images: int
    wrong: str | None = None

    @property
    def reason(self) -> str | None:
        """Reason why the candidate must not be used; None if it may."""
        if self.wrong is not None:
            return self.wrong
        if self.difference > LARGEST_DIFFERENCE:
            return f"its answers differ by up to {self.difference:.2g}, more than {LARGEST_DIFFERENCE:g}"
        if self.share < LEAST_AGREEMENT:
            return f"{self.share:.1%} of its labels are the same, fewer than {LEAST_AGREEMENT:.1%}"
        return None


def compare_answers(reference: Path, other: Path, multi_label: bool, num_labels: int) -> Agreement:
    """Compares two files of answers on the images that both hold.

    Args:
        reference: Answers of eager fp32: `logits` (L,) of each image, or (Q, L) with `pred_boxes` (Q, 4).
        other: Answers to compare.
        multi_label: Whether each logit is a decision of its own.
        num_labels: Number of classes; a detector with one logit more has its last for no object.
    """
    one, two = (safetensors.torch.load_file(file) for file in (reference, other))
    return compared_answers(one, two, multi_label, num_labels)


def named_answers(output: Any, first: int) -> Answers:
    """Answers in an output of a model for a batch of images, the first of which has the number `first`."""
    found = {name: output.get(name) for name in ("logits", "pred_boxes")}
    return {
        f"{first + row:04}.{name}": one.float().cpu().contiguous().clone()
        for name, value in found.items()
        if value is not None
        for row, one in enumerate(value)
    }


def compared_answers(
    one: Mapping[str, torch.Tensor], two: Mapping[str, torch.Tensor], multi_label: bool, num_labels: int
) -> Agreement:
    """Compares two sets of answers on the images that both hold; the other arguments are those of `compare_answers`."""
    images = sorted({name.split(".")[0] for name in one} & {name.split(".")[0] for name in two})
    if not images:
        return Agreement(1.0, 0.0, 0, "it gave no answers")
    differences, same = [], []
    for image in images:
        names = [f"{image}.{name}" for name in ("logits", "pred_boxes") if f"{image}.{name}" in one]
        for name in names:
            if name not in two or two[name].shape != one[name].shape:
                return Agreement(1.0, 0.0, len(images), "its answers have another shape")
            if not bool(torch.isfinite(two[name]).all()):
                return Agreement(1.0, 0.0, len(images), "its answers are infinite or not a number")
        logits = [answers[names[0]] for answers in (one, two)]
        if len(names) == 1:
            scores = [values.sigmoid() if multi_label else values.softmax(-1) for values in logits]
            labels = [values > 0.5 if multi_label else values.argmax() for values in scores]
            same.append(torch.equal(*labels))
        else:
            boxes = [answers[names[1]] for answers in (one, two)]
            no_object = logits[0].shape[-1] == num_labels + 1
            found = [values.softmax(-1)[:, :-1] if no_object else values.sigmoid() for values in logits]
            seen = torch.maximum(found[0].amax(-1), found[1].amax(-1)) >= LEAST_SCORE
            scores = [torch.cat([score[seen], box[seen]], dim=-1) for score, box in zip(found, boxes, strict=True)]
            same += (found[0][seen].argmax(-1) == found[1][seen].argmax(-1)).tolist()
        if scores[0].numel():
            differences.append(float((scores[0] - scores[1]).abs().max()))
    return Agreement(max(differences, default=0.0), sum(same) / len(same) if same else 1.0, len(images))


__all__ = [
    "LARGEST_DIFFERENCE", "LEAST_AGREEMENT", "Agreement", "Answers", "compare_answers", "compared_answers",
    "named_answers",
]  # fmt: skip
