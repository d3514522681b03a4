"""Versions, rates of the card, and every public model: outputs and gradients on the card against those on the CPU."""

import platform
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from check import FP32_TOLERANCE, GRADIENT_TOLERANCE, Check, Record, exact_products, measured, relative_difference
from check import verdict as judged

SMALL = {"hidden_size": 192, "num_hidden_layers": 6, "num_attention_heads": 3, "intermediate_size": 768}
TINY = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip
RESNET = {"model_type": "resnet", "embedding_size": 16, "hidden_sizes": [16, 32, 64, 64], "depths": [1, 1, 1, 1],
          "layer_type": "basic", "out_features": ["stage4"]}  # fmt: skip
DETR = {"dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0, "num_labels": 5, "num_queries": 20,
        "frozen_stages": 0, "backbone_config": RESNET}  # fmt: skip
TINY_DETR = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 4,
             "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}  # fmt: skip
SMALL_DATA = {"anchor_queries": True, "denoising_queries": 8, "focal_loss": True}


def versions(check: Check) -> Record:
    """Versions of Python and the libraries, and the device."""
    found = {"python": platform.python_version()}
    for name in ("vithub", "torch", "transformers", "accelerate", "timm", "datasets", "torchvision"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    device: dict[str, Any] = {"name": check.device}
    if check.gpu:
        facts = torch.cuda.get_device_properties(check.device)
        device = {"name": facts.name, "memory_gb": round(facts.total_memory / 1e9, 1), "cuda": torch.version.cuda}
    return measured(versions=found, device=device)


def rates(check: Check) -> Record:
    """Matrix products in TFLOP/s, copies on the device and from the host in GB/s: the ceilings of what follows."""
    size = 256 if check.tiny else 8192
    figures: dict[str, Any] = {"product_size": size}
    exact_products()
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        left, right = (torch.randn(size, size, device=check.device, dtype=dtype) for _ in range(2))
        figures[f"{name}_tflops"] = round(2e-12 * size**3 / _seconds(lambda a=left, b=right: a @ b, check), 3)  # type: ignore[misc]
    count = 1 << (16 if check.tiny else 30)
    here, there = torch.ones(count, dtype=torch.uint8, device=check.device), torch.empty(0)
    there = torch.empty_like(here)
    figures["copy_gb_per_second"] = round(2e-9 * count / _seconds(lambda: there.copy_(here), check), 1)
    host = torch.ones(count // 4, dtype=torch.uint8)
    host = host.pin_memory() if check.gpu else host
    seconds = _seconds(lambda: there[: count // 4].copy_(host, non_blocking=True), check)
    return measured(**figures, host_to_device_gb_per_second=round(1e-9 * count / 4 / seconds, 1))


def _seconds(work: Any, check: Check) -> float:
    for _ in range(2):
        work()
    check.wait()
    begun, repeats = time.perf_counter(), 2 if check.tiny else 10
    for _ in range(repeats):
        work()
    check.wait()
    return (time.perf_counter() - begun) / repeats


def same_as_on_the_cpu(check: Check) -> Iterator[Record]:
    """Outputs and gradients of every public model in fp32, dropout off, with random weights."""
    exact_products()
    for name, (model, inputs) in _cases(check.tiny).items():
        outputs, gradients = _pass(model, inputs, "cpu")
        moved, parted = _pass(model, inputs, check.device)
        forward = max(relative_difference(a, b) for a, b in zip(moved, outputs, strict=True))
        largest = max(gradient.abs().max().item() for gradient in gradients.values())
        backward = {
            key: (parted[key].double().cpu() - value.double()).abs().max().item() / largest
            for key, value in gradients.items()
        }
        worst = max(backward, key=lambda key: backward[key])
        holds = forward <= FP32_TOLERANCE and backward[worst] <= GRADIENT_TOLERANCE and len(parted) == len(gradients)
        yield judged(
            holds, model=name, outputs_differ=forward, gradients_differ=backward[worst], worst_gradient=worst,
            tolerances=[FP32_TOLERANCE, GRADIENT_TOLERANCE],
        )  # fmt: skip


def _pass(model: Any, inputs: dict[str, Any], device: str) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
    """Float outputs in order and gradients by name, from one pass on a device; the model returns to the CPU."""
    model.to(device).zero_grad(set_to_none=True)
    torch.manual_seed(0)  # denoising draws its noise from here
    outputs = model(**_moved(inputs, device))
    tensors = [value for value in outputs.values() if isinstance(value, torch.Tensor) and value.is_floating_point()]
    total = outputs.loss if outputs.get("loss") is not None else sum(value.square().mean() for value in tensors)
    total.backward()
    gradients = {
        name: parameter.grad.detach().cpu().clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    found = [value.detach().cpu() for value in tensors]
    model.to("cpu")
    return found, gradients


def _moved(value: Any, device: str) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: _moved(part, device) for key, part in value.items()}
    return [_moved(part, device) for part in value]


def _cases(tiny: bool) -> dict[str, tuple[Any, dict[str, Any]]]:
    """Every public model class with inputs."""
    import vithub

    shape: dict[str, Any] = {**(TINY if tiny else SMALL), "num_labels": 5}
    generator = torch.Generator().manual_seed(0)
    side, batch = (32, 2) if tiny else (224, 4)
    pixels, labels = torch.randn(batch, 3, side, side, generator=generator), torch.arange(batch) % 5
    patches = (side // (8 if tiny else 16)) ** 2
    masked = torch.rand(batch, patches, generator=generator) < 0.5
    boxes = [
        {"class_labels": torch.tensor([0, 2]), "boxes": torch.tensor([[0.5, 0.5, 0.2, 0.2], [0.3, 0.3, 0.1, 0.4]])},
        {"class_labels": torch.tensor([1]), "boxes": torch.tensor([[0.5, 0.5, 0.9, 0.8]])},
    ]
    small_detr = {**DETR, **(TINY_DETR if tiny else {"d_model": 128, "encoder_layers": 3, "decoder_layers": 3})}
    images = torch.randn(2, 3, *((64, 96) if tiny else (256, 320)), generator=generator)
    vit, deit = vithub.HubViTConfig(**shape), vithub.HubDeiTConfig(**shape)
    torch.manual_seed(0)
    built = {
        "HubViTModel": (vithub.HubViTModel(vit), {"pixel_values": pixels}),
        "HubViTForImageClassification": (
            vithub.HubViTForImageClassification(vit), {"pixel_values": pixels, "labels": labels},
        ),
        "HubViTForMaskedImageModeling": (
            vithub.HubViTForMaskedImageModeling(vit), {"pixel_values": pixels, "bool_masked_pos": masked},
        ),
        "HubDeiTModel": (vithub.HubDeiTModel(deit), {"pixel_values": pixels}),
        "HubDeiTForImageClassification": (
            vithub.HubDeiTForImageClassification(deit), {"pixel_values": pixels, "labels": labels},
        ),
        "HubDetrModel": (vithub.HubDetrModel(vithub.HubDetrConfig(**small_detr)), {"pixel_values": images}),
        "HubDetrForObjectDetection": (
            vithub.HubDetrForObjectDetection(vithub.HubDetrConfig(**small_detr)),
            {"pixel_values": images, "labels": boxes},
        ),
        "HubDetrForObjectDetection, small data": (
            vithub.HubDetrForObjectDetection(vithub.HubDetrConfig(**small_detr, **SMALL_DATA)),
            {"pixel_values": images, "labels": boxes},
        ),
    }  # fmt: skip
    public = {name for name in vithub.__all__ if name.endswith("Model") or "For" in name}
    if missing := public - {name.split(",")[0] for name in built}:
        raise ValueError(f"no inputs are known for {', '.join(sorted(missing))}: add them to {__file__}")
    for model, _ in built.values():
        with torch.no_grad():  # no bias may stay 0 and no scale 1, or a mix-up would not be seen
            for parameter in model.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.02)
        model.eval()
    return built


STEPS = (versions, rates, same_as_on_the_cpu)
