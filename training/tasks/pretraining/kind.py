"""Pretraining as an entry of the task registry."""

from pathlib import Path
from typing import Any, NoReturn

from rich.table import Table

from ....hub.ready_model import Backend
from ...recipe.recipe import Recipe
from ..mirroring import refuse_mirrored
from .building import build_pretraining
from .task import PretrainingTask


class BackboneError(ValueError):
    """Error for a backbone where a model with a head is needed; the message names the next step."""


def _refuse(path: Path, what: str) -> NoReturn:
    raise BackboneError(
        f"{path} is a backbone without a head, which {what} nothing; train a head first: "
        f"vithub finetune --model {path} --data DATA"
    )


class Pretraining:
    """Task of training a backbone on images without labels; implements `Task`."""

    name = "pretraining"
    takes_tiles = False

    def default_preset(self, model: str) -> str:  # noqa: ARG002
        """Returns the preset for finetuning a backbone that is given without one."""
        return "finetune"

    def build(self, recipe: Recipe, source: Any, processes: int, teacher: Any) -> PretrainingTask:
        """Reads the images and builds the backbone that a recipe names."""
        return build_pretraining(recipe, source, processes, teacher)

    def open_evaluation(
        self,
        path: Path,
        name: str,  # noqa: ARG002
        data: Any,  # noqa: ARG002
        split: str | None,  # noqa: ARG002
        label_column: str | None,  # noqa: ARG002
        skip_bad: bool,  # noqa: ARG002
        backend: Backend = None,  # noqa: ARG002
    ) -> NoReturn:
        """Raises a `BackboneError`: without a head there is nothing to compare with labels."""
        _refuse(path, "decides")

    def skipping(self, own_data: bool) -> str:  # noqa: ARG002
        """Describes the effect of `on_bad_image="skip"` in an evaluation, for messages."""
        return "measures without such images"

    def result_table(self, result: dict[str, Any]) -> Table:
        """Formats the loss and the effective rank of a split for a terminal."""
        table = Table(title=f"{result['split']}: {result['images']} images")
        table.add_row(*(f"{name.replace('_', ' ')} {value:.4g}" for name, value in result["metrics"].items()))
        return table

    def open_mirrored(self, path: Path, backend: Backend) -> NoReturn:  # noqa: ARG002
        """Raises a `ValueError`: a backbone gives no answers that could be averaged."""
        refuse_mirrored(self.name)

    def open_images(
        self,
        path: Path,
        *,
        top: int | None,  # noqa: ARG002
        batch_size: int | None,  # noqa: ARG002
        threshold: float | None,  # noqa: ARG002
        output: Any,  # noqa: ARG002
        backend: Backend = None,  # noqa: ARG002
    ) -> NoReturn:
        """Raises a `BackboneError`: without a head there is nothing to predict."""
        _refuse(path, "predicts")

    def open_dataset(
        self,
        path: Path,
        data: Any,  # noqa: ARG002
        *,
        embeddings: bool,  # noqa: ARG002
        threshold: float | None,  # noqa: ARG002
        skip_bad: bool,  # noqa: ARG002
        backend: Backend = None,  # noqa: ARG002
    ) -> NoReturn:
        """Raises a `BackboneError`: without a head there is nothing to predict."""
        _refuse(path, "predicts")


__all__ = ["BackboneError", "Pretraining"]
