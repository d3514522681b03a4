"""Bytes that the processes of a training exchange in each step: counted in the distributed calls, and in closed form.

    python benchmarks/communication.py --processes 4                    # data parallel (DDP)
    python benchmarks/communication.py --processes 4 --sharding fsdp2

A tiny model trains on the digits for a few steps, over gloo on this machine's CPUs; the counts do not depend on that.
docs/scaling.md says what follows for many cards.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode  # its public documentation names no other; torch 2.8 to 2.14
from vithub.modeling.modeling_vit import HubViTLayer

# Argument of each distributed call that holds the whole message: what all cards together contribute or receive.
WHOLE = {
    "c10d.allreduce_": 0,
    "c10d._allgather_base_": 0,
    "c10d._reduce_scatter_base_": 1,
    "c10d.broadcast_": 0,
    "c10d.allgather_": 0,
    "c10d.scatter_": 0,
}
FSDP2 = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_TRANSFORMER_CLS_TO_WRAP": "HubViTLayer",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
}


def closed_form(
    model: nn.Module, processes: int, sharded: bool, pieces: int = 1, bytes_each: int = 4
) -> dict[str, int]:
    """Bytes of each kind of message in one optimizer step.

    Args:
        model: Model with whole parameters.
        processes: Number of processes N.
        sharded: Whether FSDP2 shards the parameters by layer and frees them after the forward pass; else DDP.
        pieces: Accumulation steps of the batch; FSDP2 gathers for each.
        bytes_each: Bytes of a number as it is sent; 4 for fp32.

    Returns:
        With DDP `allreduce`: each trained parameter once. With FSDP2 `allgather`: each parameter of a layer and of the
        patch embedding twice, for the forward and for the backward pass, and the rest once, as the outermost module
        keeps its own between the two; and `reduce_scatter`: each trained parameter once. The first dimension of each is
        rounded up to a multiple of N.
    """
    parameters = list(model.parameters())
    if not sharded:
        return {"allreduce": bytes_each * sum(p.numel() for p in parameters if p.requires_grad)}

    def padded(parameter: Any) -> int:
        rows = parameter.shape[0] if parameter.ndim else 1
        return -(-rows // processes) * processes * (parameter.numel() // max(rows, 1))

    wrapped = [module for module in model.modules() if isinstance(module, HubViTLayer)]
    wrapped.append(model.get_input_embeddings())  # type: ignore[operator]
    freed = {id(parameter) for module in wrapped for parameter in module.parameters()}
    return {
        "allgather": pieces * bytes_each * sum(padded(p) * (2 if id(p) in freed else 1) for p in parameters),
        "reduce_scatter": bytes_each * sum(padded(p) for p in parameters if p.requires_grad),
    }


class CountedCalls(TorchDispatchMode):
    """Counts the bytes of distributed calls by kind: `allreduce`, `allgather`, `reduce_scatter` and others."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Counts a distributed call and makes it."""
        name = str(func).removesuffix(".default")
        if name.startswith("c10d."):
            whole = args[WHOLE[name]] if name in WHOLE else []
            for tensor in _tensors(whole):
                self.bytes[name.removeprefix("c10d.").strip("_").removesuffix("_base")] += tensor.nbytes
        return func(*args, **(kwargs or {}))


def _tensors(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)
    else:
        yield value


@contextmanager
def counted_steps() -> Iterator[list[dict[str, int]]]:
    """Context in which each optimizer step of the Accelerate loop adds its bytes to the list."""
    from vithub.training.loop.accelerate_loop import AccelerateLoop

    made, steps = AccelerateLoop.step, []  # ours: one optimizer step

    def counted(self: Any, *arguments: Any) -> None:
        with CountedCalls() as calls:
            made(self, *arguments)
        steps.append(dict(calls.bytes))

    with patch.object(AccelerateLoop, "step", counted):
        yield steps


def train(output: str, pieces: int) -> None:
    """Trains as one process of a launch; the first writes what was counted, and what was to be expected."""
    import torch.distributed as dist

    import vithub

    shape = {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4}
    values = {"model.source": "deit-ti/4", "model.image_size": 16, "model.fields": shape, "training.max_steps": 4,
              "training.precision": "fp32", "training.batch_size": 16, "data.workers": 0, "training.trackers": [],
              "training.clip_norm": 1.0, "training.accumulation": pieces}  # fmt: skip
    with counted_steps() as steps:
        vithub.finetune(data="digits", output=Path(output, "run"), preset="from-scratch-small", values=values)
    if dist.get_rank() == 0:
        whole = vithub.HubDeiTForImageClassification.from_pretrained(Path(output, "run"))
        expected = closed_form(whole, dist.get_world_size(), "ACCELERATE_USE_FSDP" in os.environ, pieces)
        Path(output, "found.json").write_text(json.dumps({"counted": steps[-1], "expected": expected}))
    dist.barrier()
    dist.destroy_process_group()


def main() -> None:
    """Launches the processes and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2, help="processes on this machine (2)")
    parser.add_argument("--sharding", choices=("none", "fsdp2"), default="none", help="none is DDP")
    parser.add_argument("--accumulation", type=int, default=1, help="pieces of a batch (1)")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        train(options.worker, options.accumulation)
        return
    environment = os.environ | (FSDP2 if options.sharding == "fsdp2" else {})
    environment |= {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(options.processes)]
    with tempfile.TemporaryDirectory() as output:
        arguments = [__file__, "--worker", output, "--accumulation", str(options.accumulation)]
        subprocess.run([*launch, *arguments], env=environment, check=True)
        found = json.loads(Path(output, "found.json").read_text())
    print("| message | counted, bytes | closed form, bytes | difference |\n|---|---|---|---|")
    for name, wanted in found["expected"].items():
        counted = found["counted"].get(name, 0)
        print(f"| {name} | {counted} | {wanted} | {counted / wanted - 1:+.3%} |")
    rest = sum(count for name, count in found["counted"].items() if name not in found["expected"])
    print(f"\nAll other messages of the step: {rest} bytes.")


if __name__ == "__main__":
    main()
