"""Interrupts trainings at seeded moments, resumes them, and compares all that they leave with the unbroken run.

    python tests/faults/kills.py --kills 300 --output docs/kills.md

Each training is of 3 epochs x 4 steps with an average of the weights and two loading processes. Its moments are the
steps, the batches of every evaluation, and the files of every checkpoint; a signal is sent to the training itself at
one of them. SIGTERM and SIGINT are sent within this process, which makes hundreds affordable; SIGKILL ends a child.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from vithub.data.digits import digits_dataset
from vithub.training import run_folder
from vithub.training.finetuning import finetune
from vithub.training.loop.checkpoints import last_checkpoint
from vithub.training.recipe.recipe import Recipe
from vithub.training.runtime.progress import QuietReporter
from vithub.training.tasks.classification.metrics.single_label import ClassificationMetrics
from vithub.training.tasks.classification.task import ClassificationTask

FRONT_ENDS, PUBLISHED = ("accelerate", "trainer"), ("best", "last")
SIGNALS = ("SIGTERM", "SIGTERM", "SIGTERM", "SIGINT")
EPOCHS, STEPS = 3, 4
VALUES = {
    "model.source": "deit-ti/4",
    "model.image_size": 12,
    "model.fields": {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2, "initializer_range": 0.1},
    "data.test_fraction": 0.2,
    "data.workers": 2,
    "augmentation.crop": "padded",
    "augmentation.horizontal_flip": 0.0,
    "augmentation.mixup": 0.5,
    "training.epochs": EPOCHS,
    "training.batch_size": 12,
    "training.lr": 4e-3,
    "training.warmup": 1,
    "training.ema_decay": 0.8,
    "training.precision": "fp32",
    "training.trackers": [],
    "evaluation.crop_ratio": 1.0,
    "evaluation.batch_size": 4,
}
CLOCKS = ("images_per_second", "peak_memory_mb", "seconds", "waited_for_images")  # differ from run to run


@dataclass(frozen=True)
class Kill:
    """One interruption.

    Args:
        front_end: Whose loop runs.
        publish: Which weights are published.
        moment: Number of the moment among those of the unbroken run.
        place: What the run is doing at that moment.
        signal: Name of the signal.
    """

    front_end: str
    publish: str
    moment: int
    place: str
    signal: str


class Moments(QuietReporter):
    """Counts the moments of a training and calls a function at one of them.

    Args:
        at: Number of the moment, from 0; None only counts.
        act: Called then.
    """

    def __init__(self, at=None, act=None):
        self.at, self.act, self.places, self.steps, self.within = at, act, [], 0, ""
        self.fsync = os.fsync

    def __enter__(self):
        def counted(descriptor):
            self.fsync(descriptor)
            self._count("in a checkpoint")

        os.fsync = counted
        return self

    def __exit__(self, *error):
        os.fsync = self.fsync

    def _count(self, place):
        self.places.append(place)
        if len(self.places) - 1 == self.at:
            self.act()

    def start(self, task, total, done=0):
        self.within = "epoch" if task.startswith("epoch") else "evaluation"
        if self.within == "epoch":
            self._count(self._next_step())
        else:
            self._count("before an evaluation" if self.steps < EPOCHS * STEPS else "before a last evaluation")

    def advance(self, amount=1, **figures):
        if self.within == "epoch":
            self.steps += 1
            self._count("after an epoch's last step" if self.steps % STEPS == 0 else self._next_step())
        else:
            self._count("in an evaluation" if self.steps < EPOCHS * STEPS else "in a last evaluation")

    def _next_step(self):
        return f"in step {self.steps % STEPS + 1} of {STEPS}"


def without_pictures():
    """Leaves out what takes most of such a small run's time and depends on nothing but the weights."""
    run_folder.save_learning_curves = lambda *_, **__: None
    ClassificationMetrics.save_plots = lambda *_, **__: None
    ClassificationTask.sample_facts = lambda *_: {}


def train(data, folder, kill, reporter, resume=False):
    """Begins or resumes a run."""
    values = VALUES | {"training.publish": kill.publish}
    options = {"front_end": kill.front_end, "reporter": reporter, "resume": resume}
    finetune(data=data, output=folder, recipe=Recipe(), values=values, **options)


def left(folder):
    """What a run leaves, by name: hashes of weights and states, history without clocks, published epoch, results."""
    metrics = json.loads((folder / "metrics.json").read_text())
    last = last_checkpoint(folder / "checkpoints")
    files = [folder / "model.safetensors", *sorted(last.glob("*.safetensors"))]
    history = [{name: entry[name] for name in entry if name not in CLOCKS} for entry in metrics["history"]]
    return {
        **{file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files},
        **{name: metrics[name] for name in ("published_epoch", "test", "validation", "skipped_steps", "bad_images")},
        "history": history,
    }


def moments_of(data, folder):
    """The places of all moments of each kind of unbroken run, and what it leaves."""
    places, results = {}, {}
    for front_end in FRONT_ENDS:
        for publish in PUBLISHED:
            kind, run = Kill(front_end, publish, 0, "", ""), folder / f"{front_end}-{publish}"
            with Moments() as moments:
                train(data, run, kind, moments)
            places[front_end, publish], results[front_end, publish] = moments.places, left(run)
    return places, results


