"""Base class of all models of this package."""

from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar

from torch import nn
from transformers import PreTrainedModel


class HubPreTrainedModel(PreTrainedModel):
    """`PreTrainedModel` that can write further files when it is saved.

    `save_hook` is called with the model and the folder after each `save_pretrained`, and before the saved files are
    uploaded. It is None in a published copy of this file; where the package is installed, it writes the files with
    which others load the folder without the package.
    """

    main_input_name = "pixel_values"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    # The losses here are means over a batch: with False, Trainer divides them by the number of accumulation steps.
    accepts_loss_kwargs = False
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True

    save_hook: ClassVar[Callable[[PreTrainedModel, Path], None] | None] = None

    def save_pretrained(
        self, save_directory: str | PathLike[str], is_main_process: bool = True, *args: Any, **kwargs: Any
    ) -> None:
        """Saves the model as transformers does, then calls `save_hook`."""
        super().save_pretrained(save_directory, is_main_process, *args, **kwargs)
        if is_main_process:
            self._after_saving(save_directory)

    def _upload_modified_files(self, working_dir: str | PathLike[str], *args: Any, **kwargs: Any) -> Any:
        """Calls `save_hook`, then uploads: `save_pretrained(..., push_to_hub=True)` uploads before it returns."""
        self._after_saving(working_dir)
        return super()._upload_modified_files(working_dir, *args, **kwargs)

    def _initialize_weights(self, module: nn.Module, *_: Any, **__: Any) -> None:
        """Initialises a module as transformers does, including modules without parameters that initialise children.

        transformers (5.4 to 5.23, where this method is private) skips such modules in code that is not its own,
        because their initialisation may overwrite loaded weights. Ours does not: `_init_weights` calls
        `transformers.initialization`, which leaves loaded tensors unchanged.
        """
        super()._initialize_weights(module)

    def _after_saving(self, folder: str | PathLike[str]) -> None:
        if HubPreTrainedModel.save_hook is not None:
            HubPreTrainedModel.save_hook(self, Path(folder))


__all__ = ["HubPreTrainedModel"]
