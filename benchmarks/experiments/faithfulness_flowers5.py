"""What explanations are worth on flowers5: every method on a ViT and on a CNN that were trained on it.

    vithub finetune --preset finetune --model vit_small_patch14 --data flowers5 --image-size 224 --output vit
    vithub finetune --preset finetune --model tf_efficientnet_lite0 --data flowers5 --output cnn
    python benchmarks/experiments/faithfulness_flowers5.py --data flowers5 --models vit=vit cnn=cnn --images 150 --bf16

The photos are the first ones of each class of the test split, taken class by class in turn. Methods are measured some
at a time, beside the random map, and each is kept in the cache when it is done. What is there for the same weights,
protocol and photos is not measured again: an interrupted run goes on, and methods can be added. With `--bf16` all is
computed in bf16, explanations too.
"""

import argparse
import hashlib
import json
from itertools import chain, zip_longest
from pathlib import Path

import torch
from vithub.data.image_processing import resize_image_processor
from vithub.data.images import decode_image
from vithub.data.labelled.tables import load_image_data
from vithub.interpretability.capture.architecture import read_architecture
from vithub.interpretability.faithfulness.result import RANDOM, Faithfulness
from vithub.training.tasks.classification.loading import load_classifier

import vithub


def photos(data: str, count: int) -> list[tuple[int, int, bytes]]:
    """Row, label and encoded image of `count` test photos, class by class in turn."""
    table = load_image_data(data).test
    assert table is not None
    labels = list(table["label"])
    by_class = [[row for row, label in enumerate(labels) if label == each] for each in sorted(set(labels))]
    rows = [row for row in chain.from_iterable(zip_longest(*by_class)) if row is not None][:count]
    return [(row, labels[row], table[row]["image"]) for row in rows]


def key_of(folder: Path, *choices: object) -> str:
    """What a cached result depends on: the weights, and choices that JSON can hold."""
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes())
    digest.update(json.dumps(choices).encode())
    return digest.hexdigest()[:16]


def measure(name: str, folder: Path, options: argparse.Namespace, chosen: list[tuple[int, int, bytes]]) -> Faithfulness:
    """All methods of one model, from the cache as far as they are in it."""
    model, processor = load_classifier(folder)
    if options.image_size and read_architecture(model).kind == "vit":
        model = vithub.load(folder, image_size=options.image_size).eval()
        processor = resize_image_processor(processor, (options.image_size, options.image_size))
    model = model.to(torch.bfloat16 if options.bf16 else torch.float32)
    protocol = vithub.FaithfulnessProtocol(
        steps=10, sanity_images=options.sanity_images, integration_steps=options.integration_steps,
        precision="bf16" if options.bf16 else "fp32",
    )  # fmt: skip
    rows = [row for row, _, _ in chosen]
    pixels = torch.cat([processor(decode_image(image), return_tensors="pt")["pixel_values"] for *_, image in chosen])
    side = pixels.shape[-1]
    with torch.inference_mode():
        answers = torch.cat([model(part.to(model.dtype)).logits for part in pixels.split(options.batch)]).argmax(dim=1)
    right = int((answers == torch.tensor([label for _, label, _ in chosen])).sum())
    print(f"{name}: {len(rows)} photos of {side} pixels, {right} of them classified rightly", flush=True)
    attends = read_architecture(model).kind == "vit"
    fitting = [key for key, method in vithub.EXPLANATION_METHODS.items() if attends or not method.needs_attention]
    asked = [RANDOM, *(key for key in options.methods or fitting if key in fitting and key != RANDOM)]
    keys = {method: key_of(folder, method, protocol.id, rows, side, options.bf16) for method in asked}
    files = {method: Path(options.cache) / f"{name}-{method}-{key}.json" for method, key in keys.items()}
    missing = [] if options.cached_only else [method for method in asked if not files[method].is_file()]
    for start in range(0, len(missing), options.at_once):
        group = missing[start : start + options.at_once]
        result = vithub.faithfulness(model, pixels, group, protocol=protocol, batch_size=options.batch, progress=True)
        for method in {*group, RANDOM}:
            alone = Faithfulness(protocol, result.model, result.images, {method: result.methods[method]})
            files[method].parent.mkdir(parents=True, exist_ok=True)
            alone.save(files[method])
            print(f"{name} {method}: {result.methods[method].seconds_per_image:.2f} s/image", flush=True)
    found = Faithfulness(protocol, type(model).__name__, len(rows))
    for method in [*asked[1:], RANDOM]:  # the random map last
        if files[method].is_file():
            stored = Faithfulness.from_dict(json.loads(files[method].read_text(encoding="utf-8")))
            found.methods[method] = stored.methods[method]
    return found


def main() -> None:
    """Measures what is not in the cache yet, and writes tables, figures and pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--models", nargs="+", required=True, metavar="NAME=FOLDER")
    parser.add_argument("--images", type=int, default=150)
    parser.add_argument("--image-size", type=int, help="pixels that the ViT is shown; default: its own")
    parser.add_argument("--sanity-images", type=int, default=16)
    parser.add_argument("--integration-steps", type=int, default=32)
    parser.add_argument("--batch", type=int, default=5)
    parser.add_argument("--at-once", type=int, default=4, help="methods that are measured beside one random map")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--methods", nargs="+")
    parser.add_argument("--cached-only", action="store_true", help="write what is in the cache, measure nothing")
    parser.add_argument("--cache", default="runs/faithfulness_cache")
    parser.add_argument("--results", default="benchmarks/results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    chosen = photos(options.data, options.images)
    file = Path(options.results) / "faithfulness_flowers5.json"
    results = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    for entry in options.models:
        name, folder = entry.split("=", 1)
        result = measure(name, Path(folder), options, chosen)
        results[name] = {**result.to_dict(), "rows": [row for row, *_ in chosen]}
        for theme in ("light", "dark"):
            result.save(Path(options.results) / f"faithfulness_flowers5_{name}_{theme}.png", theme=theme)
        print(result.to_markdown(), flush=True)
        file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
