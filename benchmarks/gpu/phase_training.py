"""Training on the card: losses against the CPU's, both loops, resuming, and runs that repeat bit for bit."""

from collections.abc import Iterator
from functools import cache
from typing import Any

from check import LOSS_TOLERANCE, Check, Record, elsewhere, largest_relative, not_available
from check import verdict as judged
from train_once import Heard, train

ON_THE_CPU = {"ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""}


def job(check: Check, name: str, kind: str = "classifier", **others: Any) -> dict[str, Any]:
    """Job of `train_once.train` of 20 steps (3 where all is tiny), in a folder of its own."""
    steps = 3 if check.tiny else 20
    return {"kind": kind, "tiny": check.tiny, "steps": steps, "output": str(check.folder / name), **others}


@cache
def plain_run(check: Check) -> dict[str, Any]:
    """Run of a classifier without any option, made once for a phase."""
    return train(job(check, "plain"))


def losses_are_those_of_the_cpu(check: Check) -> Iterator[Record]:
    """Losses of each step of a classifier and of a detector, in fp32, against a run on the CPU."""
    for kind in ("classifier", "detector"):
        here = plain_run(check) if kind == "classifier" else train(job(check, "detector", kind))
        there = elsewhere(job(check, f"{kind}-cpu", kind), ON_THE_CPU) if check.gpu else here
        difference = largest_relative(here["losses"], there["losses"])
        moved = abs(here["losses"][0] - here["losses"][-1]) > 0
        yield judged(
            difference <= LOSS_TOLERANCE and moved, kind=kind, losses_differ=difference, tolerance=LOSS_TOLERANCE,
            losses=[round(loss, 5) for loss in here["losses"]], devices=[here["device"], there["device"]],
        )  # fmt: skip


def trainer_gives_the_losses_of_accelerate(check: Check) -> Record:
    """Losses of transformers' Trainer against those of the Accelerate loop, both on the device."""
    ours, theirs = plain_run(check), train(job(check, "trainer", front_end="trainer"))
    difference = largest_relative(theirs["losses"], ours["losses"])
    return judged(difference <= LOSS_TOLERANCE, losses_differ=difference, tolerance=LOSS_TOLERANCE)


def a_resumed_run_gives_the_losses_of_a_whole_one(check: Check) -> Record:
    """Losses after breaking off and resuming, against a run that was not broken off."""
    every = 1 if check.tiny else 5
    whole, broken = plain_run(check), job(check, "broken", values={"training.checkpoint_steps": every})
    try:
        train(broken, Heard(break_after=2 * every))
    except KeyboardInterrupt:
        resumed = train(broken | {"resume": True})
    count = len(resumed["losses"])
    difference = largest_relative(resumed["losses"], whole["losses"][-count:])
    return judged(
        difference <= LOSS_TOLERANCE and 0 < count < whole["steps"], losses_differ=difference, steps_resumed=count,
        tolerance=LOSS_TOLERANCE,
    )  # fmt: skip


def runs_repeat_bit_for_bit(check: Check) -> Iterator[Record]:
    """Losses and every bit of the weights of two equal runs with `training.deterministic`."""
    from vithub.training.recipe.sections import TrainingSettings

    if "deterministic" not in TrainingSettings.model_fields:
        yield not_available("this version has no option training.deterministic")
        return
    for kind in ("classifier", "detector"):
        values = {"training.deterministic": True}
        runs = [train(job(check, f"{kind}-repeat-{number}", kind, values=values)) for number in range(2)]
        equal = [runs[0][what] == runs[1][what] for what in ("losses", "digest")]
        yield judged(all(equal), kind=kind, losses_equal=equal[0], weights_equal=equal[1])


STEPS = (
    losses_are_those_of_the_cpu,
    trainer_gives_the_losses_of_accelerate,
    a_resumed_run_gives_the_losses_of_a_whole_one,
    runs_repeat_bit_for_bit,
)
