"""One short training: called in this process, or as a program that reads its job from standard input.

The program is for what one process cannot have twice: a CPU beside a GPU as the device of a run, or a launcher's
environment. It prints its result as one line of JSON.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from check import boxed_photos, exact_products, photos

CLASSIFIER: dict[str, Any] = {
    "model.source": "deit-ti",
    "model.image_size": 112,
    "model.fields": {"drop_path_rate": 0.1},
    "data.workers": 0,
    "augmentation.mixup": 0.2,
    "training.batch_size": 32,
    "training.epochs": 10,
    "training.lr": 1e-3,
    "training.warmup": 0,
    "training.precision": "fp32",
    "training.trackers": [],
    "training.clip_norm": 1.0,
}
TINY_CLASSIFIER: dict[str, Any] = {
    "model.source": "deit-ti/8",
    "model.image_size": 16,
    "model.fields": {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
        "drop_path_rate": 0.1,
    },
    "training.batch_size": 4,
}  # fmt: skip
DETECTOR: dict[str, Any] = {
    "model.image_size": 256,
    "model.backbone_stride": None,
    "data.workers": 0,
    "boxes.sides": (800,),
    "training.batch_size": 8,
    "training.epochs": 10,
    "training.warmup": 0,
    "training.precision": "fp32",
    "training.trackers": [],
    "evaluation.batch_size": 8,
}
# What the preset's fields are for a detector: the fields of a recipe are replaced as a whole.
SMALL_DATA = {
    "anchor_queries": True, "denoising_queries": 4, "focal_loss": True, "dropout": 0.0, "attention_dropout": 0.0,
    "activation_dropout": 0.0, "frozen_stages": 0, "freeze_batch_norm": False,
}  # fmt: skip
SMALL_RESNET = {
    "model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 1],
    "layer_type": "basic", "out_features": ["stage4"],
}  # fmt: skip
LARGER_RESNET = {**SMALL_RESNET, "embedding_size": 64, "hidden_sizes": [64, 128, 256, 512], "depths": [2, 2, 2, 2]}
TINY_DETECTOR: dict[str, Any] = {
    "model.image_size": 64,
    "model.fields": {
        "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 4,
        "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "num_queries": 8,
        "backbone_config": SMALL_RESNET, **SMALL_DATA,
    },
    "training.batch_size": 4,
}  # fmt: skip
FULL_DETECTOR: dict[str, Any] = {
    "model.fields": {
        "d_model": 128, "encoder_layers": 2, "decoder_layers": 3, "encoder_ffn_dim": 512, "decoder_ffn_dim": 512,
        "num_queries": 60, "backbone_config": LARGER_RESNET, **SMALL_DATA, "denoising_queries": 60,
    },
}  # fmt: skip


class Heard:
    """Reporter that keeps the losses and breaks the run off after some steps."""

    def __init__(self, break_after: int | None = None) -> None:
        self.losses: list[float] = []
        self.rates: list[float] = []
        self.break_after = break_after

    def message(self, text: str) -> None:
        """Ignores the line."""

    def start(self, task: str, total: int, done: int = 0) -> None:
        """Ignores the beginning of a task."""

    def advance(self, amount: int = 1, **figures: float) -> None:
        """Keeps the loss of a training step."""
        del amount
        if "loss" in figures:
            self.losses.append(figures["loss"])
            self.rates.append(figures.get("images/s", 0.0))
            if len(self.losses) == self.break_after:
                raise KeyboardInterrupt

    def stop(self) -> None:
        """Ignores the end of a task."""


def values_of(job: dict[str, Any]) -> dict[str, Any]:
    """Recipe fields of a job; entries of the job's `model.fields` join those of the kind."""
    if job["kind"] == "detector":
        base = DETECTOR | (TINY_DETECTOR if job["tiny"] else FULL_DETECTOR)
    else:
        base = CLASSIFIER | (TINY_CLASSIFIER if job["tiny"] else {})
    values = base | {"training.max_steps": job["steps"]} | job.get("values", {})
    fields = {**base.get("model.fields", {}), **job.get("values", {}).get("model.fields", {})}
    return values | {"model.fields": fields}


def train(job: dict[str, Any], reporter: Heard | None = None, teacher: Any = None) -> dict[str, Any]:
    """Trains, and returns the losses, the first step, a sum that stands for the weights, and the precision.

    Args:
        job: `kind` ("classifier" or "detector"), `tiny`, `steps`, `output`, and where needed `values` (recipe fields),
            `front_end`, `resume`, `images` (number of training images).
        reporter: Receives the progress; one that breaks the run off ends in a `KeyboardInterrupt`.
        teacher: Module to learn from.
    """
    from vithub.training.finetuning import finetune

    exact_products()
    reporter = reporter or Heard()
    values, detector = values_of(job), job["kind"] == "detector"
    count = job.get("images", 24 if job["tiny"] else 160)
    size = (64, 96) if job["tiny"] else (256, 320)
    data = boxed_photos(count, size) if detector else photos(count)
    chosen = {"preset": "detr-small-data"} if detector else {"preset": "from-scratch-small"}
    if job.get("resume"):
        chosen, values = {}, {}
    run = finetune(
        data=data, output=job["output"], values=values, front_end=job.get("front_end", "accelerate"),
        resume=job.get("resume", False), reporter=reporter, teacher=teacher, **chosen,  # type: ignore[arg-type]
    )  # fmt: skip
    from safetensors.torch import load_file

    weights = load_file(Path(run.folder) / "model.safetensors")
    return {
        "losses": run.losses,
        "steps": job["steps"],
        "digest": _digest(weights),
        "precision": run.metrics["precision"],
        "device": run.metrics["device"],
        "entry": run.metrics["history"][-1],
    }


def _digest(weights: dict[str, Any]) -> str:
    """Hash of all weights: equal only where each bit is."""
    from hashlib import sha256

    made = sha256()
    for name in sorted(weights):
        made.update(name.encode())
        made.update(weights[name].contiguous().view(-1).numpy().tobytes())
    return made.hexdigest()


def main() -> None:
    """Reads the job, trains, and prints the result."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not mix with the answer
    result = train(json.load(sys.stdin))
    import torch.distributed as dist

    if dist.is_initialized():
        result["backend"] = dist.get_backend()
        dist.destroy_process_group()
    answers.write(json.dumps(result) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
