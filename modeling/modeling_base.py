"""What every model of this package shares."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from transformers import PreTrainedModel


class HubPreTrainedModel(PreTrainedModel):
    """A `PreTrainedModel` that can write more than weights when it is saved.

    `save_hook` is called with the model and the folder after each `save_pretrained`. It is None in a published copy
    of this file; where the package is installed it writes what lets others load the folder without the package.
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

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """As in transformers, then `save_hook`."""
        super().save_pretrained(save_directory, *args, **kwargs)
        if HubPreTrainedModel.save_hook is not None and kwargs.get("is_main_process", True):
            HubPreTrainedModel.save_hook(self, Path(save_directory))


__all__ = ["HubPreTrainedModel"]
