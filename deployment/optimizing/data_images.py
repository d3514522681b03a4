"""Images of a data set on which `optimize` compares answers."""

from pathlib import Path
from typing import Any

from PIL import Image

from ...configuration.model_task import DETECTION, model_task
from ...data.boxes.images import read_box_images
from ...data.images import BadImageError, decode_image
from ...data.labelled.tables import read_image_tables
from ...hub.checkpoints import read_config
from ...training.recipe.run_data import run_data
from .optimizing import MOST_COMPARED


def images_of_data(path: Path, data: Any, split: str | None) -> tuple[list[Image.Image], int]:
    """Decodes images evenly over a split of a data set.

    Args:
        path: Folder of the model.
        data: Data set in any form that `evaluate` takes; None takes the run's own.
        split: Name of the split; None, or a split that is made of another, takes "test" if it exists, else the last.

    Returns:
        Up to `MOST_COMPARED` images, and the number of images of the split.

    Raises:
        DataError: The data cannot be used.
    """
    settings = run_data(path) if data is None else None
    source = data if settings is None else settings.source
    if model_task(read_config(path)) == DETECTION:
        tables: dict[str, Any] = read_box_images(source).tables
    else:
        column = None if settings is None else settings.image_column
        tables, _ = read_image_tables(source, column, None if settings is None else settings.revision)
    name = split if split in tables else "test" if "test" in tables else list(tables)[-1]
    table, found = tables[name], []
    count = min(MOST_COMPARED, len(table))
    for number in range(count):
        row = number * len(table) // count
        try:
            found.append(decode_image(table[row]["image"], f"row {row}"))
        except BadImageError:
            continue
    return found, len(table)


__all__ = ["images_of_data"]
