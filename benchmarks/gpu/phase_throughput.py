"""Images per second of ViT-S/16 and ViT-B/16 at 224 pixels in bf16, ours beside transformers' and timm's, synthetic."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from check import Check, Record, in_turns, measured, speeds
from torch import nn

# Width, layers, heads, timm's name, images per step.
SIZES = {"S": (384, 12, 6, "vit_small_patch16_224", 256), "B": (768, 12, 12, "vit_base_patch16_224", 128)}
PEERS = ("vithub", "transformers", "timm")
LABELS = 1000


def build(library: str, size: str, check: Check, drop_path: float = 0.0) -> nn.Module:
    """A library's ViT with random weights, on the device."""
    width, depth, heads, timm_name, _ = SIZES[size]
    side, patch = 224, 16
    if check.tiny:
        width, depth, heads, side, patch = 32, 2, 4, 32, 8
    shape = {
        "hidden_size": width, "num_hidden_layers": depth, "num_attention_heads": heads, "intermediate_size": 4 * width,
        "image_size": side, "patch_size": patch, "num_labels": LABELS, "attn_implementation": "sdpa",
    }  # fmt: skip
    torch.manual_seed(0)
    model: nn.Module
    if library == "vithub":
        import vithub

        model = vithub.HubViTForImageClassification(vithub.HubViTConfig(**shape, drop_path_rate=drop_path))
    elif library == "transformers":
        from transformers import ViTConfig, ViTForImageClassification

        model = ViTForImageClassification(ViTConfig(**shape))
    else:
        import timm

        sizes = {"embed_dim": width, "depth": depth, "num_heads": heads, "patch_size": patch} if check.tiny else {}
        model = timm.create_model(timm_name, img_size=side, num_classes=LABELS, drop_path_rate=drop_path, **sizes)
    return model.to(check.device)


def batch(size: str, check: Check) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels and labels of a step, on the device."""
    count, side = (2, 32) if check.tiny else (SIZES[size][4], 224)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(count, 3, side, side, generator=generator)
    return pixels.to(check.device), torch.randint(LABELS, (count,), generator=generator).to(check.device)


def training_step(model: nn.Module, pixels: torch.Tensor, labels: torch.Tensor, check: Check) -> Callable[[], object]:
    """Forward pass in bf16, cross-entropy, backward pass and fused AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    kind = check.device.split(":")[0]
    model.train()

    def step() -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(kind, torch.bfloat16):
            outputs = model(pixels)
            logits: Any = outputs if isinstance(outputs, torch.Tensor) else outputs.logits
            loss = nn.functional.cross_entropy(logits.float(), labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def inference_step(model: nn.Module, pixels: torch.Tensor, check: Check) -> Callable[[], object]:
    """Forward pass in bf16 autocast without gradients."""
    kind = check.device.split(":")[0]
    model.eval()

    @torch.inference_mode()
    def step() -> object:
        model.eval()
        with torch.autocast(kind, torch.bfloat16):
            return model(pixels)

    return step


def training_in_eager_mode(check: Check) -> Iterator[Record]:
    """Training step of each library, in turns; ours with stochastic depth as well."""
    for size in SIZES:
        pixels, labels = batch(size, check)
        arms, peaks = {}, {}
        for name in (*PEERS, "vithub, drop path 0.1"):
            model = build(name.split(",")[0], size, check, 0.1 if "drop path" in name else 0.0)
            arms[name] = training_step(model, pixels, labels, check)
            peaks[name] = _peak(arms[name], check)
        found = in_turns(arms, check, rounds=5, seconds=0.7)
        yield measured(size=size, images=len(labels), **speeds(found, len(labels), "vithub"), added_memory_mb=peaks)


def _peak(step: Callable[[], object], check: Check) -> float | None:
    """Memory in MB that a step needs beyond what is there before it; None on a CPU."""
    if not check.gpu:
        step()
        return None
    step()
    check.wait()
    torch.cuda.reset_peak_memory_stats(check.device)
    before = torch.cuda.memory_allocated(check.device)
    step()
    check.wait()
    return round((torch.cuda.max_memory_allocated(check.device) - before) / 1e6, 1)


def inference_in_eager_mode(check: Check) -> Iterator[Record]:
    """Forward pass of each library, in turns, at one image and at a full batch."""
    for size in SIZES:
        models = {name: build(name, size, check) for name in PEERS}
        pixels, _ = batch(size, check)
        for count in (1, len(pixels)):
            arms = {name: inference_step(model, pixels[:count], check) for name, model in models.items()}
            found = in_turns(arms, check, rounds=5, seconds=0.3)
            yield measured(size=size, images=count, **speeds(found, count, "vithub"))


STEPS = (training_in_eager_mode, inference_in_eager_mode)
