"""Speed of the pretrained models with short names on this machine: the figures of `vithub models`.

    python benchmarks/known_models.py --json benchmarks/results/known_models.json

Each model gets random weights, which are as fast as trained ones, and one image of the size that its weights were
trained on last, in float32. All models take one turn in each round, so that a busy moment meets all of them alike; the
figure is the median over the rounds. GMAC are thousands of millions of multiplications with their additions, of matrix
products and convolutions alone.
"""

import argparse
import json
import os
import statistics
import sys
import time
from importlib.metadata import version
from pathlib import Path

import timm
import torch
from torch.utils.flop_counter import FlopCounterMode
from vithub.hub.conversion.timm_configs import config_from_timm
from vithub.hub.known_models import KNOWN_MODELS, KnownModel
from vithub.training.runtime.environment import hardware

import vithub


def random_model(known: KnownModel) -> vithub.HubViTModel | vithub.HubDeiTModel:
    """Our backbone in the shape of a known model, with random weights."""
    with torch.device("meta"):
        source = timm.create_model(known.source.removeprefix("timm/"), pretrained=False)
    config = config_from_timm(source)
    backbone = vithub.HubDeiTModel if isinstance(config, vithub.HubDeiTConfig) else vithub.HubViTModel
    return backbone(config).eval()


def gmacs(known: KnownModel) -> float:
    """Thousands of millions of multiplications with their additions for one image, counted without computing any."""
    with torch.device("meta"):
        model = random_model(known)
        model.set_attn_implementation("eager")
        pixels = torch.zeros(1, 3, known.image_size, known.image_size)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(pixels)
    return counter.get_total_flops() / 2e9


@torch.inference_mode()
def rates(names: list[str], rounds: int) -> dict[str, float]:
    """Images per second of each model, one image at a time."""
    times: dict[str, list[float]] = {name: [] for name in names}
    models = {name: random_model(KNOWN_MODELS[name]) for name in names}
    for number in range(rounds + 1):
        for name, model in models.items():
            side = KNOWN_MODELS[name].image_size
            pixels = torch.randn(1, 3, side, side)
            begun = time.perf_counter()
            model(pixels)
            if number:  # the first turn lets libraries choose their kernels
                times[name].append(time.perf_counter() - begun)
    return {name: 1 / statistics.median(rows) for name, rows in times.items()}


def main() -> None:
    """Measures, prints and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=list(KNOWN_MODELS), default=list(KNOWN_MODELS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, default=Path("runs/known_models.json"))
    options = parser.parse_args()
    load = os.getloadavg()[0]
    measured = rates(options.models, options.rounds)
    rows = {
        name: {"gmacs": round(gmacs(KNOWN_MODELS[name]), 2), "images_per_second": float(f"{rate:.3g}")}
        for name, rate in measured.items()
    }
    about = {
        "date": time.strftime("%Y-%m-%d"), "command": f"python benchmarks/known_models.py --rounds {options.rounds}",
        "machine": hardware("cpu"), "load_before": round(load, 1), "precision": "fp32",
        "threads": torch.get_num_threads(), "torch": version("torch"), "models": rows,
    }  # fmt: skip
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    for name, row in rows.items():
        sys.stdout.write(f"{name:18s} {row['gmacs']:7.1f} GMAC {row['images_per_second']:8.3g} images/s\n")


if __name__ == "__main__":
    main()
