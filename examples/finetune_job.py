# /// script
# requires-python = ">=3.11"
# dependencies = ["vithub"]
#
# [tool.uv.sources]
# vithub = { git = "https://github.com/OWNER/vithub" }  # or { url = "https://.../vithub-0.2.0-py3-none-any.whl" }
# ///
"""Finetunes a model on a hired machine and publishes it before the time is up; docs/howto/hired_gpus.md explains it.

    hf jobs uv run --flavor a10g-small --timeout 2h --secrets HF_TOKEN examples/finetune_job.py \
        USER/NAME --data USER/PHOTOS --model dinov2-s --budget 90m

A hired machine keeps nothing. So everything goes to the Hub: what the run has when its budget is spent, the model on
`main` and the checkpoint on a branch, from which the same command goes on in another job.
"""

import argparse
import re
import signal
import sys
import time
from pathlib import Path

import torch
import typer
from huggingface_hub import snapshot_download
from vithub.hub.push.errors import PublishError
from vithub.hub.push.target import PushTarget
from vithub.scripts.finetune_command import assignments
from vithub.training.loop.interruption import Interrupted
from vithub.training.runtime.progress import TerminalReporter

import vithub

BRANCH = "training-state"  # holds the recipe and checkpoints of a run that is not finished
STATE = ["recipe.yaml", "checkpoints/*"]
UNITS = {"s": 1, "m": 60, "h": 3600}


class UntilDeadline:
    """Reporter that ends the training with SIGTERM, as a scheduler would, in the first step after the deadline.

    Args:
        reporter: Reporter that everything is forwarded to.
        deadline: Time of `time.monotonic()` from which on the training ends.
    """

    def __init__(self, reporter, deadline):
        self.reporter, self.deadline = reporter, deadline
        self.trains, self.spent = False, False

    def message(self, text):
        """Forwards a line."""
        self.reporter.message(text)

    def start(self, task, total, done=0):
        """Forwards the start of a task; only training is ended, as evaluations end by themselves."""
        self.trains = task.startswith("epoch ")
        self.reporter.start(task, total, done)

    def advance(self, amount=1, **figures):
        """Forwards the progress, then looks at the clock."""
        self.reporter.advance(amount, **figures)
        if self.trains and not self.spent and time.monotonic() >= self.deadline:
            self.spent = True
            self.reporter.message("the time budget is spent; saving and publishing what there is")
            signal.raise_signal(signal.SIGTERM)

    def stop(self):
        """Forwards the end of a task."""
        self.reporter.stop()


def seconds(text):
    """Reads a duration such as 90m, 2h or 45s, as `hf jobs` writes them."""
    if (found := re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)) is None:
        raise argparse.ArgumentTypeError(f"a duration is a number with s, m or h, such as 90m, got {text!r}")
    return float(found[1]) * UNITS[found[2]]


def options_of(arguments):
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("repo", metavar="USER/NAME", help="model repository, made if there is none")
    parser.add_argument("--data", required=True, help="Hub id of a data set, or what else vithub finetune takes")
    parser.add_argument(
        "--budget", type=seconds, required=True, metavar="90m",
        help="time from the start after which the training ends; the job's own limit must leave time to publish",
    )  # fmt: skip
    parser.add_argument("--model", help="Hub id, short name or preset; default: the recipe's")
    parser.add_argument("--preset", help="named recipe; default: by model and data")
    parser.add_argument("--epochs", type=int, help="passes over the training images; default: the recipe's")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="any field of the recipe")
    parser.add_argument("--private", action="store_true", help="make the repository private")
    parser.add_argument("--folder", type=Path, default=Path("run"), help="folder of the run; default: run")
    options = parser.parse_args(arguments)
    try:
        options.values = assignments(options.set)
    except typer.BadParameter as error:
        parser.error(str(error))
    return options


def open_repository(target, private):
    """Makes the repository; a token that may not write, or a wrong name, fails here and not after the training."""
    target.identify(to_own=True)
    target.refuse_other_kinds()
    found = target.find()
    if found is None:
        target.create(private)
    elif private and not found.private:
        raise PublishError(f"{target.repo_id} is public; leave out --private, or choose another name")


def fetch_state(target, folder):
    """Downloads the unfinished run of the repository; gives whether there was one."""
    if BRANCH not in [branch.name for branch in target.references().branches]:
        return False
    target.attempt(
        "reading the unfinished run",
        lambda: snapshot_download(
            target.repo_id, revision=BRANCH, local_dir=folder, allow_patterns=STATE, token=target.token
        ),
    )
    return True


def push_state(target, folder):
    """Uploads recipe and checkpoints, in place of earlier ones, in one commit."""
    target.open_branch(BRANCH)
    target.attempt(
        "sending the checkpoint",
        lambda: target.api.upload_folder(
            repo_id=target.repo_id, folder_path=folder, revision=BRANCH, allow_patterns=STATE,
            delete_patterns=["checkpoints/*"], commit_message="Checkpoint of an unfinished run",
        ),
    )  # fmt: skip


def forget_state(target):
    """Removes the branch of a run that is finished now."""
    if BRANCH in [branch.name for branch in target.references().branches]:
        target.attempt(
            "removing the checkpoint", lambda: target.api.delete_branch(repo_id=target.repo_id, branch=BRANCH)
        )


def train(options, target, deadline, reporter):
    """Trains until the end or the deadline; gives the signal that ended it, 0 if it is finished."""
    resume = fetch_state(target, options.folder)
    if resume:
        reporter.message(f"going on with the run on the branch {BRANCH}; delete the branch to begin anew")
    if (devices := torch.cuda.device_count()) > 1:
        reporter.message(f"this script trains on one of the {devices} GPUs; docs/howto/eight_gpus.md uses all")
    ending = UntilDeadline(reporter, deadline)
    try:
        vithub.finetune(
            options.model, options.data, options.folder, preset=None if resume else options.preset,
            epochs=options.epochs, values=options.values, resume=resume, reporter=ending,
        )  # fmt: skip
    except Interrupted as stop:
        if not any(options.folder.glob("checkpoints/step-*")):
            raise
        push_state(target, options.folder)  # first of all: whoever ended the training may not wait for long
        reporter.message(f"the checkpoint is on the branch {BRANCH}; the same command goes on with it")
        vithub.finetune(output=options.folder, resume=True, finish=True, reporter=reporter)
        return 0 if ending.spent else stop.code
    forget_state(target)
    return 0


def main(arguments=None):
    """Runs the job; gives the exit code."""
    begun = time.monotonic()
    options = options_of(arguments)
    with TerminalReporter() as reporter:
        try:
            if options.folder.exists():
                raise OSError(f"{options.folder} exists; name a new folder with --folder")
            target = PushTarget(options.repo)
            open_repository(target, options.private)
            code = train(options, target, begun + options.budget, reporter)
            report = vithub.publish(options.folder, options.repo, private=options.private)
        except (ValueError, OSError, RuntimeError) as error:
            reporter.message(f"error: {' '.join(str(error).split())}")
            return 1
        reporter.message(f"published: {report.url}")
    return code


if __name__ == "__main__":
    sys.exit(main())
