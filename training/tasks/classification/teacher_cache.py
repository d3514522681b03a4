"""A teacher's answers, asked once for every training image and kept on disk."""

from pathlib import Path

import safetensors.torch
import torch
from torch.utils.data import DataLoader

from ....data.labelled.dataset import LabelledImages, collate
from ...loop.checkpoints import save_tensors
from ...recipe.recipe import Recipe, RecipeError
from ...runtime.loading_processes import outlive_requests
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
    staging = folder / f".{CACHE}"
    save_tensors({"logits": table}, staging)
    staging.replace(file)
    return table


__all__ = ["CACHE", "cached_logits", "check_cacheable"]
