"""Fixtures of the training tests."""

import pytest
from vithub.training.finetuning import finetune
from vithub.training.progress import QuietReporter
from vithub.training.recipe import Recipe


@pytest.fixture(scope="session")
def train(digit_folders, quick):
    """Trains for a second on digits: `train(out, {"training.epochs": 3})`; further options are those of `finetune`."""

    def run(out, values=None, **options):
        return finetune(**{"data": digit_folders, "out": out, "recipe": Recipe(), "values": quick(values), **options})

    return run


class Listener(QuietReporter):
    """Keeps what a run tells, and breaks it off after some steps."""

    def __init__(self, break_after=None):
        self.messages, self.losses, self.break_after = [], [], break_after

    def message(self, text):
        self.messages.append(text)

    def advance(self, amount=1, **figures):
        if "loss" in figures:
            self.losses.append(figures["loss"])
            if len(self.losses) == self.break_after:
                raise KeyboardInterrupt


@pytest.fixture(scope="session")
def listener():
    return Listener


@pytest.fixture(scope="session")
def losses_of(train, tmp_path_factory):
    """The losses of the first steps of a training."""

    def run(steps, values=None):
        heard = Listener(break_after=steps)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path_factory.mktemp("runs") / "run", values, reporter=heard)
        return heard.losses

    return run
