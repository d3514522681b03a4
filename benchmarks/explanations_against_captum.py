"""Integrated gradients and occlusion of this package beside those of captum, on the same models and images.

    pip install --target captum --no-deps captum==0.9.0
    PYTHONPATH=captum python benchmarks/explanations_against_captum.py \\
        --output benchmarks/results/explanations_against_captum.json

captum is no dependency of this package; besides torch it needs matplotlib, numpy, packaging and tqdm, which are there.
Integrated gradients: `IntegratedGradients(method="riemann_middle", n_steps=50)`, summed over channels, against
`explain(..., steps=50)`. Occlusion: `FeatureAblation` with a mask of patches against the grid of `explain`. Both take
zero for the baseline. Models have random weights (seed 0), images are noise, all in fp32 on one thread; reported is
the largest difference of two maps, and the largest value in them.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torchvision
from captum.attr import FeatureAblation, IntegratedGradients

import vithub

SIZE, STEPS, QUERY = 56, 50, 3
Scores = Callable[[torch.Tensor], torch.Tensor]


def models() -> dict[str, tuple[torch.nn.Module, Scores, dict[str, Any]]]:
    """A ViT, a CNN and a detector: the model, its scores (B, L) for captum, and further options of `explain`."""
    torch.manual_seed(0)
    vit = vithub.HubDeiTForImageClassification(
        vithub.HubDeiTConfig.preset("Ti", image_size=SIZE, patch_size=8, num_labels=10)
    ).eval()
    cnn = torchvision.models.resnet18(num_classes=10).eval()
    backbone = {"model_type": "resnet", "layer_type": "basic", "depths": [2, 2, 2, 2], "embedding_size": 64,
                "hidden_sizes": [64, 128, 256, 512], "out_features": ["stage4"]}  # fmt: skip
    detr = vithub.HubDetrForObjectDetection(
        vithub.HubDetrConfig(backbone_config=backbone, encoder_layers=2, decoder_layers=2, num_queries=10, num_labels=9)
    ).eval()
    return {
        "DeiT-Ti/8": (vit, lambda pixels: vit(pixels).logits, {}),
        "ResNet-18 of torchvision": (cnn, cnn, {}),
        "DETR on a ResNet-18, query 3": (detr, lambda pixels: detr(pixels).logits[:, QUERY], {"query": QUERY}),
    }


def compared(ours: torch.Tensor, theirs: torch.Tensor) -> dict[str, float]:
    """The largest difference of two maps, and the largest value."""
    return {"difference": float((ours - theirs).abs().max()), "largest": float(theirs.abs().max())}


def integrated(model: torch.nn.Module, scores: Scores, images: torch.Tensor, target: int, options: Any) -> Any:
    """Integrated gradients of both, per pixel."""
    theirs = IntegratedGradients(scores).attribute(
        images, baselines=0, target=target, n_steps=STEPS, method="riemann_middle", internal_batch_size=len(images)
    )
    ours = vithub.explain(model, images, "integrated_gradients", target=target, steps=STEPS, **options).maps
    return compared(ours, theirs.sum(dim=1).detach())


def occluded(model: torch.nn.Module, scores: Scores, images: torch.Tensor, target: int, options: Any) -> Any:
    """Occlusion of both, per cell of the grid."""
    ours = vithub.explain(model, images, "occlusion", target=target, **options).grid
    _, rows, columns = ours.shape
    cells = torch.arange(rows * columns).view(1, 1, rows, columns)
    mask = cells.repeat_interleave(SIZE // rows, 2).repeat_interleave(SIZE // columns, 3)
    with torch.no_grad():
        theirs = FeatureAblation(scores).attribute(images, baselines=0, target=target, feature_mask=mask)
    corners = theirs[:, 0, :: SIZE // rows, :: SIZE // columns]  # a cell has one value
    return compared(ours, corners)


def main() -> None:
    """Compares all, and prints or writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2, help="images for each model (2)")
    parser.add_argument("--output", type=Path, help="JSON file; printed otherwise")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    images = torch.randn(arguments.images, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    result = {}
    for name, (model, scores, options) in models().items():
        result[name] = {
            "integrated gradients": integrated(model, scores, images, 1, options),
            "occlusion": occluded(model, scores, images, 1, options),
        }
        print(name, result[name], flush=True)
    text = json.dumps({"captum": "0.9.0", "images": arguments.images, "models": result}, indent=1) + "\n"
    if arguments.output:
        arguments.output.write_text(text, encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main()
