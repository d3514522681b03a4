"""Training of a classifier's head before the rest learns (LP-FT, https://arxiv.org/abs/2202.10054)."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from ....data.labelled.dataset import LabelledImages
from ....data.labelled.mixing import targets_from_labels
from ....data.samplers import TrainingOrder
from ....data.whole_files import whole_file
from ...optim.schedules import Schedule
from ...recipe.sections import TrainingSettings
from ...runtime.precision import resolve_precision
from ...runtime.tensor_files import save_tensors
from .feature_cache import FeatureRows, LinearHeads, computed_features
from .losses import TrainingLoss

HEAD = "head_first.safetensors"


def train_head_first(
    model: nn.Module,
    images: LabelledImages,
    order: TrainingOrder,
    criterion: TrainingLoss,
    settings: TrainingSettings,
    lr: float,
    folder: Path,
    batch_size: int,
    workers: int,
) -> None:
    """Trains the head of a classifier on the features of its unchanged backbone, which are computed once per image.

    A new head is random, and its first gradients would change features that are good already. The trained head is
    kept in `head_first.safetensors` and loaded from there when a run is resumed.

    Args:
        model: Classifier on its device; its head is changed in place.
        images: Training split with the evaluation transform.
        order: Order of the training images by step.
        criterion: Training loss, of which the term of the labels is used.
        settings: Training settings, of which `head_first_epochs`, `label_smoothing`, `weight_decay` and `precision` are
            used.
        lr: Peak learning rate, which declines to 0 by a cosine; the optimizer is AdamW.
        folder: Folder of the run's checkpoints.
        batch_size: Images per batch while features are computed.
        workers: Number of loading processes.

    Raises:
        RecipeError: The head is not one linear layer.
    """
    file, heads = folder / HEAD, LinearHeads(model)
    if not file.is_file():
        with _autocast(settings, next(model.parameters()).device):
            rows = computed_features(model, heads, images, batch_size, workers)
        fit_heads(heads, rows, order, criterion, settings, lr)
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(file) as staging:
            save_tensors(heads.state_dict(), staging)
    heads.load_state_dict(safetensors.torch.load_file(file))


def _autocast(settings: TrainingSettings, device: torch.device) -> Any:
    """Returns a context in which products are computed in the precision of the training."""
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(resolve_precision(settings.precision, device))
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype)


def fit_heads(
    heads: LinearHeads,
    rows: FeatureRows,
    order: TrainingOrder,
    criterion: TrainingLoss,
    settings: TrainingSettings,
    lr: float,
) -> None:
    """Trains heads on features; rows that could not be decoded are left out. See `train_head_first`.

    Args:
        heads: Linear heads, changed in place.
        rows: Features and labels of the training images.
        order: Order of the rows by step.
        criterion: Training loss.
        settings: Training settings.
        lr: Peak learning rate.
    """
    steps, device = settings.head_first_epochs * order.steps_per_epoch, next(heads.parameters()).device
    schedule = Schedule("cosine", lr, steps)
    optimizer = torch.optim.AdamW(heads.parameters(), lr=lr, weight_decay=settings.weight_decay)
    for step in range(steps):
        chosen = [key.index for key in order.batch(step) if key.index not in rows.bad]
        if not chosen:
            continue
        outputs = heads(rows.features[chosen].to(device))
        labels = rows.labels[chosen].to(device)
        targets = targets_from_labels(labels, outputs.logits.shape[-1], settings.label_smoothing)
        for group in optimizer.param_groups:
            group["lr"] = schedule(step)
        torch.autograd.backward(criterion(outputs, targets))
        optimizer.step()
        optimizer.zero_grad()


__all__ = ["HEAD", "fit_heads", "train_head_first"]
