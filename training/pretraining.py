"""Pretraining on images without labels: the function behind `vithub pretrain`."""

from pathlib import Path
from typing import Any, Literal

from ..data.argument_names import argument
from .finetuning import Run, finetune
from .recipe.model_names import is_from_scratch
from .recipe.named_fields import named_values
from .recipe.presets import preset as named_recipe
from .recipe.presets import read_recipe
from .recipe.pretraining_settings import METHODS
from .recipe.recipe import Recipe
from .runtime.progress import Reporter

# Factor of the preset's learning rate for a backbone that has learned before, of which much shall be kept.
CONTINUED = 0.1


def pretrain(
    model: str | None = None,
    data: Any = None,
    output: str | Path | None = None,
    *,
    method: str | None = None,
    recipe: Recipe | str | Path | None = None,
    epochs: int | None = None,
    max_steps: int | None = None,
    streaming: bool = False,
    batch_size: int | Literal["auto"] | None = None,
    lr: float | None = None,
    image_size: int | tuple[int, int] | None = None,
    mask_ratio: float | None = None,
    teacher: Any = None,
    probe: str | Path | None = None,
    seed: int | None = None,
    on_bad_image: str | None = None,
    on_nonfinite: str | None = None,
    front_end: str = "accelerate",
    resume: bool = False,
    finish: bool = False,
    keep_checkpoints: int | None = None,
    values: dict[str, Any] | None = None,
    dry_run: bool = False,
    reporter: Reporter | None = None,
) -> Run:
    """Pretrains a backbone on images without labels and writes a folder that `finetune` takes as a model.

    Args:
        model: ViT to train from scratch ("vit-s/16"), or a folder or Hub id of a ViT to pretrain further, at a tenth
            of the preset's learning rate unless one is given; None takes the recipe's model.
        data: Images in any form that `finetune` takes, or a folder with images anywhere below it; labels are ignored.
        output: Folder of the run; None makes one below `runs/`, or with `resume` takes the run there that changed last.
        method: "mae", "simmim", "dino" or "features"; None takes the recipe's, without one "features" with a teacher
            and else "mae". It chooses the preset `pretrain-METHOD`.
        recipe: Whole recipe, or a recipe file, in place of the preset.
        epochs: Passes over the training images; None takes the recipe's value, as for the arguments below.
        max_steps: Number of steps after which the training ends.
        streaming: Whether to read the data as a stream instead of loading all of it.
        batch_size: Images per step, over all processes, or "auto", as for `finetune`.
        lr: Peak learning rate.
        image_size: Image size in pixels: side of a square, or (height, width).
        mask_ratio: Part of an image's patches that is hidden, in (0, 1).
        teacher: Vision model whose features are learned: a folder or Hub id of a model of this package, transformers or
            timm, or such a model in memory that takes the student's pixels.
        probe: Labelled images, in any form that `finetune` takes by name, on which the features' k-NN accuracy is
            measured after each epoch.
        seed: Seed of all random choices except the drawing of splits.
        on_bad_image: "error" or "skip" for images that cannot be decoded.
        on_nonfinite: "stop" or "skip" for steps whose loss is not finite.
        front_end: Training loop: "accelerate", or "trainer" for transformers' `Trainer`; both give the same losses.
        resume: Whether to continue the run in `output`, as for `finetune`.
        finish: With `resume`, whether to end the training now and write the run's folder.
        keep_checkpoints: Number of last checkpoints to keep; 0 leaves none after the run.
        values: Further recipe fields by dotted name, such as {"pretraining.decoder_layers": 4}; they override the
            arguments above.
        dry_run: Whether to measure a few steps only and to throw them away, as for `finetune`.
        reporter: Receives the progress; None writes to the log.

    Returns:
        Run whose `model` is the backbone, without decoder, head or teacher.

    Raises:
        RecipeError: A field of the recipe is wrong.
        DataError: The images cannot be used.
        TargetError: The folder holds other files or cannot be written, another process trains in it, or there is
            nothing to resume.
    """
    if method is not None and method not in METHODS:
        raise ValueError(f"{argument('method')} must be one of {', '.join(METHODS)}, got {method!r}")
    given: dict[str, Any] = {} if method is None else {"pretraining.method": method}
    given |= {} if mask_ratio is None else {"pretraining.mask_ratio": mask_ratio}
    given |= {} if probe is None else {"pretraining.probe": str(probe)}
    given |= named_values(
        epochs=epochs, max_steps=max_steps, streaming=streaming, batch_size=batch_size, lr=lr, image_size=image_size,
        seed=seed, on_bad_image=on_bad_image, on_nonfinite=on_nonfinite, keep_checkpoints=keep_checkpoints,
    )  # fmt: skip
    given |= values or {}
    if recipe is None and not resume:
        recipe = named_recipe(f"pretrain-{method or ('mae' if teacher is None else 'features')}")
        further = model is not None and not is_from_scratch(str(model))
        if further and not any(name in given for name in ("training.lr", "training.lr_batch")):
            given["training.lr"] = CONTINUED * recipe.training.lr
    elif recipe is not None and not isinstance(recipe, Recipe):
        recipe = read_recipe(recipe)
    if isinstance(recipe, Recipe) and recipe.task != "pretraining":
        raise ValueError(f"{argument('recipe')} must be one with task pretraining, got {recipe.task}")
    return finetune(
        model, data, output, recipe=recipe, front_end=front_end, resume=resume, finish=finish, values=given,
        batch_size="auto" if batch_size == "auto" else None, teacher=teacher, dry_run=dry_run, reporter=reporter,
    )  # fmt: skip


__all__ = ["pretrain"]
