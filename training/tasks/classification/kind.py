"""Classification as an entry of the task registry."""

from pathlib import Path
from typing import Any

from rich.table import Table

from ....data.argument_names import argument
from ....hub.ready_model import Backend
from ...recipe.model_names import is_from_scratch
from ...recipe.recipe import Recipe
from ..options import refuse_without_effect
from .building import build_classification
from .dataset_prediction import LabelPredictor
from .image_prediction import Classifier
from .mirroring import MirroredClassifier
from .saved_evaluation import SavedClassifier, classifier_table
from .task import ClassificationTask


class Classification:
    """Task of assigning one label, or any number of labels, to each image; implements `Task`."""

    name = "classification"
    takes_tiles = False

    def default_preset(self, model: str) -> str:
        """Returns the name of the preset for a model that is given without one."""
        return "from-scratch-small" if is_from_scratch(model) else "finetune"

    def build(self, recipe: Recipe, source: Any, processes: int, teacher: Any) -> ClassificationTask:
        """Reads the images and builds the classifier that a recipe names."""
        return build_classification(recipe, source, processes, teacher)

    def open_evaluation(
        self,
        path: Path,
        name: str,
        data: Any,
        split: str | None,
        label_column: str | None,
        skip_bad: bool,
        backend: Backend = None,
    ) -> SavedClassifier:
        """Opens a saved classifier and the labelled images to evaluate it on."""
        return SavedClassifier(path, name, data, split, label_column, skip_bad, backend)

    def skipping(self, own_data: bool) -> str:  # noqa: ARG002
        """Describes the effect of `on_bad_image="skip"` in an evaluation, for messages."""
        return "measures without such images and lists them"

    def result_table(self, result: dict[str, Any]) -> Table:
        """Formats the result of an evaluation for a terminal."""
        return classifier_table(result)

    def open_mirrored(self, path: Path, backend: Backend) -> MirroredClassifier:
        """Opens a saved classifier that answers from an image and its mirror image."""
        return MirroredClassifier(path, backend)

    def open_images(
        self,
        path: Path,
        *,
        top: int | None,
        batch_size: int | None,
        threshold: float | None,
        output: Any,
        backend: Backend = None,
    ) -> Classifier:
        """Opens a saved classifier for single images; `threshold` and `output` are rejected."""
        refuse_without_effect("a classifier", threshold=threshold)
        if output is not None:
            raise ValueError(
                f"{argument('output')} is for the boxes of a detector; a classifier's labels are only returned"
            )
        return Classifier(path, 5 if top is None else top, batch_size or 32, backend)

    def open_dataset(
        self,
        path: Path,
        data: Any,
        *,
        embeddings: bool,
        threshold: float | None,
        skip_bad: bool,
        backend: Backend = None,
    ) -> LabelPredictor:
        """Opens a saved classifier for a data set; the threshold of boxes is ignored."""
        refuse_without_effect("a classifier", threshold=threshold)
        return LabelPredictor(path, data, embeddings, skip_bad, backend)


__all__ = ["Classification"]
