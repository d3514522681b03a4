"""Features of images from each layer of a network; the layers are found automatically.

Shapes: B images, N tokens (P prefix tokens, then patches), D channels.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from ..capture.architecture import device_and_dtype, read_architecture
from ..capture.model_state import undisturbed
from .plots import paper_figure

# Name under which the input of the classifier is listed, after the last layer.
PENULTIMATE = "penultimate"
TOKENS = ("auto", "cls", "mean", "all")
Visitor = Callable[[str, torch.Tensor], None]


def pixel_batches(pixel_values: Any, batch_size: int = 32) -> Iterator[torch.Tensor]:
    """Yields batches (B, C, height, width) of one tensor of images, or of an iterable of batches.

    Args:
        pixel_values: Tensor (images, C, height, width), split into nearly equal batches; or an iterable of such
            batches, or of mappings with a batch under "pixel_values" (a `DataLoader`).
        batch_size: Most images per batch when a tensor is split; 32 by default.

    Raises:
        ValueError: There is no image, or a batch has another shape.
    """
    batches: Iterable[Any] = pixel_values
    if isinstance(pixel_values, torch.Tensor):
        if pixel_values.ndim != 4 or not len(pixel_values):
            raise ValueError(
                f"`pixel_values` must be (images, channels, height, width) with at least one image, got "
                f"{tuple(pixel_values.shape)}"
            )
        batches = pixel_values.tensor_split(-(-len(pixel_values) // batch_size))
    empty = True
    for batch in batches:
        pixels = batch if isinstance(batch, torch.Tensor) else batch["pixel_values"]
        if pixels.ndim != 4:
            raise ValueError(f"a batch must be (images, channels, height, width), got {tuple(pixels.shape)}")
        empty = False
        yield pixels
    if empty:
        raise ValueError("`pixel_values` yielded no batch")


def layer_names(model: nn.Module) -> list[str]:
    """Names of the layers of a network, first to last: blocks of a transformer, stages or blocks of a CNN.

    The layers are the members of the outermost lists (`nn.ModuleList` or `nn.Sequential`) whose members have submodules
    themselves.

    Raises:
        ValueError: The network has no such list.
    """
    if not (names := list(_listed(model, ""))):
        raise ValueError(f"{type(model).__name__} holds no list of layers; name the modules with `layers`")
    return names


def _listed(module: nn.Module, prefix: str) -> Iterator[str]:
    for name, child in module.named_children():
        members = [f"{prefix}{name}.{key}" for key, part in child.named_children() if any(part.children())]
        if isinstance(child, nn.ModuleList | nn.Sequential) and len(members) > 1:
            yield from members
        else:
            yield from _listed(child, f"{prefix}{name}.")


def channels_come_last(model: nn.Module) -> bool:
    """Whether layers output (B, height, width, D), as Swin of timm and torchvision does, not (B, D, height, width).

    timm's networks state the format; torchvision's have a module that permutes the axes before pooling.
    """
    return any(
        str(getattr(module, "output_fmt", "")).endswith("NHWC") or getattr(module, "dims", None) == [0, 3, 1, 2]
        for module in model.modules()
    )


def visit_layers(
    model: nn.Module, pixel_values: torch.Tensor, visit: Visitor, layers: Sequence[str] | None = None
) -> None:
    """Runs a model and passes the output of each layer to `visit` at once, so that only one needs to be held.

    Args:
        model: Any network; its training mode is restored afterwards.
        pixel_values: Normalised images (B, C, height, width).
        visit: Function called with a layer's name and output, (B, N, D) or (B, D, height, width); finally, if there is
            a classifier and `layers` is None, with "penultimate" and the classifier's input (B, D).
        layers: Names of modules; None uses `layer_names`.

    Raises:
        ValueError: The model has no module of that name, or a layer's output is not a tensor.
    """
    modules = dict(model.named_modules())
    names = layer_names(model) if layers is None else list(layers)
    if unknown := [name for name in names if name not in modules]:
        raise ValueError(f"{type(model).__name__} has no layer {unknown[0]!r}; its layers are {layer_names(model)}")
    given: dict[str, torch.Tensor] = {}

    def shows(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            tensor = output[0] if isinstance(output, tuple | list) else output
            if not isinstance(tensor, torch.Tensor):
                raise ValueError(f"layer {name!r} returns a {type(tensor).__name__}, no tensor")
            visit(name, tensor.detach())

        return hook

    def keeps(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, arguments: tuple[Any, ...]) -> None:
            if arguments and isinstance(arguments[0], torch.Tensor) and arguments[0].ndim == 2:
                given.clear()
                given[name] = arguments[0].detach()

        return hook

    device, dtype = device_and_dtype(model)
    with ExitStack() as hooks, undisturbed(model), torch.no_grad():
        for name in names:
            hooks.callback(modules[name].register_forward_hook(shows(name)).remove)
        for name, module in modules.items():
            if isinstance(module, nn.Linear) and "distillation" not in name and layers is None:
                hooks.callback(module.register_forward_pre_hook(keeps(name)).remove)
        model(pixel_values.to(device, dtype))
        for features in given.values():
            visit(PENULTIMATE, features)


class TokenReduction:
    """Reduction of a layer's output to one vector per image.

    Args:
        model: Model that the layers belong to.
        tokens: "cls" (CLS token), "mean" (mean over patches or positions), "all" (all tokens, concatenated) or "auto"
            (CLS if the model has it, otherwise the mean).

    Raises:
        ValueError: `tokens` has another value, or is "cls" and the model has no CLS token.
    """

    def __init__(self, model: nn.Module, tokens: str) -> None:
        if tokens not in TOKENS:
            raise ValueError(f"`tokens` must be one of {list(TOKENS)}, got {tokens!r}")
        self.architecture = read_architecture(model)
        self.positions = (1, 2) if channels_come_last(model) else (2, 3)
        has_cls = "cls" in self.architecture.prefix
        if tokens == "cls" and not has_cls:
            raise ValueError(f"{type(model).__name__} has no CLS token; use tokens='mean'")
        self.tokens = tokens if tokens != "auto" else "cls" if has_cls else "mean"

    def __call__(self, output: torch.Tensor) -> torch.Tensor:
        """Reduces (B, N, D), (B, D, height, width), Swin's (B, height, width, D) or (B, D) to (B, features), fp32."""
        output = output.float()
        if output.ndim == 2 or self.tokens == "all":
            return output.flatten(1)
        if output.ndim == 4:
            return output.mean(dim=self.positions)
        if self.tokens == "cls":
            return output[:, 0]
        return output[:, len(self.architecture.prefix) :].mean(dim=1)


