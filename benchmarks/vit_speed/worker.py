"""One contender in a process of its own, driven over standard input and output.

Reads one JSON object per line: first the job, then requests ({"do": "check"}, {"do": "measure", "seconds": 5} or
{"do": "profile"}) until the input ends, and answers each request with one line. It computes only in between.
"""

import contextlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
TIMM_NAMES = {
    "Ti": "vit_tiny_patch16_224",
    "S": "vit_small_patch16_224",
    "B": "vit_base_patch16_224",
    "L": "vit_large_patch16_224",
    "H": "vit_huge_patch14_224",
}
NUM_LABELS = 1000
GEMM_SIZE = 4096  # M = N = K of the matrix product that gives the machine's rate
CHECKED_IMAGES = 2


def load_model(job: dict[str, Any]) -> Any:
    """The contender's model with the weights that all share; "vithub+choice" is ours with one choice undone."""
    library, _, variant = job["contender"].partition("+")
    folder = Path(job["weights"]) / library
    if library == "vithub":
        from vithub import HubViTForImageClassification

        if variant:
            from variants import VARIANTS

            VARIANTS.get(variant, lambda: None)()
        fields = {"attn_implementation": "sdpa", "drop_path_rate": job["drop_path"]}
        return HubViTForImageClassification.from_pretrained(folder, **fields)
    if library == "transformers":  # its ViT has no stochastic depth
        from transformers import ViTForImageClassification

        return ViTForImageClassification.from_pretrained(folder, attn_implementation="sdpa")
    import timm
    from safetensors.torch import load_file

    sizes = {"img_size": job["image_size"], "num_classes": NUM_LABELS, "drop_path_rate": job["drop_path"]}
    model = timm.create_model(TIMM_NAMES[job["model"]], **sizes)
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model


def make_batch(size: int, image_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The same pixels and labels in every process."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(size, 3, image_size, image_size, generator=generator)
    return pixels, torch.randint(NUM_LABELS, (size,), generator=generator)


def logits_of(model: Any, pixels: torch.Tensor) -> torch.Tensor:
    """(B, labels), whatever the library returns."""
    outputs = model(pixels)
    logits: torch.Tensor = outputs if isinstance(outputs, torch.Tensor) else outputs.logits
    return logits


def check(job: dict[str, Any]) -> dict[str, Any]:
    """What must agree between contenders: logits, loss and gradients in fp32; and how far bf16 is from them."""
    model = load_model(job).to(job["device"]).eval()
    pixels, labels = (tensor.to(job["device"]) for tensor in make_batch(CHECKED_IMAGES, job["image_size"]))
    logits = logits_of(model, pixels)
    loss = nn.functional.cross_entropy(logits, labels)
    loss.backward()
    if unused := [name for name, parameter in model.named_parameters() if parameter.grad is None]:
        raise RuntimeError(f"{job['contender']}: no gradient reaches {', '.join(unused)}")
    gradients = [parameter.grad for parameter in model.parameters()]
    with torch.no_grad():
        rounded = logits_of(model.bfloat16(), pixels.bfloat16()).float()
    return {
        "logits": logits.tolist(),
        "loss": loss.item(),
        "gradient_norm": torch.nn.utils.get_total_norm(gradients).item(),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "bf16_difference": (rounded - logits).abs().max().item(),
    }


def inference(job: dict[str, Any]) -> Callable[[], object]:
    """One forward pass, with weights and pixels in the job's precision."""
    dtype = DTYPES[job["precision"]]
    model = load_model(job).to(job["device"], dtype).eval()
    pixels = make_batch(job["batch_size"], job["image_size"])[0].to(job["device"], dtype)

    @torch.inference_mode()
    def step() -> torch.Tensor:
        return logits_of(model, pixels)

    return step


def training(job: dict[str, Any]) -> Callable[[], object]:
    """Forward, cross-entropy, backward and AdamW; bf16 is autocast over fp32 weights, or casts of master weights."""
    device, variant = job["device"], job["contender"].partition("+")[2]
    model = load_model(job).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    pixels, labels = (tensor.to(device) for tensor in make_batch(job["batch_size"], job["image_size"]))
    autocast = job["precision"] != "fp32" and "master-weights" not in variant
    if variant:
        from variants import OPTIONS

        model = OPTIONS.get(variant, lambda module: module)(model)

    def step() -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.split(":")[0], DTYPES[job["precision"]], enabled=autocast):
            logits = logits_of(model, pixels)
        loss = nn.functional.cross_entropy(logits.float(), labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def matrix_product(job: dict[str, Any]) -> Callable[[], object]:
    """One large square matrix product in the job's precision."""
    shape, options = (GEMM_SIZE, GEMM_SIZE), {"device": job["device"], "dtype": DTYPES[job["precision"]]}
    left, right, product = torch.randn(shape, **options), torch.randn(shape, **options), torch.empty(shape, **options)

    @torch.inference_mode()
    def step() -> torch.Tensor:
        return torch.mm(left, right, out=product)

    return step


def measure(step: Callable[[], object], device: str, seconds: float) -> dict[str, Any]:
    """Steps for at least so many seconds, and at least two, after one that is not counted."""
    synchronize = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    step()
    synchronize()
    start, others, faults, steps = time.perf_counter(), seconds_of_others(), page_faults(), 0
    while steps < 2 or time.perf_counter() - start < seconds:
        step()
        synchronize()
        steps += 1
    elapsed = time.perf_counter() - start
    others = (seconds_of_others() - others) / elapsed
    return {
        "steps_per_second": steps / elapsed,
        "steps": steps,
        "cores_of_others": max(0.0, others),
        "page_faults_per_step": (page_faults() - faults) / steps,
        **memory(device),
    }


def profile(step: Callable[[], object]) -> dict[str, float]:
    """Share of the processor time by operation, those above 1 %; the profiler's own cost is in it."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        step()
    times = {event.key: event.self_cpu_time_total for event in profiler.key_averages()}
    total = sum(times.values())
    shares = {name.removeprefix("aten::"): time / total for name, time in times.items() if time > 0.01 * total}
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def page_faults() -> int:
    """Pages of memory that the system has handed to this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def seconds_of_others() -> float:
    """Processor time that all but this process have used, that of other virtual machines included; Linux only."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return 0.0
    user, nice, system, _, _, irq, softirq, steal = map(int, stat.read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK") - time.process_time()


def memory(device: str) -> dict[str, float]:
    """Peak memory in MB: of the process, and of the GPU where there is one."""
    status = Path("/proc/self/status")
    if status.exists():
        peak = next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM:")) / 1e3
    else:
        unit = 1e6 if sys.platform == "darwin" else 1e3
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    figures = {"peak_memory_mb": peak}
    if device.startswith("cuda"):
        figures["peak_gpu_memory_mb"] = torch.cuda.max_memory_allocated(device) / 1e6
    return figures


def forget_peak() -> None:
    """Starts the process's peak memory anew, so that loading does not count; only Linux can."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def main() -> None:
    """Answers until the input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print must not mix with the answers
    job = json.loads(sys.stdin.readline())
    if job["threads"]:
        torch.set_num_threads(job["threads"])
    step: Callable[[], object] | None = None
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "check":
            answer = check(job)
        else:
            if step is None:
                kinds = {"inference": inference, "training": training}
                step = matrix_product(job) if job["contender"] == "gemm" else kinds[job["mode"]](job)
                forget_peak()
            measured = request["do"] == "measure"
            answer = measure(step, job["device"], request["seconds"]) if measured else profile(step)
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
