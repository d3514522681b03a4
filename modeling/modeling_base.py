"""What every model of this package shares."""

from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar

from torch import nn
from transformers import PreTrainedModel


class HubPreTrainedModel(PreTrainedModel):
    """A `PreTrainedModel` that can write more than weights when it is saved.

    `save_hook` is called with the model and the folder after each `save_pretrained`, and before what was saved is
    uploaded. It is None in a published copy of this file; where the package is installed it writes what lets others
    load the folder without the package.
    """

    main_input_name = "pixel_values"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    # Trainer then divides by the number of accumulation steps itself: the losses here are means over a batch.
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
        """As in transformers, then `save_hook`."""
        super().save_pretrained(save_directory, is_main_process, *args, **kwargs)
        if is_main_process:
            self._after_saving(save_directory)

    def _upload_modified_files(self, working_dir: str | PathLike[str], *args: Any, **kwargs: Any) -> Any:
        """As in transformers, after `save_hook`: `save_pretrained(..., push_to_hub=True)` uploads before it ends."""
        self._after_saving(working_dir)
        return super()._upload_modified_files(working_dir, *args, **kwargs)

    def _initialize_weights(self, module: nn.Module, *_: Any, **__: Any) -> None:
        """As in transformers, for parts too that own no parameter and start those of their children.

        transformers (5.4 to 5.23, where this name is private) passes over such parts in code that is not its own, as
        that may overwrite loaded weights. `_init_weights` of ours does not: it calls `transformers.initialization`,
        which leaves loaded tensors alone.
        """
        super()._initialize_weights(module)

    def _after_saving(self, folder: str | PathLike[str]) -> None:
        if HubPreTrainedModel.save_hook is not None:
            HubPreTrainedModel.save_hook(self, Path(folder))


__all__ = ["HubPreTrainedModel"]