def plan(count, hard, seed, places):
    """Seeded interruptions: kinds of runs in turn, kinds of places in turn, moments of a place at random."""
    draws, kills = random.Random(seed), []
    kinds = [(front_end, publish) for front_end in FRONT_ENDS for publish in PUBLISHED]
    orders = {}
    for number in range(count):
        kind = kinds[number % len(kinds)]
        if not orders.get(kind):
            names = sorted(set(places[kind]))  # a set has another order in each process
            orders[kind] = draws.sample(names, len(names))
        place = orders[kind].pop()
        moment = draws.choice([at for at, name in enumerate(places[kind]) if name == place])
        kills.append(Kill(*kind, moment, place, "SIGKILL" if number < hard else draws.choice(SIGNALS)))
    return kills


def interrupt(data, folder, kill):
    """Runs a training up to its interruption; returns whether that ended it."""
    number = getattr(signal, kill.signal)
    if kill.signal == "SIGKILL":
        child = os.fork()
        if child == 0:
            with Moments(kill.moment, lambda: os.kill(os.getpid(), number)) as moments:
                train(data, folder, kill, moments)
            os._exit(0)
        return os.waitpid(child, 0)[1] != 0
    with Moments(kill.moment, lambda: os.kill(os.getpid(), number)) as moments:
        try:
            train(data, folder, kill, moments)
        except (SystemExit, KeyboardInterrupt):
            return True
    return False


def judge(data, folder, kill, expected):
    """How a run that was interrupted and resumed compares: "equal", "not interrupted", or what is wrong."""
    try:
        if not (folder / "metrics.json").is_file():
            with Moments() as moments:
                train(data, folder, kill, moments, resume=(folder / "recipe.yaml").is_file())
        found = left(folder)
    except Exception as error:  # noqa: BLE001  # whatever it is, it is counted
        return f"cannot be finished: {type(error).__name__}: {str(error).splitlines()[0][:120]}"
    wrong = [name for name in expected if found.get(name) != expected[name]]
    return f"differs: {', '.join(wrong)}" if wrong else "equal"


def run(count, hard, seed, told=lambda text: None):
    """All of it: the interruptions with their verdicts.

    Args:
        count: Number of interruptions.
        hard: How many of them are by SIGKILL.
        seed: Of the draws.
        told: Called with a line for each.
    """
    without_pictures()
    torch.set_num_threads(1)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    place = Path(tempfile.mkdtemp(prefix="kills-"))
    data, verdicts = digits_dataset().select(range(80)), []
    try:
        # in a child, so that this process has computed nothing yet when it forks children to be killed
        child = os.fork()
        if child == 0:
            try:
                (place / "plan.json").write_text(json.dumps(_unbroken(data, place)))
            except BaseException:  # noqa: BLE001
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0, "the unbroken runs failed"
        unbroken = json.loads((place / "plan.json").read_text())
        places = {tuple(kind.split()): names for kind, names in unbroken["places"].items()}
        for number, kill in enumerate(plan(count, hard, seed, places)):
            folder = place / f"{number}"
            ended = interrupt(data, folder, kill)
            verdict = judge(data, folder, kill, unbroken["results"][f"{kill.front_end} {kill.publish}"])
            verdicts.append((kill, verdict if ended or verdict != "equal" else "not interrupted, equal"))
            told(f"{number + 1}/{count} {kill} {verdicts[-1][1]}")
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        signal.signal(signal.SIGINT, before)
        shutil.rmtree(place, ignore_errors=True)
    return verdicts


def _unbroken(data, place):
    places, results = moments_of(data, place)
    named = {" ".join(kind): names for kind, names in places.items()}
    return {"places": named, "results": {" ".join(kind): found for kind, found in results.items()}}


def table(verdicts):
    """Counts by place and verdict, as Markdown."""
    counts = Counter((kill.place, verdict.split(":")[0]) for kill, verdict in verdicts)
    outcomes = sorted({outcome for _, outcome in counts}, key=lambda name: (name != "equal", name))
    lines = [f"| the signal came | kills | {' | '.join(outcomes)} |", "|---|---" + "|---" * len(outcomes) + "|"]
    for place in sorted({place for place, _ in counts}):
        numbers = [counts[place, outcome] for outcome in outcomes]
        lines.append(f"| {place} | {sum(numbers)} | {' | '.join(map(str, numbers))} |")
    totals = [sum(counts[place, outcome] for place, verdict in counts if verdict == outcome) for outcome in outcomes]
    lines.append(f"| all | {sum(totals)} | {' | '.join(map(str, totals))} |")
    kinds = Counter((kill.signal, kill.front_end, kill.publish) for kill, _ in verdicts)
    lines += ["", "| signal | front end | published | kills |", "|---|---|---|---|"]
    lines += [f"| {' | '.join(kind)} | {number} |" for kind, number in sorted(kinds.items())]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=12, help="number of interruptions (default: %(default)s)")
    parser.add_argument("--hard", type=int, default=None, help="how many by SIGKILL (default: a tenth)")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="file for the tables (default: none)")
    options = parser.parse_args()
    hard = options.kills // 10 if options.hard is None else options.hard
    verdicts = run(options.kills, hard, options.seed, lambda text: sys.stderr.write(f"{text}\n"))
    text = table(verdicts)
    sys.stdout.write(text)
    if options.output:
        options.output.write_text(text, encoding="utf-8")
    return any("equal" not in verdict for _, verdict in verdicts)


if __name__ == "__main__":
    sys.exit(main())
