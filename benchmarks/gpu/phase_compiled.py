"""Images per second of compiled training steps: ours whole and layer by layer, and the peers' whole."""

import time
from collections.abc import Iterator

import torch
from check import Check, Record, in_turns, measured
from phase_throughput import SIZES, batch, build, training_step
from torch import nn

# In the order of their worth, as a cut leaves what was done.
ARMS = (
    ("S", "vithub", "layers"),
    ("S", "vithub", "whole"),
    ("S", "timm", "whole"),
    ("S", "transformers", "whole"),
    ("B", "vithub", "whole"),
    ("B", "timm", "whole"),
    ("B", "transformers", "whole"),
)


def compiled_training(check: Check) -> Iterator[Record]:
    """Training step of each library after `torch.compile`, and the seconds until the first step is done."""
    # A CPU of a test compiles nothing: the arm runs uncompiled, so that all but the compiler is tried.
    backend = "eager" if check.tiny else "inductor"
    for size, library, kind in ARMS[:2] if check.tiny else ARMS:
        torch._dynamo.reset()  # its only name; in torch 2.8 to 2.14
        model, (pixels, labels) = build(library, size, check), batch(size, check)
        runner = _compiled(model, kind, backend)
        step = training_step(runner, pixels, labels, check)
        begun = time.perf_counter()
        step()
        check.wait()
        start = time.perf_counter() - begun
        times = in_turns({library: step}, check, rounds=3, seconds=0.7)[library]
        rate = round(len(labels) / sorted(times)[len(times) // 2], 2)
        yield measured(
            size=size, library=library, compiled=kind, images=len(labels), images_per_second=rate,
            seconds_to_the_first_step=round(start, 1), width=SIZES[size][0],
        )  # fmt: skip


def _compiled(model: nn.Module, kind: str, backend: str) -> nn.Module:
    if kind == "whole":
        compiled: nn.Module = torch.compile(model, backend=backend)  # type: ignore[assignment]
        return compiled
    for layer in model.vit.layers:  # type: ignore[union-attr]
        layer.compile(backend=backend)
    return model


STEPS = (compiled_training,)
