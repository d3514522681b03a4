"""Classification of single images, as `vithub predict` does with a classifier."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image
from torch import nn

from ....data.images import BadImageError
from ....hub.inference_loading import refuse_nonfinite_scores, run_model
from ....hub.ready_model import Backend
from ..predictions import PreparedImages, bad_prediction
from .loading import load_classifier

Opened = tuple[str, Image.Image | torch.Tensor | BadImageError]


@dataclass(frozen=True)
class Preparation:
    """Preprocessing of single images, which loading processes can do too.

    Args:
        processor: Image processor of the model.
    """

    processor: Any

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """Makes the pixels of an RGB image, (1, C, height, width)."""
        pixels: torch.Tensor = self.processor(image, return_tensors="pt")["pixel_values"]
        return pixels


class Classifier:
    """Saved classifier with its image processor, on the GPU if there is one.

    Args:
        path: Folder of the model.
        top: Number of labels per image.
        batch_size: Images per batch.
        backend: Exported form to run in place of the weights, such as "onnx", or a loaded model; None takes what is
            there.
    """

    def __init__(self, path: Path, top: int, batch_size: int, backend: Backend = None) -> None:
        self.path, self.top = path, top
        self.model, self.processor = load_classifier(path, backend=backend)
        self.batch_size = min(batch_size, getattr(self.model, "largest_batch", None) or batch_size)
        self.preparation = Preparation(self.processor)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        cast(nn.Module, self.model).to(self.device)

    def predictions(self, opened: PreparedImages) -> Iterator[dict[str, Any]]:
        """Yields predictions batch by batch; those before a bad image are yielded before its error is raised."""
        chunk: list[Opened] = []
        try:
            for entry in opened:
                chunk.append(entry)
                if len(chunk) == self.batch_size:
                    yield from self._answers(chunk)
                    chunk = []
        except BadImageError:
            yield from self._answers(chunk)
            raise
        yield from self._answers(chunk)

    def _answers(self, chunk: Sequence[Opened]) -> Iterator[dict[str, Any]]:
        good = [(name, image) for name, image in chunk if not isinstance(image, BadImageError)]
        scores = iter(self._scores([image for _, image in good], [name for name, _ in good]))
        labels = self.model.config.id2label
        for name, content in chunk:
            if isinstance(content, BadImageError):
                yield bad_prediction(name, content)
                continue
            best = next(scores).topk(min(self.top, len(labels)))
            pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
            yield {"image": name, "predictions": [{"label": labels[n], "score": score} for n, score in pairs]}

    def _scores(self, images: Sequence[Image.Image | torch.Tensor], names: Sequence[str]) -> Sequence[torch.Tensor]:
        """Computes the probabilities of each image, or of its pixels, (C,)."""
        if not images:
            return []
        pixels = torch.cat([one if isinstance(one, torch.Tensor) else self.preparation(one) for one in images])
        with torch.inference_mode():
            output = run_model(self.model, self.path, pixel_values=pixels.to(self.device, self.model.dtype))
        logits = output.logits.float().cpu()
        refuse_nonfinite_scores(logits, self.path, lambda row: names[row])
        several = self.model.config.problem_type == "multi_label_classification"
        return list(logits.sigmoid() if several else logits.softmax(dim=-1))


__all__ = ["Classifier", "Preparation"]
