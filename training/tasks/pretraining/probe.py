"""Labelled images by which the features of a backbone are judged while it learns without labels."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset as Table
from torch.utils.data import Dataset

from ....data.columns import IMAGE, LABEL
from ....data.labelled.dataset import LabelledImages
from ....data.labelled.tables import read_labelled_tables
from ...recipe.pretraining_settings import PretrainingSettings
from ...recipe.recipe import RecipeError

_TEMPERATURE = 0.07  # of the votes of neighbours, as in DINO's evaluation


@dataclass(frozen=True)
class Probe:
    """Labelled images for a nearest-neighbour classifier, each of which is classified by the others.

    Args:
        images: Table with the column "image" (encoded).
        labels: Class of each image, (P,) int64.
        classes: Number of classes.
        neighbours: Number of nearest neighbours that vote.
    """

    images: Table
    labels: torch.Tensor
    classes: int
    neighbours: int

    @classmethod
    def load(cls, settings: PretrainingSettings) -> "Probe | None":
        """Reads the recipe's labelled images, at most `probe_images` of one split; None if the recipe names none.

        The split is the validation split, without one the test split, and else the only one. Which images are taken
        does not depend on the seed of the run.

        Raises:
            RecipeError: The images have any number of labels each, or are too few.
            DataError: The data set cannot be used.
        """
        if settings.probe is None:
            return None
        read = read_labelled_tables(settings.probe)
        if read.labels.multi_label:
            raise RecipeError(f"pretraining.probe: must have one label for each image, got {settings.probe}")
        table = next(read.tables[split] for split in ("validation", "test", "train") if split in read.tables)
        if len(table) > settings.probe_images:
            rows = np.random.default_rng(0).permutation(len(table))[: settings.probe_images]
            table = table.select(np.sort(rows))
        if len(table) <= settings.probe_neighbours:
            raise RecipeError(
                f"pretraining.probe_neighbours: must be below the {len(table)} labelled images of "
                f"{settings.probe}, got {settings.probe_neighbours}"
            )
        labels = torch.tensor(list(table[LABEL]))
        return cls(table.select_columns([IMAGE]), labels, len(read.labels.names), settings.probe_neighbours)

    def accuracy(self, features: torch.Tensor, known: torch.Tensor) -> float:
        """Share of the images that their nearest neighbours classify rightly, in [0, 1].

        Neighbours are nearest by the cosine of their features, and vote by exp(cosine / 0.07).

        Args:
            features: Features of the images, (P, D) fp32.
            known: Whether the features of an image are known, (P,) bool; the others take no part.
        """
        own, labels = _normalized(features[known]), self.labels[known]
        if len(own) < 2:
            return 0.0
        similar = own @ own.T
        similar.fill_diagonal_(-torch.inf)  # an image is no neighbour of its own
        nearest, places = similar.topk(min(self.neighbours, len(own) - 1), dim=1)
        votes = torch.zeros(len(own), self.classes)
        votes.scatter_add_(1, labels[places], (nearest / _TEMPERATURE).exp())
        return float((votes.argmax(dim=1) == labels).double().mean())


def _normalized(features: torch.Tensor) -> torch.Tensor:
    """Features (P, D) scaled to length 1."""
    return torch.nn.functional.normalize(features.float(), dim=1)


class ProbedImages(Dataset[dict[str, Any]]):
    """Rows of a split, followed by the probe's; differs from `LabelledImages` by these further rows.

    Args:
        images: Split with the evaluation transform.
        more: Images of the probe with the same transform.
    """

    def __init__(self, images: LabelledImages, more: LabelledImages) -> None:
        self.images, self.more, self.name = images, more, images.name

    def __len__(self) -> int:
        return len(self.images) + len(self.more)

    def __getitem__(self, row: int) -> dict[str, Any]:
        own = len(self.images)
        if row < own:
            return self.images[row]
        sample = self.more[row - own]
        sample["index"] = torch.tensor(row)
        if "bad" in sample and sample["bad"] >= 0:
            sample["bad"] = torch.tensor(row)
        return sample

    def describe(self, row: int) -> str:
        """Names the file or row of an image, for messages."""
        own = len(self.images)
        return self.images.describe(row) if row < own else self.more.describe(row - own)

    def finish(self, batch: dict[str, Any], device: torch.device | str = "cpu") -> dict[str, Any]:
        """Batch with `pixel_values` as the model takes them, on a device; all else stays on the host."""
        return self.images.finish(batch, device)


__all__ = ["Probe", "ProbedImages"]
