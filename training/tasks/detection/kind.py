"""Object detection as an entry of the task registry."""

from pathlib import Path
from typing import Any, NoReturn

from rich.table import Table

from ....data.argument_names import argument
from ....hub.ready_model import Backend
from ...recipe.model_names import DETECTOR_FROM_SCRATCH
from ...recipe.recipe import Recipe
from ..mirroring import refuse_mirrored
from ..options import refuse_without_effect
from ..tiling import Tiling
from .building import build_detection
from .dataset_prediction import BoxPredictor
from .image_prediction import Detector
from .saved_evaluation import SavedDetector, detection_table
from .task import DetectionTask


class Detection:
    """Task of finding labelled boxes in images; implements `Task`."""

    name = "detection"
    takes_tiles = True

    def default_preset(self, model: str) -> str:
        """Returns the name of the preset for a model that is given without one: a new DETR, or any trained detector."""
        return "detr" if model == DETECTOR_FROM_SCRATCH else "detr-pretrained"

    def build(self, recipe: Recipe, source: Any, processes: int, teacher: Any) -> DetectionTask:  # noqa: ARG002
        """Reads the images with boxes and builds the detector that a recipe names."""
        return build_detection(recipe, source, processes)

    def open_evaluation(
        self,
        path: Path,
        name: str,
        data: Any,
        split: str | None,
        label_column: str | None,
        skip_bad: bool,
        backend: Backend = None,
        tiling: Tiling | None = None,
    ) -> SavedDetector:
        """Opens a saved detector and the images with boxes to evaluate it on."""
        del name
        return SavedDetector(path, data, split, label_column, skip_bad, backend, tiling)

    def skipping(self, own_data: bool) -> str:
        """Describes the effect of `on_bad_image="skip"` in an evaluation, for messages.

        Images missing from a run's own data remain an error, since other splits would be drawn from the rest.
        """
        skips = "measures without such images and lists them"
        return f"with {argument('data')} {skips}" if own_data else skips

    def result_table(self, result: dict[str, Any]) -> Table:
        """Formats the result of an evaluation for a terminal."""
        return detection_table(result)

    def open_mirrored(self, path: Path, backend: Backend) -> NoReturn:  # noqa: ARG002
        """Raises a `ValueError`: a detector does not average over mirror images."""
        refuse_mirrored(self.name)

    def open_images(
        self,
        path: Path,
        *,
        top: int | None,
        batch_size: int | None,
        threshold: float | None,
        output: Any,
        backend: Backend = None,
        tiling: Tiling | None = None,
    ) -> Detector:
        """Opens a saved detector for single images; `top` and `batch_size` are rejected."""
        refuse_without_effect("a detector", top=top, batch_size=batch_size)
        return Detector(path, 0.5 if threshold is None else threshold, output, backend, tiling)

    def open_dataset(
        self,
        path: Path,
        data: Any,
        *,
        embeddings: bool,
        threshold: float | None,
        skip_bad: bool,
        backend: Backend = None,
        tiling: Tiling | None = None,
    ) -> BoxPredictor:
        """Opens a saved detector for a data set; `embeddings` is rejected."""
        if embeddings:
            raise ValueError(f"{argument('embeddings')} are of classifiers; {path} is a detector")
        return BoxPredictor(path, data, 0.5 if threshold is None else threshold, skip_bad, backend, tiling)


__all__ = ["Detection"]
