"""Cache of a teacher's logits: computed once for every training image and kept on disk."""

from collections.abc import Callable, Sequence
from pathlib import Path

import safetensors.torch
import torch

from ....data.labelled.dataset import LabelledImages, collate
from ....data.whole_files import whole_file
from ...recipe.recipe import Recipe, RecipeError
from ...runtime.batch_loading import BatchLoader
from ...runtime.tensor_files import save_tensors
from .teachers import Teacher

CACHE = "teacher_logits.safetensors"


def check_cacheable(recipe: Recipe) -> None:
    """Rejects a cache if the same image looks different in another epoch.

    Raises:
        RecipeError: The augmentation varies images; the message names its fields.
    """
    if varying := recipe.augmentation.varying_fields():
        raise RecipeError(
            f"distillation.cache: the teacher would see other pixels in each epoch because of "
            f"{', '.join(f'augmentation.{name}' for name in varying)}"
        )


def cached_logits(
    teacher: Teacher, images: LabelledImages, folder: Path, device: torch.device, batch_size: int, workers: int
) -> torch.Tensor:
    """Loads the teacher's logits for each training image, float32 (N, L), or computes and stores them.

    Args:
        teacher: Teacher, on the device.
        images: Training split with its training transform, which must not vary images.
        folder: Folder of the run's checkpoints.
        device: Device to compute on.
        batch_size: Images per batch.
        workers: Number of loading processes.
    """
    file = folder / CACHE
    if file.is_file():
        table = safetensors.torch.load_file(file)["logits"]
        if len(table) == len(images):
            return table
    rows = range(len(images))
    batches = [rows[first : first + batch_size] for first in range(0, len(rows), batch_size)]
    loader = BatchLoader(images, batches, collate, workers, device)
    table = torch.cat([teacher.logits(batch["pixel_values"].to(device)).cpu() for batch in loader])
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(file) as staging:
        save_tensors({"logits": table}, staging)
    return table


class TeacherAnswers:
    """Logits of a teacher for training images, computed in each step or once in advance.

    Args:
        teacher: Teacher that computes the logits.
        cache: Whether to compute the logits once for every training image.
    """

    def __init__(self, teacher: Teacher, cache: bool) -> None:
        self.teacher, self.cache = teacher, cache
        self.table: torch.Tensor | None = None

    def prepare(
        self, images: Callable[[], LabelledImages], device: torch.device, folder: Path, batch_size: int, workers: int
    ) -> None:
        """Moves the teacher to a device, and fills the cache if it is used; see `cached_logits` for the arguments."""
        self.teacher.to(device)
        if self.cache and self.table is None:
            self.table = cached_logits(self.teacher, images(), folder, device, batch_size, workers)

    def logits(self, pixel_values: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
        """Returns the teacher's logits, float32 (B, L), on the device of the pixels.

        Args:
            pixel_values: Student's input pixels, (B, C, height, width).
            rows: Row of each image in the training split.
        """
        if self.table is not None:  # on the CPU, as it may be large
            chosen = self.table.index_select(0, torch.tensor(rows))
            return chosen.to(pixel_values.device, non_blocking=True)
        return self.teacher.logits(pixel_values)


__all__ = ["CACHE", "TeacherAnswers", "cached_logits", "check_cacheable"]
