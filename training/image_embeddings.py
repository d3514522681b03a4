"""Embeddings of images by a backbone or a classifier, for checks of a data set."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from ..configuration.model_task import DETECTION, model_task
from ..data.argument_names import argument
from ..data.labelled.dataset import EvaluationTransform
from ..hub.any_model import load_any_model
from ..hub.checkpoints import CheckpointError
from ..hub.inference_loading import run_model
from .recipe.recipe import RecipeError
from .runtime.processes import process_state
from .tasks.classification.feature_cache import LinearHeads


class ImageEmbeddings:
    """Model that turns images into vectors.

    A classifier with a linear head gives the input of its head. A backbone gives its class token beside the mean of its
    patch tokens, as DINOv2's linear evaluation takes them (Oquab et al. 2023, arXiv 2304.07193), or the mean of a
    convolutional map.

    Args:
        source: Folder or Hub id of the model.
        revision: Branch, tag or commit of a Hub id; None takes the default branch.

    Raises:
        CheckpointError: The model cannot be loaded, or is a detector.
    """

    def __init__(self, source: str | Path, revision: str | None = None) -> None:
        self.source = source
        self.model, processor = load_any_model(source, revision)
        if not isinstance(self.model, nn.Module) or model_task(self.model) == DETECTION:
            raise CheckpointError(
                f"{source} is no backbone or classifier whose embeddings could be taken; {argument('model')} takes "
                "one with its weights"
            )
        self.transform = EvaluationTransform(processor)
        self.model.to(process_state().device).eval()
        try:
            self.heads: LinearHeads | None = LinearHeads(self.model)
        except RecipeError:  # a backbone, or a head that is more than one linear layer
            self.heads = None

    def prepare(self, picture: Image.Image) -> torch.Tensor:
        """Pixels (C, height, width) of an image, as the model takes them; float32."""
        return self.transform(picture)

    @torch.inference_mode()
    def embed(self, pixels: list[torch.Tensor]) -> np.ndarray:
        """Embeddings, float32 (B, D), of images that `prepare` made."""
        batch = torch.stack(pixels).to(self.model.device, self.model.dtype)
        if self.heads is not None:
            features, _ = self.heads.features(self.model, batch)
            return np.asarray(features[:, 0].float().cpu().numpy())
        body = getattr(self.model, "base_model", self.model)
        hidden: Any = getattr(run_model(body, self.source, pixel_values=batch), "last_hidden_state", None)
        if hidden is None or hidden.ndim not in (3, 4):
            raise CheckpointError(f"{self.source}: {type(body).__name__} gives no embeddings of patches or of a map")
        vectors = hidden.mean(dim=(2, 3)) if hidden.ndim == 4 else torch.cat([hidden[:, 0], hidden[:, 1:].mean(1)], -1)
        return np.asarray(vectors.float().cpu().numpy())


__all__ = ["ImageEmbeddings"]
