"""Sections of a recipe; the augmentation section is defined in `data`."""

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
Seed = Annotated[int, Field(ge=0, le=2**64 - 1)]  # range that torch's generators accept
# Larger than any machine or model needs: a typing error is rejected before processes or memory are taken.
Pixels = Annotated[int, Field(ge=1, le=65_536)]
BALANCING = ("balanced", "sqrt")  # ways to compute class weights from the number of images of each class
MOST_WORKERS = 1_024  # processes; the largest servers have some hundred cores
MOST_LORA_RANK = 4_096  # at a width of 4,096 such an adapter is larger than the matrix
MOST_IMAGES_AT_ONCE = 2**20  # ImageNet's largest published batch is 2**16


def _weights(value: Any) -> Any:
    """Checks weights of classes; pydantic's own message would name each of the accepted types."""
    if value is None or (isinstance(value, str) and value in BALANCING):
        return value
    if not isinstance(value, dict) or not value:
        raise ValueError("must be balanced, sqrt, or a weight for each label")
    for label, weight in value.items():
        number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not (number and 0 <= weight < float("inf")):
            raise ValueError(f"the weight of label {label!r} must be a number from 0")
    if not any(value.values()):
        raise ValueError("must be above 0 for at least one label")
    return {str(label): float(weight) for label, weight in value.items()}


ClassWeights = Annotated[Literal["balanced", "sqrt"] | dict[str, float] | None, BeforeValidator(_weights)]


