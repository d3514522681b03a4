"""Classifier that answers from an image and its mirror image, which differ for it although they show the same."""

import math
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import logsigmoid
from transformers.modeling_outputs import ImageClassifierOutput

from ....hub.ready_model import Backend, ReadyModel
from .loading import load_classifier


class MirroredClassifier(ReadyModel):
    """Classifier whose probabilities are the means over an image and its mirror image; it takes twice the time.

    Args:
        path: Folder of the classifier.
        backend: Exported form to run in place of the weights, such as "onnx", or a loaded model; None takes what is
            there.
    """

    def __init__(self, path: Path, backend: Backend = None) -> None:
        model, processor = load_classifier(path, backend=backend)
        by = model.described if isinstance(model, ReadyModel) else "torch"
        super().__init__(
            _MirrorMean(model), model.config, processor, path, f"{by}, mirrored", dtype=model.dtype,
            batch_size=getattr(model, "batch_size", 1),
        )  # fmt: skip
        self.largest_batch = getattr(model, "largest_batch", None)


class _MirrorMean(nn.Module):
    """Classifier with logits of the mean probabilities of an image and its mirror image."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.multi_label = model.config.problem_type == "multi_label_classification"

    def forward(self, pixel_values: torch.Tensor) -> ImageClassifierOutput:
        logits, others = (
            self.model(pixel_values=view).logits.float() for view in (pixel_values, pixel_values.flip(-1))
        )
        if self.multi_label:
            present = torch.logaddexp(logsigmoid(logits), logsigmoid(others))
            absent = torch.logaddexp(logsigmoid(-logits), logsigmoid(-others))
            return ImageClassifierOutput(logits=present - absent)
        mean = torch.logaddexp(logits.log_softmax(-1), others.log_softmax(-1)) - math.log(2)
        return ImageClassifierOutput(logits=mean)


__all__ = ["MirroredClassifier"]
