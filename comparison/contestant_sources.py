"""Loaders that turn a source named by a person into a contestant.

| source | meaning |
|---|---|
| a folder or Hub id | a run of this package, a classifier of transformers, or one of timm in transformers' wrapper |
| `timm:NAME`, `torchvision:NAME` | with the weights that the library publishes; needs a network |
| `timm:NAME@FILE`, `torchvision:NAME@FILE` | with the weights of a local .safetensors file |
| `timm:NAME@random`, `torchvision:NAME@random` | with random weights, seed 0: for cost, and as a control |
"""

import copy
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

import timm
import torch
import torchvision
from PIL import Image
from torch import nn
from transformers import AutoModelForImageClassification, PreTrainedModel

from ..configuration.model_task import CLASSIFICATION, DETECTION
from ..data.image_processing import PixelFormat, build_image_processor, pixel_format
from ..data.labelled.dataset import EvaluationTransform
from ..data.seeding import seeded
from ..hub.checkpoints import CheckpointError, locate, read_weight_file
from ..training.tasks.classification.loading import load_classifier
from ..training.tasks.registry import task_of
from .contestants import Contestant, family_of

LIBRARIES = ("timm", "torchvision")
RANDOM = "random"


def load_contestant(source: str | Path, name: str | None = None) -> Contestant:
    """Loads a contestant from a source; the table above lists the forms of sources.

    Args:
        source: Source in one of the forms above.
        name: Name of the contestant in measurements; None takes the end of the source.

    Raises:
        CheckpointError: There is no such classifier, or its weights do not fit.
    """
    library, separator, rest = str(source).partition(":")
    if separator and library in LIBRARIES:
        architecture, _, weights = rest.partition("@")
        load = _from_timm if library == "timm" else _from_torchvision
        return load(str(source), name or architecture, architecture, weights or None)
    return _from_folder(str(source), name or Path(source).name)


def named_source(source: str | Path) -> tuple[str | None, str]:
    """Splits NAME=SOURCE into both; the name is None where none is given."""
    name, separator, rest = str(source).partition("=")
    return (name, rest) if separator else (None, name)


def compared_task(sources: Sequence[str | Path]) -> str:
    """Returns the name of the task that all models have.

    Raises:
        CheckpointError: There is no such model, or its configuration is damaged.
        ValueError: There are models of several tasks, or of one that is not compared.
    """
    tasks = {str(source): _task_name(named_source(source)[1]) for source in sources}
    if not tasks:
        return CLASSIFICATION
    if len(kinds := dict.fromkeys(tasks.values())) > 1:
        listed = ", ".join(f"{source} for {task}" for source, task in tasks.items())
        raise ValueError(f"models of one task can be compared, and these are for several: {listed}")
    (task,) = kinds
    if task not in (CLASSIFICATION, DETECTION):
        raise ValueError(f"models for {CLASSIFICATION} or {DETECTION} can be compared, got {task}")
    return task


def _task_name(source: str) -> str:
    library, separator, _ = source.partition(":")
    if separator and library in LIBRARIES:
        return CLASSIFICATION  # `load_contestant` builds classifiers of them only
    return task_of(locate(source)).name


def load_contestants(sources: Sequence[str | Path], load: Callable[..., Any] | None = None) -> list[Any]:
    """Loads contestants under distinct names: NAME=SOURCE sets the name; otherwise a number is added to duplicates.

    Args:
        sources: Sources, each with or without a name.
        load: Function from a source and a name or None to a contestant with `name`; None takes `load_contestant`.

    Raises:
        ValueError: There are no sources, or two were given the same name.
    """
    if not sources:
        raise ValueError("there is nothing to compare: name one model or more, such as runs/photos or timm:resnet50")
    found: list[Any] = []
    for text in sources:
        name, source = named_source(text)
        contestant = (load or load_contestant)(source, name)
        taken = {other.name for other in found}
        if contestant.name in taken:
            if name is not None:
                raise ValueError(f"two models are named {name!r}: give each a name of its own, as NAME=MODEL")
            free = (f"{contestant.name}-{number}" for number in range(2, len(sources) + 2))
            contestant = copy.copy(contestant)
            object.__setattr__(contestant, "name", next(other for other in free if other not in taken))
        found.append(contestant)
    return found


def _from_folder(source: str, name: str) -> Contestant:
    model, processor = load_classifier(source)
    model.float()
    names = model.config.id2label
    if getattr(model, "timm_model", None) is not None:
        library, architecture = "timm", model.config.architecture
        build = _timm_builder(architecture, len(names))
    else:
        library = "vithub" if type(model).__module__.startswith("vithub.") else "transformers"
        build = _transformers_builder(model)
    return _contestant(
        name, source, library, model, pixel_format(processor), EvaluationTransform(processor),
        tuple(str(names[number]) for number in range(len(names))), build,
    )  # fmt: skip


def _near(name: str, known: Sequence[str]) -> str:
    """Suggests the known names that a misspelt one may mean; empty where there is none."""
    near = get_close_matches(name, known)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _from_timm(source: str, name: str, architecture: str, weights: str | None) -> Contestant:
    if not timm.is_model(architecture):
        raise CheckpointError(
            f"{source}: timm has no architecture {architecture!r}{_near(architecture, timm.list_models())}"
        )
    state = _state(weights)
    classes = {"num_classes": _rows(state)} if state else {}
    with seeded(0):
        model = timm.create_model(architecture, pretrained=weights is None, **classes)
    _load(model, state, source)
    config = timm.data.resolve_data_config(model=model)
    transform = timm.data.create_transform(**config)
    pixels = PixelFormat(tuple(config["input_size"][1:]), tuple(config["mean"]), tuple(config["std"]))
    labels = _imagenet_names(model.num_classes)
    build = _timm_builder(architecture, model.num_classes)
    return _contestant(name, source, "timm", model, pixels, _called(transform), labels, build)


