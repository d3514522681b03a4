"""Training of the head alone on features of a frozen backbone, computed once per image and cached on disk."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import safetensors.torch
import torch
from torch import nn
from torch.utils.data import Dataset

from ....data.labelled.dataset import LabelledImages, collate
from ....data.samplers import SampleKey
from ....data.whole_files import whole_file
from ...optim.parameter_groups import is_head
from ...recipe.recipe import Recipe, RecipeError
from ...runtime.batch_loading import BatchLoader
from ...runtime.tensor_files import save_tensors


@dataclass
class HeadOutput:
    """Output of the heads: `logits` (B, L), and for a DeiT the logits of its two heads."""

    logits: torch.Tensor
    cls_logits: torch.Tensor | None = None
    distillation_logits: torch.Tensor | None = None


class LinearHeads(nn.Module):
    """Linear heads of a classifier, applied to features instead of pixels; the layers are shared with the classifier.

    Args:
        model: Classifier with one linear head, or a DeiT with two.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        layers = {
            name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear) and is_head(name)
        }
        names = sorted(layers, key=lambda name: "distillation" in name)
        if not 1 <= len(names) <= 2 or len({layers[name].in_features for name in names}) != 1:
            raise RecipeError(
                f"training.freeze, training.head_first_epochs: the features of {type(model).__name__} cannot be "
                f"cached, its head is not one linear layer (found {names or 'none'}); vary the images "
                "(augmentation.crop) to train on a frozen backbone without a cache"
            )
        self.layers = nn.ModuleList(layers[name] for name in names)

    def forward(self, pixel_values: torch.Tensor) -> HeadOutput:
        """Computes logits from features (B, heads, D)."""
        logits = [layer(pixel_values[:, number]) for number, layer in enumerate(self.layers)]
        if len(logits) == 1:
            return HeadOutput(logits[0])
        return HeadOutput((logits[0] + logits[1]) / 2, logits[0], logits[1])

    @torch.no_grad()
    def features(self, model: nn.Module, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the heads' inputs, float32 (B, heads, D), and the model's logits for pixels (B, C, height, width)."""
        seen: list[torch.Tensor] = []
        hooks = [layer.register_forward_pre_hook(lambda _, given: seen.append(given[0])) for layer in self.layers]
        try:
            logits = model(pixel_values=pixel_values).logits
        finally:
            for hook in hooks:
                hook.remove()
        features = torch.stack(seen, dim=1)
        if features.ndim != 3 or not torch.allclose(self(features).logits, logits, atol=1e-2, rtol=1e-2):
            raise RecipeError(
                f"training.freeze, training.head_first_epochs: {type(model).__name__} does more after its head; to "
                "train on a frozen backbone vary the images (augmentation.crop)"
            )
        return features.float(), logits


class FeatureRows(Dataset[dict[str, torch.Tensor]]):
    """Rows of cached features. Differs from `LabelledImages` by features (heads, D) instead of pixels.

    Args:
        images: Images that the features are of.
        features: Features of all rows, (N, heads, D).
        labels: Labels of all rows.
        bad: Rows that could not be decoded.
    """

    def __init__(
        self, images: LabelledImages, features: torch.Tensor, labels: torch.Tensor, bad: Sequence[int] = ()
    ) -> None:
        self.images, self.features, self.labels, self.name = images, features, labels, images.name
        self.bad = frozenset(bad)

    def __len__(self) -> int:
        return len(self.features)

    def describe(self, index: int) -> str:
        """Names the file or row of an image, for messages."""
        return self.images.describe(index)

    def __getitem__(self, key: int | SampleKey) -> dict[str, torch.Tensor]:
        index = key.index if isinstance(key, SampleKey) else int(key)
        row = {"pixel_values": self.features[index], "labels": self.labels[index], "index": torch.tensor(index)}
        if isinstance(key, SampleKey):
            row |= {"epoch": torch.tensor(key.epoch), "position": torch.tensor(key.position)}
        return row


def caches_features(recipe: Recipe) -> bool:
    """Whether a frozen backbone would get the same pixels in every epoch, so that its features can be cached."""
    skips = recipe.data.on_bad_image == "skip"
    static = recipe.training.freeze == "backbone" and not recipe.augmentation.varying_fields()
    return static and recipe.distillation.teacher is None and not skips and not recipe.data.streaming


def cached_features(
    model: nn.Module, heads: LinearHeads, images: LabelledImages, folder: Path, batch_size: int, workers: int
) -> FeatureRows:
    """Loads the features of a split from the folder, or computes and stores them there.

    Args:
        model: Whole classifier on its device; it is put into evaluation mode.
        heads: Linear heads of the classifier.
        images: Split with a transform without random draws.
        folder: Folder of the run's checkpoints.
        batch_size: Images per batch.
        workers: Number of loading processes.
    """
    file = folder / f"features_{images.name}.safetensors"
    if file.is_file():
        stored = safetensors.torch.load_file(file)
        if len(stored["features"]) == len(images):
            return FeatureRows(images, stored["features"], stored["labels"])
    rows = computed_features(model, heads, images, batch_size, workers)
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(file) as staging:
        save_tensors({"features": rows.features, "labels": rows.labels}, staging)
    return rows


def computed_features(
    model: nn.Module, heads: LinearHeads, images: LabelledImages, batch_size: int, workers: int
) -> FeatureRows:
    """Computes the features of a split; see `cached_features` for the arguments."""
    device, parts, labels, bad = next(model.parameters()).device, [], [], list[int]()
    model.eval()
    numbers = range(len(images))
    batches = [numbers[first : first + batch_size] for first in range(0, len(numbers), batch_size)]
    loader = BatchLoader(images, batches, collate, workers, device)
    for batch in loader:
        parts.append(heads.features(model, batch["pixel_values"].to(device))[0].cpu())
        labels.append(batch["labels"])
        bad += [row for row in batch["bad"].tolist() if row >= 0] if "bad" in batch else []
    return FeatureRows(images, torch.cat(parts), torch.cat(labels), bad)


@dataclass
class CachedFeatures:
    """Heads of a frozen backbone, with cached features instead of images.

    Args:
        heads: Linear heads to train.
        rows: Features by split name.
    """

    heads: LinearHeads
    rows: dict[str, FeatureRows]

    @classmethod
    def of(
        cls, model: nn.Module, splits: Sequence[LabelledImages], folder: Path, batch_size: int, workers: int
    ) -> Self:
        """Computes or loads the features of several splits; see `cached_features` for the arguments."""
        heads = LinearHeads(model)
        return cls(heads, {i.name: cached_features(model, heads, i, folder, batch_size, workers) for i in splits})


__all__ = ["CachedFeatures", "FeatureRows", "LinearHeads", "cached_features", "caches_features", "computed_features"]
