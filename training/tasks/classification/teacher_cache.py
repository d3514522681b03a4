"""A teacher's answers, asked once for every training image and kept on disk."""

from collections.abc import Callable
from pathlib import Path

import safetensors.torch
import torch
from torch.utils.data import DataLoader

from ....data.labelled.dataset import LabelledImages, collate
from ....data.whole_files import whole_file
from ...recipe.recipe import Recipe, RecipeError
from ...runtime.loading_processes import outlive_requests
from ...runtime.tensor_files import save_tensors
from .teachers import Teacher

CACHE = "teacher_logits.safetensors"


def check_cacheable(recipe: Recipe) -> None:
    """Refuses a cache where the same image looks different in another epoch.

    Raises:
        RecipeError: The fields of the augmentation that vary images are named.
    """
    if varying := recipe.augmentation.varying_fields():
        raise RecipeError(
            f"distillation.cache: the teacher would see other pixels in each epoch because of "
            f"{', '.join(f'augmentation.{name}' for name in varying)}"
        )


def cached_logits(
    teacher: Teacher, images: LabelledImages, folder: Path, device: torch.device, batch_size: int, workers: int
) -> torch.Tensor:
    """(N, L), fp32: the teacher's logits for each training image, from the folder, or computed and put there.

    Args:
        teacher: On the device.
        images: The training split with its (unvarying) training transform.
        folder: Of the run's checkpoints.
        device: Where to compute.
        batch_size: Images at once.
        workers: Loading processes.
    """
    file = folder / CACHE
    if file.is_file():
        table = safetensors.torch.load_file(file)["logits"]
        if len(table) == len(images):
            return table
    loader = DataLoader(
        images, batch_size=batch_size, num_workers=workers, collate_fn=collate, worker_init_fn=outlive_requests
    )
    table = torch.cat([teacher.logits(batch["pixel_values"].to(device)).cpu() for batch in loader])
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(file) as staging:
        save_tensors({"logits": table}, staging)
    return table


class TeacherAnswers:
    """The logits of a teacher for training images, computed in each step or once for all.

    Args:
        teacher: The teacher.
        cache: Whether it is asked once for every training image.
    """

    def __init__(self, teacher: Teacher, cache: bool) -> None:
        self.teacher, self.cache = teacher, cache
        self.table: torch.Tensor | None = None

    def prepare(
        self, images: Callable[[], LabelledImages], device: torch.device, folder: Path, batch_size: int, workers: int
    ) -> None:
        """Moves the teacher to a device, and fills the cache where there is one; arguments as `cached_logits`."""
        self.teacher.to(device)
        if self.cache and self.table is None:
            self.table = cached_logits(self.teacher, images(), folder, device, batch_size, workers)

    def logits(self, pixel_values: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """(B, L), fp32, on the device of the pixels.

        Args:
            pixel_values: (B, C, height, width), as the student sees them.
            index: (B,) rows of the training images.
        """
        if self.table is not None:
            return self.table[index.cpu()].to(pixel_values.device)
        return self.teacher.logits(pixel_values)


__all__ = ["CACHE", "TeacherAnswers", "cached_logits", "check_cacheable"]