class Section(BaseModel):
    """Group of settings; unknown names are rejected, and values are validated when set."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True, allow_inf_nan=False)


class ModelSettings(Section):
    """Settings of the model."""

    source: str = Field(
        "deit-ti",
        description="from scratch: vit|deit-ti|s|b|l|h, with /PATCH, or detr; or a folder or Hub id of any model",
    )
    revision: str | None = Field(None, description="branch, tag or commit of a Hub id")
    image_size: Pixels | tuple[Pixels, Pixels] | None = Field(
        None, description="pixels, or height and width; default: the model's"
    )
    patch_size: Pixels | tuple[Pixels, Pixels] | None = Field(None, description="pixels; default: the model's")
    convert: bool = Field(
        True, description="train a model that this package has a class for in that class; false: in transformers' own"
    )
    backbone: str | None = Field(
        None, description="of a new detector (source detr): a folder or Hub id of a pretrained classifier"
    )
    backbone_stride: int | None = Field(
        None, ge=1, description="pixels per cell of the backbone's map that a detector sees; default: the last map"
    )
    fields: dict[str, Any] = Field(default_factory=dict, description="fields of the configuration, e.g. drop_path_rate")
    activation_checkpointing: bool = Field(False, description="recompute layers in the backward pass to save memory")
    compile: bool | Literal["auto"] = Field(
        "auto", description="torch.compile, layer by layer where layers are ours; auto: our classifiers on CUDA"
    )

    @field_validator("fields", mode="before")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        """Converts tuples to lists, as a file holds them."""
        try:
            return json.loads(json.dumps(value))
        except TypeError as error:
            raise ValueError(f"must be plain data ({error})") from error


class DataSettings(Section):
    """Settings of the data."""

    source: str = Field("digits", description="'digits', a folder, a .csv or .parquet file, or a Hub id")
    revision: str | None = Field(None, description="branch, tag or commit of a Hub id")
    image_column: str | None = Field(None, description="default: found")
    label_column: str | None = Field(None, description="default: found")
    train_split: str | None = Field(None, description="default: found")
    validation_split: str | None = Field(None, description="default: found, or drawn from the training split")
    test_split: str | None = Field(None, description="default: found, or drawn where there is one split only")
    validation_fraction: Share = Field(0.1, description="drawn where there is no validation split")
    test_fraction: Share = Field(0.1, description="drawn where there is one split only")
    split_seed: Seed = Field(0, description="of drawn splits")
    workers: int | None = Field(
        None, ge=0, le=MOST_WORKERS, description="loading processes; default: by the number of cores"
    )
    cache: Literal["off", "memory"] = Field(
        "off",
        description="memory: keep decoded images for later epochs, in half of the memory that is free at first",
    )
    streaming: bool = Field(
        False, description="read the training images in order and never all; Parquet, WebDataset, Hub"
    )
    shuffle_buffer: int = Field(1000, ge=1, le=10**8, description="streaming: images that are shuffled with each other")
    held_out_images: int = Field(
        5000, ge=1, description="streaming: most images taken for validation and for test each"
    )
    labels: list[str] | None = Field(None, description="names of the labels; default: found; streaming may need them")
    on_bad_image: Literal["error", "skip"] = Field(
        "error", description="an image that cannot be decoded: stop, or train without it and list it in metrics.json"
    )
    max_bad_share: Share = Field(0.01, description="part of a split that may be skipped before it is an error")
    on_leakage: Literal["error", "warn"] = Field(
        "error", description="the same image file in two splits: stop, or warn and say so in metrics.json and the card"
    )

    repair_boxes: bool = Field(
        False, description="cut boxes at their image's border and leave out those without an area, instead of an error"
    )
    box_format: str | None = Field(None, description="such as 'xyxy pixels'; default: the usual one, or found")
    sampler: Literal["shuffled", "balanced"] = Field(
        "shuffled", description="shuffled: each image once an epoch; balanced: each class equally often"
    )
    group_shapes: bool = Field(False, description="batches of a detector's images of similar shape: less padding")

    def reading_boxes(self) -> dict[str, Any]:
        """Returns the arguments of `load_box_data` except the source."""
        names = ["train_split", "validation_split", "test_split", "validation_fraction", "test_fraction", "split_seed"]
        given = {name: getattr(self, name) for name in names}
        columns = {"image_column": self.image_column, "objects_column": self.label_column, "revision": self.revision}
        named = {name: value for name, value in columns.items() if value is not None}
        share = self.max_bad_share if self.on_bad_image == "skip" else 0.0
        return {**given, "repair": self.repair_boxes, "box_format": self.box_format, "bad_share": share, **named}

    def reading(self) -> dict[str, Any]:
        """Returns the arguments of `load_image_data` except the source."""
        names = ["image_column", "label_column", "train_split", "validation_split", "test_split"]
        drawn = ["validation_fraction", "test_fraction", "split_seed", "revision"]
        return {name: getattr(self, name) for name in names + drawn}

    def streamed(self) -> dict[str, Any]:
        """Returns the arguments of `load_streamed_data` except the source."""
        names = ["image_column", "label_column", "train_split", "validation_split", "test_split"]
        return {name: getattr(self, name) for name in [*names, "held_out_images", "labels", "revision"]}


class TrainingSettings(Section):
    """Settings of the optimization."""

    epochs: int = Field(30, ge=1, description="passes over the training images")
    max_steps: int | None = Field(None, ge=1, description="end after so many steps; with streaming it is needed")
    steps_per_epoch: int = Field(1000, ge=1, description="streaming: steps from one evaluation to the next")
    batch_size: int = Field(
        64, ge=1, le=MOST_IMAGES_AT_ONCE, description="images per step, over all processes and accumulation steps"
    )
    accumulation: int = Field(1, ge=1, description="pieces of a batch that are computed one after the other")
    optimizer: Literal["adamw", "sgd", "lamb", "muon"] = Field(
        "adamw",
        description="lamb: for batches of thousands (DeiT-III); muon: for the matrices, with AdamW for the rest",
    )
    lr: Positive = Field(5e-4, description="peak learning rate")
    lr_batch: int | None = Field(None, ge=1, description="lr is for this batch size and scaled to the one used")
    schedule: Literal["cosine", "linear", "step", "constant"] = Field(
        "cosine", description="of the learning rate after the warm-up: down to min_lr, or in drops, or not at all"
    )
    min_lr: float = Field(1e-6, ge=0, description="at the end of the schedule")
    step_epochs: int = Field(30, ge=1, description="epochs between the drops of the step schedule")
    step_factor: float = Field(0.1, gt=0, lt=1, description="of the rate at each drop of the step schedule")
    warmup: float = Field(5, ge=0, description="length of the linear warm-up")
    warmup_unit: Literal["epochs", "steps", "ratio"] = Field("epochs", description="ratio: part of all steps")
    warmup_lr: float = Field(1e-6, ge=0, description="at the start of the warm-up")
    weight_decay: float = Field(0.05, ge=0, description="none on norms, biases, tokens and position embeddings")
    decay_all: bool = Field(False, description="weight decay on those too, as DETR has it")
    betas: tuple[Share, Share] = Field((0.9, 0.999), description="of AdamW and LAMB")
    epsilon: Positive = Field(1e-8, description="added to the denominator of AdamW and LAMB")
    momentum: Share = Field(0.9, description="of SGD and Muon")
    clip_norm: float | None = Field(None, gt=0, description="largest norm of the gradient; default: no clipping")
    layer_decay: float = Field(
        1.0, gt=0, le=1, description="factor of the learning rate from each layer to the one below"
    )
    backbone_lr: float | None = Field(None, gt=0, description="peak rate of all but the head; default: as the head")
    freeze: Annotated[int, Field(ge=0)] | Literal["backbone"] = Field(
        0, description="number of lowest layers that stay as they are, embeddings included; backbone: all but the head"
    )
    head_first_epochs: int = Field(
        0, ge=0, description="epochs in which the head alone learns first, on features that are computed once"
    )
    loss: Literal["cross_entropy", "bce", "focal"] = Field(
        "cross_entropy",
        description="bce: a yes or no per class, targets above 0 counting as 1 (DeiT-III); focal: less of sure ones",
    )
    focal_gamma: float = Field(2.0, ge=0, le=100, description="exponent of the focal loss; 0: cross-entropy")
    class_weights: ClassWeights = Field(
        None,
        description="in the loss: balanced (inverse to the images of a class), sqrt (to their root), or by label",
    )
    logit_adjustment: float | None = Field(
        None, gt=0, le=100, description="times the log of each class's share, added to the logits in the loss"
    )
    label_smoothing: Share = Field(0.1, description="part of a target that goes to all classes alike")
    ema_decay: Share | None = Field(None, description="of an average of the weights, which is then what is judged")
    ema_warmup: bool = Field(True, description="a smaller ema_decay in the first steps")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="auto: bf16 where it is fast, else fp32"
    )
    master_weights: bool = Field(
        False,
        description="bf16: compute in it throughout, on casts of the fp32 weights that learn; default: autocast",
    )
    deterministic: bool = Field(
        False, description="CUDA: the same bits from run to run, by slower operations; CPUs give them anyway"
    )
    tf32: bool = Field(True, description="CUDA: products and convolutions of fp32 numbers in TF32 while training")
    cudnn_benchmark: bool = Field(
        False, description="CUDA: time cuDNN's convolutions first and take the fastest, for images of one size"
    )
    channels_last: bool | Literal["auto"] = Field(
        "auto", description="memory format of convolutions (CNNs and backbones, not ViTs); auto: on CUDA"
    )
    early_stop: int | None = Field(
        None, ge=1, description="epochs without a better validation accuracy before it stops"
    )
    publish: Literal["best", "last"] = Field(
        "best",
        description="weights of the epoch with the best validation accuracy (of equal ones the lowest loss), "
        "or of the last epoch",
    )
    keep_checkpoints: int = Field(
        2, ge=0, description="how many of the last checkpoints are kept; 0: none when the run is finished"
    )
    checkpoint_steps: int | None = Field(None, ge=1, description="steps between checkpoints; default: each epoch")
    trackers: list[Literal["tensorboard", "trackio", "wandb"]] | None = Field(
        None, description="where figures go while it runs; default: tensorboard, into the run's logs/, if installed"
    )
    on_nonfinite: Literal["stop", "skip"] = Field(
        "stop", description="a loss that is infinite or not a number: stop, or leave the step out and count it"
    )


class DistillationSettings(Section):
    """Settings of distillation from a teacher (DeiT, https://arxiv.org/abs/2012.12877)."""

    teacher: str | None = Field(None, description="a folder or Hub id of any image classifier; default: no teacher")
    revision: str | None = Field(None, description="branch, tag or commit of a Hub id")
    kind: Literal["soft", "hard"] = Field("hard", description="learn the teacher's probabilities or its decision")
    through: Literal["auto", "token", "logits"] = Field(
        "auto", description="a distillation token with its own head, or the classifier itself; auto: by the model"
    )
    temperature: Positive = Field(1.0, description="of soft distillation (DeiT's paper: 3)")
    alpha: float = Field(0.5, ge=0, le=1, description="weight of the teacher's term (DeiT's paper, soft: 0.1)")
    reduction: Literal["deit", "batchmean"] = Field(
        "deit", description="soft: the divergence summed and divided by images x classes (DeiT) or by images (timm)"
    )
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="of the teacher")
    cache: bool = Field(False, description="ask once per image; only where augmentation changes nothing")