def _from_torchvision(source: str, name: str, architecture: str, weights: str | None) -> Contestant:
    if architecture not in (known := torchvision.models.list_models(module=torchvision.models)):
        raise CheckpointError(f"{source}: torchvision has no classifier {architecture!r}{_near(architecture, known)}")
    published = torchvision.models.get_model_weights(architecture).DEFAULT
    state = _state(weights)
    classes = {"num_classes": _rows(state)} if state else {}
    with seeded(0):
        model = torchvision.models.get_model(architecture, weights=published if weights is None else None, **classes)
    _load(model, state, source)
    preset = published.transforms()
    side, shorter = preset.crop_size[0], preset.resize_size[0]
    processor = build_image_processor(
        (side, side), crop_ratio=min(side / shorter, 1.0), mean=preset.mean, std=preset.std,
        interpolation=preset.interpolation.value,
    )  # fmt: skip
    count = next(iter(classes.values()), len(published.meta["categories"]))
    names = published.meta["categories"]
    labels = tuple(names) if count == len(names) else _numbers(count)
    sized = architecture.startswith("vit_")

    def build(image_hw: tuple[int, int]) -> nn.Module:
        size = {"image_size": image_hw[0]} if sized else {}
        return cast(nn.Module, torchvision.models.get_model(architecture, num_classes=count, **size).train())

    return _contestant(
        name, source, "torchvision", model, pixel_format(processor), EvaluationTransform(processor), labels, build
    )


def _contestant(
    name: str, source: str, library: str, model: nn.Module, pixels: PixelFormat,
    transform: Callable[[Image.Image], torch.Tensor], labels: tuple[str, ...],
    build: Callable[[tuple[int, int]], nn.Module],
) -> Contestant:  # fmt: skip
    model.eval()
    family = family_of(model, torch.zeros(1, 3, *pixels.image_hw))
    return Contestant(name, source, library, family, model, pixels, transform, labels, build, _multiple(model, family))


def _multiple(model: nn.Module, family: str) -> tuple[int, int]:
    """Returns the patch's (height, width) of a ViT if the library states it; (1, 1) for a CNN, which takes any size."""
    if family == "CNN":
        return 1, 1
    if (timms := getattr(model, "timm_model", model)) is not None and hasattr(timms, "patch_embed"):
        patch = getattr(timms.patch_embed, "patch_size", 1)
    else:
        patch = getattr(getattr(model, "config", model), "patch_size", 1)
    if isinstance(patch, int):
        return patch, patch
    return (int(patch[0]), int(patch[1])) if isinstance(patch, tuple | list) and len(patch) == 2 else (1, 1)


def _transformers_builder(model: PreTrainedModel) -> Callable[[tuple[int, int]], nn.Module]:
    config: Any = copy.deepcopy(model.config)
    config.dtype = None

    def build(image_hw: tuple[int, int]) -> nn.Module:
        resized = copy.deepcopy(config)
        if hasattr(resized, "image_size"):
            square = image_hw[0] == image_hw[1] and isinstance(resized.image_size, int)
            resized.image_size = image_hw[0] if square else image_hw
        return cast(nn.Module, AutoModelForImageClassification.from_config(resized).train())

    return build


def _timm_builder(architecture: str, classes: int) -> Callable[[tuple[int, int]], nn.Module]:
    def build(image_hw: tuple[int, int]) -> nn.Module:
        # timm has no list of architectures that are built for one size; those accept `img_size`.
        try:
            return cast(nn.Module, timm.create_model(architecture, num_classes=classes, img_size=image_hw).train())
        except TypeError:
            return cast(nn.Module, timm.create_model(architecture, num_classes=classes).train())

    return build


def _state(weights: str | None) -> dict[str, torch.Tensor]:
    if weights is None or weights == RANDOM:
        return {}
    if not weights.endswith(".safetensors"):
        raise CheckpointError(f"the weights after @ must be a .safetensors file or {RANDOM!r}, got {weights!r}")
    return read_weight_file(Path(weights))


def _rows(state: dict[str, torch.Tensor]) -> int:
    """Returns the number of classes of a classifier: the rows of its last matrix."""
    return [len(tensor) for tensor in state.values() if tensor.ndim == 2][-1]


def _load(model: nn.Module, state: dict[str, torch.Tensor], source: str) -> None:
    if not state:
        return
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(f"{source}: the weights do not fit: {' '.join(str(error).split())[:300]}") from error


def _imagenet_names(count: int) -> tuple[str, ...]:
    if count != 1000:
        return _numbers(count)
    names = timm.data.ImageNetInfo()
    return tuple(names.index_to_description(number, detailed=False) for number in range(count))


def _numbers(count: int) -> tuple[str, ...]:
    return tuple(f"class {number}" for number in range(count))


def _called(transform: Any) -> Callable[[Image.Image], torch.Tensor]:
    return lambda image: transform(image)


__all__ = ["LIBRARIES", "RANDOM", "compared_task", "load_contestant", "load_contestants", "named_source"]
