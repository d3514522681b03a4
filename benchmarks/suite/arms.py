"""What each contender does in one step of a case: a function `(library, size, folder) -> step` per case.

A size is "tiny" (a test), "short" (`make benchmark`) or "full". Contenders of a case have models of the same shape and
get the same inputs.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Step = Callable[[], object]
TRIO = ("vithub", "transformers", "timm")
PAIR = ("vithub", "transformers")
VIT_S = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "intermediate_size": 1536}
TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
TINY_RESNET = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 1],
               "layer_type": "basic", "out_features": ["stage4"]}  # fmt: skip


def vit(library: str, size: str, side: int | None = None, depth: int | None = None) -> Any:
    """A ViT-S/16 (a tiny one for tests) of a library, random weights."""
    import torch

    torch.manual_seed(0)
    shape = dict(TINY if size == "tiny" else VIT_S)
    shape["num_hidden_layers"] = depth or shape["num_hidden_layers"]
    side, patch = side or (32 if size == "tiny" else 224), 8 if size == "tiny" else 16
    fields: dict[str, Any] = {**shape, "image_size": side, "patch_size": patch, "num_labels": 1000}
    if library == "vithub":
        import vithub

        return vithub.HubViTForImageClassification(vithub.HubViTConfig(**fields)).eval()
    if library == "transformers":
        from transformers import ViTConfig, ViTForImageClassification

        return ViTForImageClassification(ViTConfig(**fields)).eval()
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(
        img_size=side, patch_size=patch, embed_dim=shape["hidden_size"], depth=shape["num_hidden_layers"],
        num_heads=shape["num_attention_heads"],
    ).eval()  # fmt: skip


def pixels(count: int, side: int) -> Any:
    """Random pixels (count, 3, side, side), the same in every process."""
    import torch

    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(0))


def _side(size: str) -> int:
    return 32 if size == "tiny" else 224


def _dtype() -> Any:
    """Number format of inference and training, which `benchmarks/run.py` chooses: torch.bfloat16 or torch.float32."""
    import torch

    return torch.bfloat16 if os.environ.get("BENCHMARK_PRECISION") == "bf16" else torch.float32


def inference(batch: int) -> Callable[[str, str, Path], Step]:
    """Forward passes of `batch` images."""

    def build(library: str, size: str, folder: Path) -> Step:
        import torch

        del folder
        dtype = _dtype()
        model = vit(library, size).to(dtype)
        images = pixels(2 if size == "tiny" else batch, _side(size)).to(dtype)
        return torch.inference_mode()(lambda: model(images))

    return build


def training(library: str, size: str, folder: Path) -> Step:
    """Forward and backward pass and AdamW on 16 images; under autocast in bf16."""
    import torch

    del folder
    model, count = vit(library, size).train(), 2 if size == "tiny" else 16
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    images, labels = pixels(count, _side(size)), torch.arange(count)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=_dtype() is torch.bfloat16):
            outputs = model(images)
        logits = outputs if isinstance(outputs, torch.Tensor) else outputs.logits
        torch.nn.functional.cross_entropy(logits.float(), labels).backward()
        optimizer.step()

    return step


def resolution(library: str, size: str, folder: Path) -> Step:
    """Forward pass of one image of twice the side: four times the tokens."""
    return _forward(vit(library, size, side=2 * _side(size)), 2 * _side(size), 1, folder)


def depth(library: str, size: str, folder: Path) -> Step:
    """Forward pass of one image through twice the layers."""
    layers = 2 * (TINY if size == "tiny" else VIT_S)["num_hidden_layers"]
    return _forward(vit(library, size, depth=layers), _side(size), 1, folder)


def _forward(model: Any, side: int, count: int, folder: Path) -> Step:
    import torch

    del folder
    images = pixels(count, side)
    return torch.inference_mode()(lambda: model(images))


def matcher(library: str, size: str, folder: Path) -> Step:
    """Matching of 100 queries to 7 boxes an image, 16 images, 6 layers."""
    import torch

    del folder
    layers, images, queries = (2, 2, 10) if size == "tiny" else (6, 16, 100)
    draws = torch.Generator().manual_seed(0)
    logits = torch.randn(layers, images, queries, 92, generator=draws)
    boxes = torch.rand(layers, images, queries, 4, generator=draws) * 0.2 + 0.3
    labels = box_labels(images)
    if library == "vithub":
        from vithub.configuration.configuration_detr import HubDetrConfig
        from vithub.modeling.detr_matcher import match_queries
        from vithub.modeling.detr_targets import pad_targets

        config = HubDetrConfig(num_labels=91)
        return lambda: match_queries(logits, boxes, pad_targets(labels, logits.device), config)
    from transformers.loss.loss_for_object_detection import HungarianMatcher

    theirs = HungarianMatcher(class_cost=1, bbox_cost=5, giou_cost=2)
    return lambda: [theirs({"logits": logits[n], "pred_boxes": boxes[n]}, labels) for n in range(layers)]


def box_labels(images: int) -> list[dict[str, Any]]:
    """Seven boxes for each image."""
    import torch

    draws = torch.Generator().manual_seed(1)
    return [
        {
            "class_labels": torch.randint(5, (7,), generator=draws),
            "boxes": torch.rand(7, 4, generator=draws) * 0.2 + 0.3,
        }
        for _ in range(images)
    ]


def detr_model(library: str, size: str) -> Any:
    """A DETR on a ResNet of 18 layers (tiny ones for tests) of a library, random weights, all of it trained."""
    import torch

    torch.manual_seed(0)
    resnet = TINY_RESNET if size == "tiny" else {**TINY_RESNET, "embedding_size": 64, "depths": [2, 2, 2, 2],
                                                 "hidden_sizes": [64, 128, 256, 512]}  # fmt: skip
    shape: dict[str, Any] = {"d_model": 32 if size == "tiny" else 256, "num_queries": 100, "auxiliary_loss": True}
    shape |= {"encoder_layers": 1, "decoder_layers": 2} if size == "tiny" else {}
    # stated, as only ours has the paper's three by default, and each keeps masks and outputs for the backward pass
    shape |= dict.fromkeys(("dropout", "attention_dropout", "activation_dropout"), 0.1)
    if library == "vithub":
        import vithub

        config = vithub.HubDetrConfig(**shape, num_labels=5, backbone_config=dict(resnet), frozen_stages=0)
        return vithub.HubDetrForObjectDetection(config).train()
    from transformers import DetrConfig, DetrForObjectDetection, ResNetConfig

    backbone = ResNetConfig(**{key: value for key, value in resnet.items() if key != "model_type"})
    model = DetrForObjectDetection(DetrConfig(**shape, num_labels=5, backbone_config=backbone, use_timm_backbone=False))
    return model.requires_grad_(True).train()


def detr_batch(size: str) -> dict[str, Any]:
    """Two random images with seven boxes each, as keyword arguments of a DETR."""
    return {"pixel_values": pixels(2, 64 if size == "tiny" else 320), "labels": box_labels(2)}


def detr(library: str, size: str, folder: Path) -> Step:
    """Training step of a DETR with auxiliary losses on two images, fp32, all of it trained."""
    import torch

    del folder
    model, batch = detr_model(library, size), detr_batch(size)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-6)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        model(**batch).loss.backward()
        optimizer.step()

    return step


def explanation(library: str, size: str, folder: Path) -> Step:
    """Attention of every layer for one image: our rollout, against `output_attentions` in eager mode."""
    import torch

    del folder
    model, image = vit(library, size), pixels(1, _side(size))
    if library == "vithub":
        import vithub

        return lambda: vithub.explain(model, image, "rollout")
    model.set_attn_implementation("eager")
    return torch.no_grad()(lambda: model(image, output_attentions=True).attentions)


def prediction(library: str, size: str, folder: Path) -> Step:
    """Prediction of a folder of JPEG files with the same saved model: ours, against `pipeline`."""
    from PIL import Image

    saved, photos = folder / "saved", folder / "photos"
    if not photos.is_dir():
        from vithub.data.image_processing import build_image_processor

        vit("vithub", size).save_pretrained(saved)
        build_image_processor((_side(size), _side(size))).save_pretrained(saved)
        photos.mkdir()
        draws = np.random.default_rng(0)
        for number in range(4 if size == "tiny" else 64):
            coarse = draws.integers(0, 255, (15, 20, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize((320, 240)).save(photos / f"{number}.jpg")
    if library == "vithub":
        import vithub

        return lambda: vithub.predict(saved, photos, batch_size=16)
    from transformers import pipeline

    import vithub  # so that the saved model is known without remote code

    classifier = pipeline("image-classification", model=str(saved), device="cpu", batch_size=16)
    files = sorted(map(str, photos.glob("*.jpg")))
    return lambda: classifier(files)


def conversion(library: str, size: str, folder: Path) -> Step:
    """Conversion of a model of timm into a folder of ours."""
    import shutil

    import vithub

    model, target = vit("timm", size), folder / f"converted-{library}"

    def step() -> None:
        shutil.rmtree(target, ignore_errors=True)
        vithub.convert(model, target)

    return step


def start(words: dict[str, list[str]]) -> Callable[[str, str, Path], Step]:
    """A process from its start to its end."""

    def build(library: str, size: str, folder: Path) -> Step:
        del size, folder
        environment = os.environ | {"HF_HUB_OFFLINE": "1"}
        command = [str(Path(sys.executable).with_name(words[library][0])), *words[library][1:]]
        return lambda: subprocess.run(command, check=True, capture_output=True, env=environment)

    return build


def finetuning(library: str, size: str, folder: Path) -> Step:
    """A whole finetuning on the digits to an accuracy: the step raises where it is not reached."""
    import vithub

    del library
    epochs, wanted = {"tiny": (1, 0.0), "short": (12, 0.7), "full": (30, 0.9)}[size]
    made: list[Path] = []

    def step() -> None:
        made.append(folder / f"run-{len(made)}")
        values = {"training.trackers": [], "training.max_steps": 3} if size == "tiny" else {"training.trackers": []}
        run = vithub.finetune(output=made[-1], preset="digits", epochs=epochs, values=values)
        reached = run.metrics["history"][-1]["validation_accuracy"]
        if reached < wanted:
            raise RuntimeError(f"the accuracy is {reached:.1%}, {wanted:.0%} was to be reached")

    return step


IMPORTS = {name: ["python", "-c", f"import {name}"] for name in TRIO}
# Name of the case, its contenders with ours first, how a step is built, images of a step (0: seconds are shown).
CASES: dict[str, tuple[tuple[str, ...], Callable[[str, str, Path], Step], int]] = {
    "inference-1": (TRIO, inference(1), 1),
    "inference-16": (TRIO, inference(16), 16),
    "inference-64": (TRIO, inference(64), 64),
    "training-step": (TRIO, training, 16),
    "detr-step": (PAIR, detr, 2),
    "matcher": (PAIR, matcher, 0),
    "predict-folder": (PAIR, prediction, 64),
    "explanation": (PAIR, explanation, 0),
    "conversion": (("vithub",), conversion, 0),
    "resolution-448": (TRIO, resolution, 1),
    "depth-24": (TRIO, depth, 1),
    "help": (("vithub", "hf"), start({"vithub": ["vithub", "--help"], "hf": ["hf", "--help"]}), 0),
    "import": (TRIO, start(IMPORTS), 0),
    "finetuning": (("vithub",), finetuning, 0),
}