class LoraSettings(Section):
    """Settings of low-rank adapters (https://arxiv.org/abs/2106.09685); needs the extra `lora`."""

    rank: int | None = Field(
        None, ge=1, le=MOST_LORA_RANK, description="of the adapters; default: none, all weights learn"
    )
    alpha: int = Field(16, ge=1, description="scale: an adapter counts alpha / rank")
    dropout: Share = Field(0.0, description="of what an adapter is given")
    targets: list[str] | None = Field(None, description="names of the layers; default: query and value projections")
    publish: Literal["merged", "adapter"] = Field(
        "merged", description="merged: into the weights; adapter: those, and the adapters by themselves in adapter/"
    )


class EvaluationSettings(Section):
    """Settings of the evaluation."""

    crop_ratio: float = Field(0.875, gt=0, le=1, description="part of the resized image that the centre crop keeps")
    batch_size: int = Field(64, ge=1, le=MOST_IMAGES_AT_ONCE, description="images at once; no figure depends on it")
    interpolation: Literal["bicubic", "bilinear"] = Field("bicubic", description="of resizing")
    headline: Literal["auto", "accuracy", "macro_f1"] = Field(
        "auto", description="by which the best epoch is chosen; auto: macro_f1 if the classes are imbalanced"
    )


__all__ = [
    "DataSettings",
    "DistillationSettings",
    "EvaluationSettings",
    "LoraSettings",
    "ModelSettings",
    "Section",
    "Seed",
    "TrainingSettings",
]
