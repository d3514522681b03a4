"""Form in which a model is published: as a class of transformers, which needs no code, or with its own code."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from ...configuration.configuration_vit import HubViTConfig
from ...data.argument_names import argument
from ..bundle.remote_code import remote_classes
from ..checkpoints import read_config
from ..conversion.convert import convert
from ..conversion.model_classes import CONFIG_CLASSES, head_of
from ..conversion.parity import ParityError
from ..conversion.transformers_configs import InexpressibleError, family_for
from ..inference_loading import PROCESSOR, load_processor
from .errors import PublishError

NATIVE, BUNDLE, AS_SAVED = "native", "bundle", "as saved"

logger = logging.getLogger("vithub")


@dataclass(frozen=True)
class PublishedForm:
    """Form in which a model is published.

    Args:
        kind: "native" (converted to a class of transformers), "bundle" (with the code of this package beside the
            weights) or "as saved" (every other folder, which is sent as it is).
        why: Reason for this form, in one line.
        architecture: Class of transformers that loads a converted model; None for the other forms.
        folder: Folder of the converted model; None for the other forms.
        asked: Whether the code was asked for, so that transformers may lack nothing.
    """

    kind: str
    why: str
    architecture: str | None = None
    folder: Path | None = None
    asked: bool = False

    @property
    def feature(self) -> str | None:
        """Reason why transformers' classes cannot take the model; None if they can, or if the code was asked for."""
        return self.why if self.kind == BUNDLE and not self.asked else None

    @property
    def told(self) -> str:
        """Form and reason as a line for a person."""
        if self.kind == NATIVE:
            return f"published as {self.architecture} of transformers: {self.why}"
        if self.asked:
            return f"published with its code, as {argument('bundle')} asks"
        return f"published {'with its code' if self.kind == BUNDLE else 'as it was saved'}: {self.why}"


def choose_form(folder: Path, staging: Path, native: bool, bundle: bool) -> PublishedForm:
    """Chooses the form of a model, and writes the converted model where it is published as a class of transformers.

    A model of this package becomes one of transformers if that gives the same answers to everyone who loads it: the
    outputs are compared when it is converted, and the image processor must give images of the size that the position
    embeddings are stored for.

    Args:
        folder: Folder of the model.
        staging: New folder for the converted model.
        native: Whether a class of transformers is required.
        bundle: Whether the code beside the weights is required.

    Raises:
        InexpressibleError: `native` is set and transformers has no such model; the features are listed.
        PublishError: `native` or `bundle` is set for a folder to which it does not apply.
        ValueError: Both are set.
    """
    if native and bundle:
        raise ValueError(f"{argument('native')} and {argument('bundle')} exclude each other; give one of them")
    config = read_config(folder)
    if config.get("model_type") not in CONFIG_CLASSES and not (native and "architecture" in config):
        return _of_others(folder, config, native, bundle)
    if bundle:
        if not remote_classes(folder):
            raise PublishError(
                f"{folder} holds no code (config.json has no auto_map), so that {argument('bundle')} has nothing to "
                "send; save the model with this version of vithub first"
            )
        return PublishedForm(BUNDLE, "the code was asked for", asked=True)
    unlike = _unlike_elsewhere(folder, config)
    if unlike is not None and not native:
        return _with_code(folder, unlike)
    try:
        report = convert(folder, staging, to="transformers")
    except (InexpressibleError, ParityError) as error:
        if native:
            raise
        why = error.reason if isinstance(error, InexpressibleError) else str(error)
        return _with_code(folder, " ".join(why.split()))
    if unlike is not None:
        logger.warning("%s: as a class of transformers it gives other answers: %s", folder, unlike)
    return PublishedForm(NATIVE, "no code is needed to load it", report.architecture, staging)


def _with_code(folder: Path, why: str) -> PublishedForm:
    """The bundle, or for a folder of an older version, which holds none, the folder as it is."""
    if remote_classes(folder):
        return PublishedForm(BUNDLE, why)
    return PublishedForm(AS_SAVED, f"it holds no code, and vithub is needed to load it ({why})")


def _of_others(folder: Path, config: dict[str, Any], native: bool, bundle: bool) -> PublishedForm:
    """Form of a model that is not of this package."""
    own_code = remote_classes(folder)
    if bundle:
        raise PublishError(
            f"{argument('bundle')} has no effect on {folder}: the model type {config.get('model_type')!r} is not one "
            "of vithub's, whose code it would send"
        )
    if native and own_code:
        raise PublishError(
            f"{folder} is a model with code of its own ({', '.join(sorted(own_code.values()))}), so that it cannot be "
            f"published with {argument('native')}"
        )
    return PublishedForm(AS_SAVED, "it has code of its own" if own_code else "no code of vithub is needed to load it")


def _unlike_elsewhere(folder: Path, stated: dict[str, Any]) -> str | None:
    """Difference that a class of transformers makes although it can express the model; None where there is none.

    Whoever loads the published model gives no arguments to `from_pretrained` and `pipeline`.
    """
    config_class = CONFIG_CLASSES.get(stated.get("model_type", ""))
    config = config_class.from_pretrained(folder) if config_class is not None else None
    if not isinstance(config, HubViTConfig):
        return None
    task, family = head_of((config.architectures or [""])[0]), family_for(config)
    if family in ("vit", "deit") and task == "backbone" and not config.add_pooling_layer:
        return f"transformers' `{family}` adds a pooler with random weights to a backbone that has none"
    if config.position_embedding_type == "rotary" or not (folder / PROCESSOR).is_file():
        return None
    wanted, found = config.image_hw, _sizes(load_processor(folder))
    if found == {wanted}:
        return None
    sizes = ", ".join(f"{height} x {width}" for height, width in sorted(found))
    return (
        f"the image processor gives images of {sizes} pixels (height x width), and transformers' `{family}` does not "
        f"resample the position embeddings of {wanted[0]} x {wanted[1]} as this model does"
    )


def _sizes(processor: Any) -> set[tuple[int, int]]:
    """Sizes (height, width) of the pixels that a processor makes of an upright and of a wide image."""
    made = [processor(Image.new("RGB", size), return_tensors="pt")["pixel_values"] for size in ((300, 500), (640, 200))]
    return {(int(pixels.shape[-2]), int(pixels.shape[-1])) for pixels in made}


__all__ = ["AS_SAVED", "BUNDLE", "NATIVE", "PublishedForm", "choose_form"]
