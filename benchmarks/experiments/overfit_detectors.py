"""Small detectors of transformers, from random weights, learn 16 photos of blood cells by heart.

    python benchmarks/experiments/overfit_detectors.py --data bccd --types rt_detr --runs runs/overfit

A training that is wired wrongly (boxes in another format, classes exchanged, a loss that is divided wrongly, a
processor that serves other pixels than were trained on) does not get there. The model of each type begins from random
weights, is trained by `vithub finetune` with the preset `detr-pretrained` at a higher rate and without augmentation,
and is measured from its saved folder by `vithub evaluate`, on the photos that it was trained on. `seconds` are CPU
seconds.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
import transformers
from datasets import Dataset, DatasetDict, concatenate_datasets, load_dataset
from vithub.data.boxes.loading import load_box_data

import vithub

PHOTOS, COPIES, IMAGE_HW = 16, 8, (160, 224)
_RT = {
    "backbone_config": {
        "model_type": "rt_detr_resnet",
        "embedding_size": 32,
        "hidden_sizes": [32, 48, 64, 96],
        "depths": [1, 1, 1, 1],
        "layer_type": "basic",
        "out_features": ["stage2", "stage3", "stage4"],
    },
    "freeze_backbone_batch_norms": False,
    "encoder_in_channels": [48, 64, 96],
    "encoder_hidden_dim": 64,
    "encoder_ffn_dim": 128,
    "encoder_attention_heads": 4,
    "hidden_expansion": 0.5,
    "d_model": 64,
    "num_queries": 60,
    "decoder_in_channels": [64, 64, 64],
    "decoder_ffn_dim": 128,
    "decoder_layers": 2,
    "decoder_attention_heads": 4,
    "num_denoising": 60,
}
_HGNET = {
    "model_type": "hgnet_v2",
    "stem_channels": [3, 16, 32],
    "stage_in_channels": [32, 48, 64, 96],
    "stage_mid_channels": [32, 32, 48, 64],
    "stage_out_channels": [48, 64, 96, 128],
    "stage_num_blocks": [1, 1, 1, 1],
    "stage_numb_of_layers": [2, 2, 2, 2],
    "stage_downsample": [False, True, True, True],
    "stage_light_block": [False, False, True, True],
    "stage_kernel_size": [3, 3, 3, 3],
    "hidden_sizes": [48, 64, 96, 128],
    "depths": [1, 1, 1, 1],
    "embedding_size": 32,
    "out_features": ["stage2", "stage3", "stage4"],
}
_FINE = {
    **_RT, "backbone_config": _HGNET, "encoder_in_channels": [64, 96, 128], "depth_mult": 1.0, "lqe_hidden_dim": 32,
    "max_num_bins": 16,
}  # fmt: skip
_RF = {
    "backbone_config": {
        "model_type": "rf_detr_dinov2", "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4,
        "mlp_ratio": 2, "image_size": IMAGE_HW[1], "patch_size": 8, "num_windows": 2, "out_indices": [2, 4],
    },
    "hidden_expansion": 0.5, "c2f_num_blocks": 1, "d_model": 64, "decoder_ffn_dim": 128, "decoder_layers": 2,
    "decoder_self_attention_heads": 4, "decoder_cross_attention_heads": 4, "num_queries": 60, "group_detr": 3,
    "dropout": 0.0,
}  # fmt: skip
_CONDITIONAL = {
    "backbone_config": {
        "model_type": "resnet", "embedding_size": 32, "hidden_sizes": [32, 48, 64, 96], "depths": [1, 1, 1, 1],
        "layer_type": "basic", "out_features": ["stage3"],
    },
    "d_model": 64, "encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128, "num_queries": 60,
    "auxiliary_loss": True, "dropout": 0.0, "cls_loss_coefficient": 1,
}  # fmt: skip
_YOLOS = {
    "hidden_size": 96, "num_hidden_layers": 5, "num_attention_heads": 4, "intermediate_size": 192,
    "image_size": list(IMAGE_HW), "patch_size": 8, "num_detection_tokens": 60, "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}  # fmt: skip
FIELDS: dict[str, dict[str, Any]] = {
    "rt_detr": _RT, "rt_detr_v2": _RT, "d_fine": _FINE, "rf_detr": _RF, "conditional_detr": _CONDITIONAL,
    "yolos": _YOLOS,
}  # fmt: skip
KEEP_SHAPES = ("conditional_detr", "yolos")  # their processors keep the shapes of photos
_PROCESSORS = {
    "rf_detr": "RfDetrImageProcessor", "conditional_detr": "ConditionalDetrImageProcessor",
    "yolos": "YolosImageProcessor",
}  # fmt: skip


def start(model_type: str, names: list[str], folder: Path, image_hw: tuple[int, int] = IMAGE_HW) -> Path:
    """A detector with random weights, saved as a checkpoint would be, with its image processor."""
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(model_type, id2label=dict(enumerate(names)), **FIELDS[model_type])
    transformers.AutoModelForObjectDetection.from_config(config).save_pretrained(folder)
    sides = {"height": image_hw[0], "width": image_hw[1]}
    if model_type in KEEP_SHAPES:
        sides = {"shortest_edge": min(image_hw), "longest_edge": max(image_hw)}
    processor = getattr(transformers, _PROCESSORS.get(model_type, "RTDetrImageProcessor"))
    processor(size=sides).save_pretrained(folder)
    return folder


def photos(source: str) -> tuple[Dataset, Dataset]:
    """The 16 photos, and two others that the runs judge their epochs by, which is of no consequence here."""
    splits = load_dataset("parquet", data_files={"train": f"{source}/train-*.parquet"})
    return splits["train"].select(range(PHOTOS)), splits["train"].select(range(PHOTOS, PHOTOS + 2))


def numbered(photos: Dataset, first: int) -> Dataset:
    """Photos with other ids, of which each copy needs one."""
    return photos.map(lambda _, number: {"image_id": first + number}, with_indices=True)


def overfit(model_type: str, options: argparse.Namespace) -> dict[str, Any]:
    """Trains and measures a model type."""
    chosen = photos(options.data)
    few, others = numbered(chosen[0], 0), numbered(chosen[1], 1000)
    began, folder = time.process_time(), Path(options.runs) / model_type
    many = DatasetDict({"train": numbered(concatenate_datasets([few] * COPIES), 0), "validation": others})
    names = list(load_box_data(many, repair=True).classes.names)
    still: dict[str, Any] = {"boxes.batch_scale": (1.0, 1.0)}
    if model_type in KEEP_SHAPES:
        still = {"boxes.sides": (800,)}
    run = vithub.finetune(
        model=str(start(model_type, names, folder.with_name(f"{model_type}-start"))), data=many, output=folder,
        preset="detr-pretrained", epochs=options.epochs,
        values={
            "data.workers": 0, "boxes.horizontal_flip": 0.0, "boxes.color_jitter": 0.0,
            **still, "data.repair_boxes": True, "training.batch_size": 8, "training.lr": 2e-3,
            "training.backbone_lr": 2e-3, "training.clip_norm": 1.0, "training.ema_decay": 0.98,
            "training.weight_decay": 1e-4, "training.publish": "last", "training.precision": options.precision,
            "training.trackers": [], "training.keep_checkpoints": 1,
        },
    )  # fmt: skip
    seconds = time.process_time() - began
    measured = vithub.evaluate(
        run.folder,
        DatasetDict({"train": few, "validation": others}),
        "train",
        output=folder / "measured",
    )
    return {
        "steps": len(run.losses), "seconds": round(seconds), "first_loss": run.losses[0], "last_loss": run.losses[-1],
        "precision": options.precision, "parameters": run.metrics["parameters"], "images": measured["images"],
        "boxes": measured["boxes"], "map_50": measured["metrics"]["map_50"], "map": measured["metrics"]["map"],
    }  # fmt: skip


def main() -> None:
    """Trains the types that were asked for, and adds each to the file of results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of BCCD as Parquet files")
    parser.add_argument("--types", nargs="+", default=list(FIELDS), choices=list(FIELDS))
    parser.add_argument("--epochs", type=int, default=45, help="passes over 8 copies of the photos, 16 steps each")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="default: %(default)s")
    parser.add_argument("--runs", required=True, help="new folder for the runs")
    parser.add_argument("--output", default="benchmarks/results/overfit_detectors.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    file = Path(options.output)
    results = json.loads(file.read_text()) if file.is_file() else {"versions": {}, "types": {}}
    for model_type in options.types:
        results["types"][model_type] = overfit(model_type, options)
        results["versions"] = {"torch": torch.__version__, "transformers": transformers.__version__}
        file.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
