"""Loading of checkpoints at another image or patch size, and resampling of a model's weights to it."""

from copy import deepcopy
from os import PathLike
from typing import Any, ClassVar, Self

import torch
from torch import nn
from transformers import PreTrainedConfig

from ..configuration.config_checks import as_pair
from .position_embeddings import (
    resample_patch_projection,
    resample_position_embeddings,
    sincos_position_embeddings,
)

# Arguments that tell from_pretrained which file to read, not what to do with it.
_HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")


class InputSizing:
    """Mixin of ViT models, whose encoder (`base_model`) has `embeddings`."""

    config: Any
    base_model: Any
    uses_mask_token: ClassVar[bool] = True  # otherwise it does not learn: distributed training would wait for it

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: Any,
        *model_args: Any,
        config: PreTrainedConfig | str | PathLike[str] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Loads a checkpoint as transformers does; where `image_size` or `patch_size` differ, weights are resampled.

        The sizes come from keyword arguments or from `config`. Position embeddings and patch projection of the
        checkpoint are resampled once (see `set_input_size`), and `save_pretrained` then writes the new sizes.

        Raises:
            ValueError: The checkpoint is of another model type; `vithub.load` converts those it knows.
        """
        loaded = cls._load_at_size(pretrained_model_name_or_path, *model_args, config=config, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded  # a tuple with output_loading_info
        token = model.base_model.embeddings.mask_token
        if token is not None and not cls.uses_mask_token:  # loading makes every parameter trainable
            token.requires_grad_(False)
        return loaded

    @classmethod
    def _load_at_size(cls, pretrained_model_name_or_path: Any, *model_args: Any, config: Any, **kwargs: Any) -> Any:
        load = super().from_pretrained  # type: ignore[misc]
        if pretrained_model_name_or_path is None:  # weights come as a `state_dict`
            return load(None, *model_args, config=config, **kwargs)
        config_class = cls.config_class  # type: ignore[attr-defined]
        hub = {name: kwargs[name] for name in _HUB_ARGUMENTS if name in kwargs}
        values, _ = config_class.get_config_dict(pretrained_model_name_or_path, **hub)
        if values.get("model_type") != config_class.model_type:
            raise ValueError(
                f"{pretrained_model_name_or_path} holds a model of type {values.get('model_type')!r}, but "
                f"{cls.__name__} loads {config_class.model_type!r}; `vithub.load` converts checkpoints of other types"
            )
        stored = config_class.from_dict(values)
        if isinstance(config, str | PathLike):
            config = config_class.from_pretrained(config, **hub)
        given: Any = stored if config is None else config
        sizes = {name: kwargs.pop(name, None) or getattr(given, name) for name in ("image_size", "patch_size")}
        wanted = {name: as_pair(name, value) for name, value in sizes.items()}
        if wanted == {"image_size": stored.image_hw, "patch_size": stored.patch_hw}:
            return load(pretrained_model_name_or_path, *model_args, config=config, **kwargs)
        if config is not None:
            given = deepcopy(given)
            given.image_size, given.patch_size = stored.image_size, stored.patch_size
            config = given
        loaded = load(pretrained_model_name_or_path, *model_args, config=config, **kwargs)
        (loaded[0] if isinstance(loaded, tuple) else loaded).set_input_size(**sizes)
        return loaded

    @torch.no_grad()
    def set_input_size(
        self, image_size: int | tuple[int, int] | None = None, patch_size: int | tuple[int, int] | None = None
    ) -> Self:
        """Resamples position embeddings and patch projection to another size, in place, and returns the model.

        Args:
            image_size: New image size in pixels, one number or (height, width); None keeps it.
            patch_size: New patch size in pixels, one number or (height, width); None keeps it.

        Raises:
            ValueError: The image size is no multiple of the patch size, or the model is a masked image model, whose
                decoder fixes the patch size.
        """
        old = self.config
        new = deepcopy(old)
        new.image_size = old.image_size if image_size is None else image_size
        new.patch_size = old.patch_size if patch_size is None else patch_size
        new.check()
        embeddings = self.base_model.embeddings
        if hasattr(self, "decoder") and new.patch_hw != old.patch_hw:
            raise ValueError(
                f"`patch_size` of a masked image model is fixed by its decoder: {old.patch_size!r}, got {patch_size!r}"
            )
        if (stored := embeddings.position_embeddings) is not None:
            positions = _positions_for(stored, old, new)
            if isinstance(stored, nn.Parameter):
                positions = nn.Parameter(positions, requires_grad=stored.requires_grad)
            embeddings.position_embeddings = positions
        patches = embeddings.patch_embeddings
        weight = resample_patch_projection(patches.weight, old.patch_hw, new.patch_hw)
        patches.weight = nn.Parameter(weight, requires_grad=patches.weight.requires_grad)
        patches.patch_hw = new.patch_hw
        for module in self.modules():  # type: ignore[attr-defined]
            if isinstance(config := getattr(module, "config", None), PreTrainedConfig):
                config.image_size, config.patch_size = new.image_size, new.patch_size
        return self


def _positions_for(stored: torch.Tensor, old: Any, new: Any) -> torch.Tensor:
    """Position embeddings (1, prefix + patches, D) of configuration `old`, for the grid of configuration `new`."""
    prefix = old.num_position_prefix
    if old.position_embedding_type == "sincos":
        patches = sincos_position_embeddings(old.hidden_size, *new.grid_size).to(stored)
        return torch.cat([stored[:, :prefix], patches[None]], dim=1)
    return resample_position_embeddings(
        stored, prefix, old.grid_size, new.grid_size, old.position_embedding_resampling
    ).clone()


__all__ = ["InputSizing"]
