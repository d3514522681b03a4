"""One process under a launcher: NCCL (gloo on a CPU), DDP and FSDP2 against the plain model."""

import os
import socket
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from check import (
    GRADIENT_TOLERANCE,
    LOSS_TOLERANCE,
    Check,
    Record,
    elsewhere,
    exact_products,
    largest_relative,
    not_available,
)
from check import verdict as judged
from phase_models import SMALL, TINY
from phase_training import job, plain_run
from torch import nn

FSDP2 = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_TRANSFORMER_CLS_TO_WRAP": "HubViTLayer",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
}


def launched() -> dict[str, str]:
    """Environment variables that a launcher sets for its only process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
    return {**ranks, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def wrapped_models_have_the_gradients_of_the_plain_one(check: Check) -> Iterator[Record]:
    """Loss and gradients under DDP and FSDP2 in one process, over NCCL on a GPU and gloo on a CPU."""
    from torch.distributed.fsdp import fully_shard
    from torch.nn.parallel import DistributedDataParallel

    exact_products()
    before = dict(os.environ)
    os.environ.update(launched())
    device = torch.device("cuda", 0) if check.gpu else torch.device("cpu")
    dist.init_process_group("nccl" if check.gpu else "gloo")
    try:
        plain, inputs = _model(check, device)
        wanted = _gradients(plain, plain, inputs)
        sharded, _ = _model(check, device)
        for layer in sharded.vit.layers:
            fully_shard(layer)
        copied, _ = _model(check, device)
        pairs = {
            "ddp": (DistributedDataParallel(copied), copied),
            "fsdp2": (fully_shard(sharded), sharded),
        }
        for name, (runner, inner) in pairs.items():
            found = _gradients(runner, inner, inputs)
            largest = max(gradient.abs().max().item() for gradient in wanted.values())
            worst = max((found[key] - wanted[key]).abs().max().item() / largest for key in wanted)
            yield judged(worst <= GRADIENT_TOLERANCE, wrapper=name, backend=dist.get_backend(), gradients_differ=worst)
    finally:
        dist.destroy_process_group()
        os.environ.clear()
        os.environ.update(before)


def _model(check: Check, device: torch.device) -> tuple[Any, dict[str, torch.Tensor]]:
    import vithub

    torch.manual_seed(0)
    model = vithub.HubViTForImageClassification(vithub.HubViTConfig(**(TINY if check.tiny else SMALL), num_labels=5))
    side = 32 if check.tiny else 224
    inputs = {"pixel_values": torch.randn(4, 3, side, side), "labels": torch.arange(4)}
    return model.to(device).train(), {name: value.to(device) for name, value in inputs.items()}


def _gradients(runner: nn.Module, inner: nn.Module, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    runner(**inputs).loss.backward()
    found = {}
    for name, parameter in inner.named_parameters():
        gradient: Any = parameter.grad
        if gradient is not None:
            found[name] = (gradient.full_tensor() if hasattr(gradient, "full_tensor") else gradient).cpu().clone()
    return found


def a_launched_run_gives_the_losses_of_a_plain_one(check: Check) -> Iterator[Record]:
    """Losses of `finetune` as one process of a launcher, with DDP and with FSDP2, against the same without."""
    if not check.gpu:
        yield not_available("on CPUs Accelerate takes one process for none; tests run two")
        return
    plain = plain_run(check)
    for name, environment in {"ddp": {}, "fsdp2": FSDP2}.items():
        found = elsewhere(job(check, name), launched() | environment)
        difference = largest_relative(found["losses"], plain["losses"])
        yield judged(
            difference <= LOSS_TOLERANCE and found.get("backend") is not None, wrapper=name, losses_differ=difference,
            backend=found.get("backend"), tolerance=LOSS_TOLERANCE,
        )  # fmt: skip


STEPS = (wrapped_models_have_the_gradients_of_the_plain_one, a_launched_run_gives_the_losses_of_a_plain_one)