@dataclass
class LayerFeatures:
    """Features of images: one vector per image and layer.

    Args:
        features: Features (images, D), fp32, by layer name, first to last; "penultimate" is the classifier's input.
        tokens: Tokens that the vectors come from: "cls", "mean" or "all".
    """

    features: dict[str, np.ndarray]
    tokens: str

    @property
    def names(self) -> list[str]:
        """Names of the layers, first to last."""
        return list(self.features)

    @property
    def last(self) -> np.ndarray:
        """Features (images, D) of the last entry, which is the classifier's input if there is a classifier."""
        return self.features[self.names[-1]]

    def to_dataframe(self, layer: str | None = None) -> pd.DataFrame:
        """Features of one layer (None: the last), one row per image, with columns `feature_0`, `feature_1`, ..."""
        values = self.last if layer is None else self.features[layer]
        return pd.DataFrame(values, columns=[f"feature_{number}" for number in range(values.shape[1])])

    def norms(self) -> pd.DataFrame:
        """Vector norms, one row per layer: `layer`, `norm` (mean over images) and `deviation` (standard deviation)."""
        lengths = {name: np.linalg.norm(values, axis=1) for name, values in self.features.items()}
        return pd.DataFrame(
            {
                "layer": self.names,
                "norm": [each.mean() for each in lengths.values()],
                "deviation": [each.std() for each in lengths.values()],
            }
        )

    def save(self, path: str | Path, *, theme: str = "light") -> None:
        """Plots the norm of the vectors over the layers, which shows how much each layer adds.

        Args:
            path: A .png, .pdf or .svg file to write; missing folders are made.
            theme: "light" or "dark".
        """
        table = self.norms()
        with paper_figure(path, theme=theme) as (figure, colors):
            axes = figure.subplots()
            place = np.arange(len(table))
            low, high = table.norm - table.deviation, table.norm + table.deviation
            axes.fill_between(place, low, high, color=colors.colors[0], alpha=0.25, linewidth=0, label="± deviation")
            axes.plot(place, table.norm, color=colors.colors[0], marker="o", markersize=3, label="mean of images")
            axes.set(xlabel="layer", ylabel=f"length of the vectors ({self.tokens})", ylim=(0, None))
            axes.set_xticks(place, short_names(self.names), rotation=90 if len(place) > 14 else 0)
            axes.legend(fontsize=7)


def layer_features(
    model: nn.Module,
    pixel_values: Any,
    *,
    tokens: str = "auto",
    layers: Sequence[str] | None = None,
    batch_size: int = 32,
) -> LayerFeatures:
    """Features of images from each layer, one vector per image.

    Args:
        model: Any vision transformer or CNN.
        pixel_values: Normalised images (images, C, height, width) or batches of them; see `pixel_batches`.
        tokens: "auto", "cls", "mean" or "all"; see `TokenReduction`.
        layers: Names of modules; None uses all layers and the classifier's input.
        batch_size: Most images per forward pass; 32 by default.
    """
    found: dict[str, list[np.ndarray]] = {}
    reduce = TokenReduction(model, tokens)

    def visit(name: str, output: torch.Tensor) -> None:
        found.setdefault(name, []).append(reduce(output).numpy(force=True))

    for batch in pixel_batches(pixel_values, batch_size):
        visit_layers(model, batch, visit, layers)
    return LayerFeatures({name: np.concatenate(parts) for name, parts in found.items()}, reduce.tokens)


def short_names(names: Sequence[str]) -> list[str]:
    """Tick labels of layers: numbers from 0, and "head" for the classifier's input."""
    return ["head" if name == PENULTIMATE else str(number) for number, name in enumerate(names)]


__all__ = [
    "PENULTIMATE",
    "LayerFeatures",
    "TokenReduction",
    "channels_come_last",
    "layer_features",
    "layer_names",
    "pixel_batches",
    "short_names",
    "visit_layers",
]
