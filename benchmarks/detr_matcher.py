"""Speed of our matcher against transformers', in one run: python benchmarks/detr_matcher.py

Both match the same random predictions of a batch, in turn, so that a busy machine slows both; medians are compared.
"""

import argparse
import statistics
import time

import torch
from transformers.loss.loss_for_object_detection import HungarianMatcher
from vithub.configuration.configuration_detr import HubDetrConfig
from vithub.modeling.detr_matcher import match_queries
from vithub.modeling.detr_targets import pad_targets


def compare(images: int, queries: int, boxes: int, layers: int, repeats: int) -> tuple[float, float, float]:
    """Median seconds of theirs and of ours, and the median of the ratios of neighbouring runs."""
    generator = torch.Generator().manual_seed(0)
    config = HubDetrConfig(num_labels=91)
    logits = torch.randn(layers, images, queries, config.num_class_logits, generator=generator)
    predicted = torch.rand(layers, images, queries, 4, generator=generator) * 0.5 + 0.2
    labels = [
        {
            "class_labels": torch.randint(0, 91, (boxes,), generator=generator),
            "boxes": torch.rand(boxes, 4, generator=generator) * 0.5 + 0.2,
        }
        for _ in range(images)
    ]
    matcher = HungarianMatcher(class_cost=1, bbox_cost=5, giou_cost=2)
    theirs, ours = [], []
    for _ in range(repeats):
        start = time.perf_counter()
        for layer in range(layers):
            expected = matcher({"logits": logits[layer], "pred_boxes": predicted[layer]}, labels)
        theirs.append(time.perf_counter() - start)
        start = time.perf_counter()
        matches = match_queries(logits, predicted, pad_targets(labels, logits.device), config)
        ours.append(time.perf_counter() - start)
    last = matches.layer == layers - 1
    assert matches.query[last].tolist() == torch.cat([query for query, _ in expected]).tolist()
    ratios = [slow / fast for slow, fast in zip(theirs, ours, strict=True)]
    return statistics.median(theirs), statistics.median(ours), statistics.median(ratios)


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=16, help="images in a batch")
    parser.add_argument("--repeats", type=int, default=30, help="runs of each")
    arguments = parser.parse_args()
    print("| queries | boxes | layers | transformers, ms | vithub, ms | ratio |\n|---|---|---|---|---|---|")
    for queries, boxes, layers in ((100, 7, 1), (100, 7, 6), (300, 20, 1), (300, 20, 6)):
        slow, fast, ratio = compare(arguments.images, queries, boxes, layers, arguments.repeats)
        print(f"| {queries} | {boxes} | {layers} | {slow * 1e3:.1f} | {fast * 1e3:.1f} | {ratio:.1f} |", flush=True)


if __name__ == "__main__":
    main()
