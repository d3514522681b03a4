"""Base class of all models of this package."""

from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar

from torch import nn
from transformers import AutoImageProcessor, PreTrainedModel


class HubPreTrainedModel(PreTrainedModel):
    """`PreTrainedModel` that can write further files when it is saved, and can be asked about images.

    The hooks are None in a published copy of this file; where the package is installed, it sets them. `save_hook` is
    called with the model and the folder after each `save_pretrained`, and before the saved files are uploaded: it
    writes the files with which others load the folder without the package. `predict_hook` and `explain_hook` are called
    with the model, its image processor, the images and the options of `predict` and `explain`.

    Args:
        config: Configuration of the model.

    Attributes:
        image_processor: Image processor of the model; None until it is set or first needed.
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
    predict_hook: ClassVar[Callable[..., Any] | None] = None
    explain_hook: ClassVar[Callable[..., Any] | None] = None
    image_processor: Any = None

    def predict(self, images: Any, **options: Any) -> Any:
        """Predicts the labels of images, or the boxes that a detector finds, as `pipeline` does.

        Args:
            images: File, folder, URL, PIL image or array (height, width, 3) of bytes, or a sequence of them.
            **options: `top` (labels per image, 5) and `batch_size` (32) for a classifier; `threshold` (lowest score of
                a box, 0.5) for a detector.

        Returns:
            For one image a list of dictionaries with `label` and `score` (0 to 1), the most likely first, for a
            detector also `box` as (left, top, right, bottom) in pixels; a list of such lists for a folder or a
            sequence.

        Raises:
            RuntimeError: The package vithub is not installed.
            ValueError: The model has no image processor, an image cannot be decoded, or an option has no effect.
        """
        return self._call_hook("predict", HubPreTrainedModel.predict_hook, images, options)

    def explain(self, images: Any, method: str = "auto", **options: Any) -> Any:
        """Shows where in images the model looks.

        Args:
            images: Images as `predict` takes them.
            method: Method of `vithub.explain`; "auto" chooses.
            **options: Further arguments of `vithub.explain`, such as `target`.

        Returns:
            The maps, with `save("why.png")`; see `vithub.explain`.

        Raises:
            RuntimeError: The package vithub is not installed.
            ValueError: The model has no image processor, an image cannot be decoded, or an option does not fit.
        """
        return self._call_hook("explain", HubPreTrainedModel.explain_hook, images, {"method": method, **options})

    def _call_hook(self, name: str, hook: Callable[..., Any] | None, images: Any, options: dict[str, Any]) -> Any:
        if hook is None:
            raise RuntimeError(f"{name} needs the package vithub; without it, use transformers' pipeline(...)")
        if self.image_processor is None:
            source = self.config.name_or_path
            if not source:
                raise ValueError(
                    f"{type(self).__name__} has no image processor, as it was not loaded from a folder or the Hub: set "
                    "its `image_processor`"
                )
            self.image_processor = AutoImageProcessor.from_pretrained(source)
        return hook(self, self.image_processor, images, **options)

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
