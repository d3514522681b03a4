"""Two machines, as network namespaces of this one with a cable between them, against one process.

The long form (`make test-long`), where the superuser may make namespaces: each launch imports everything twice.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from patience import LONG, PATIENCE

ROOT = Path(__file__).parents[3]
CONFIGURATION = ROOT / "docs/accelerate/several_nodes.yaml"
ADDRESSES = ("10.211.0.1", "10.211.0.2")
MINUTE = 60
VALUES = {
    "model.fields": {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2, "initializer_range": 0.1},
    "training.ema_decay": 0.9,
    "training.clip_norm": 1.0,
}


def _ip(*words):
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=False)


def _may_make_namespaces():
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return False
    try:
        made = _ip("netns", "add", f"vithub-try-{os.getpid()}").returncode == 0
    except OSError:
        return False
    _ip("netns", "del", f"vithub-try-{os.getpid()}")
    return made


pytestmark = pytest.mark.skipif(
    not LONG or not _may_make_namespaces(), reason="needs VITHUB_LONG=1 and the right to make network namespaces"
)


class Machine:
    """A namespace with an end of the cable.

    Args:
        rank: 0 or 1.
    """

    def __init__(self, rank):
        self.rank, self.name, self.link = rank, f"vithub-{os.getpid()}-{rank}", f"vh{os.getpid() % 10**6}n{rank}"

    def connect(self):
        _ip("link", "set", self.link, "netns", self.name)
        _ip("-n", self.name, "address", "add", f"{ADDRESSES[self.rank]}/24", "dev", self.link)
        for link in (self.link, "lo"):
            assert _ip("-n", self.name, "link", "set", link, "up").returncode == 0

    def launch(self, arguments, log):
        """`accelerate launch` as documented, of one process on each machine."""
        command = [
            "ip", "netns", "exec", self.name, sys.executable, "-m", "accelerate.commands.launch", "--config_file",
            CONFIGURATION, "--num_machines", 2, "--num_processes", 2, "--machine_rank", self.rank, "--main_process_ip",
            ADDRESSES[0], *arguments,
        ]  # fmt: skip
        environment = os.environ | {"GLOO_SOCKET_IFNAME": self.link, "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
        with log.open("w") as output:
            return subprocess.Popen(
                list(map(str, command)), env=environment, stdout=output, stderr=output, start_new_session=True
            )

    def cut(self):
        """Takes the cable out, so that nothing closes a connection."""
        assert _ip("-n", self.name, "link", "set", self.link, "down").returncode == 0


@pytest.fixture
def machines():
    both = [Machine(rank) for rank in range(2)]
    try:
        for machine in both:
            assert _ip("netns", "add", machine.name).returncode == 0
        assert _ip("link", "add", both[0].link, "type", "veth", "peer", "name", both[1].link).returncode == 0
        for machine in both:
            machine.connect()
        yield both
    finally:
        for machine in both:
            _ip("netns", "del", machine.name)


@contextlib.contextmanager
def launched(machines, arguments, tmp_path):
    """Both launches, and the files of their output; what is left of them is killed."""
    logs = [tmp_path / f"machine-{machine.rank}.log" for machine in machines]
    started = [machine.launch(arguments, log) for machine, log in zip(machines, logs, strict=True)]
    try:
        yield started, logs
    finally:
        for process in started:
            kill(process)
            process.wait()


def kill(process):
    """Kills a launch and its processes at once, as a machine does that loses its power."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
            if process.pid in (int(folder.name), int(fields[1]), int(fields[3])):
                os.kill(int(folder.name), signal.SIGKILL)


def ended(machines, arguments, tmp_path):
    """Runs both to their end; the output of the first."""
    with launched(machines, arguments, tmp_path) as (started, logs):
        codes = [process.wait(PATIENCE) for process in started]
        assert codes == [0, 0], "\n".join(log.read_text()[-3000:] for log in logs)
        return logs[0].read_text()


def words(settings):
    return [word for name, value in settings.items() for word in ("--set", f"{name}={json.dumps(value)}")]


def finetune(data, out, settings, *further):
    return [ROOT / "scripts/finetune_accelerate.py", "--data", data, "--output", out, *words(settings), *further]


COMMAND = ["-m", "vithub.scripts.command_line"]


def losses(folder):
    return [row["train_loss"] for row in json.loads((folder / "metrics.json").read_text())["history"]]


def alone(arguments):
    done = subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def test_two_machines_train_as_one_process_does(machines, digit_folders, quick, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    alone(finetune(digit_folders, one, quick(VALUES)))
    ended(machines, finetune(digit_folders, two, quick(VALUES)), tmp_path)
    assert json.loads((two / "metrics.json").read_text())["processes"] == 2
    assert losses(two) == pytest.approx(losses(one), abs=1e-5)


@pytest.fixture
def many_digits(digit_folders, tmp_path):
    """The digits 12 times under other names: 4,800 images, which `predict --data` writes as five files."""
    for file in digit_folders.rglob("*.png"):
        (folder := tmp_path / "many" / file.parent.name).mkdir(parents=True, exist_ok=True)
        for number in range(12):
            (folder / f"{file.stem}-{number}.png").hardlink_to(file)
    return tmp_path / "many"


class Answering:
    """A command that reads a data set on both machines, and what it leaves.

    Args:
        name: "evaluate" or "predict".
        arguments: Words of the command line after the command's name, without `--output`.
    """

    def __init__(self, name, *arguments):
        self.name, self.arguments = name, [*COMMAND, name, *arguments, "--workers", "0"]

    def begun(self, output):
        """Returns True once the second machine has written a first part of its answers."""
        counts = output.with_name(f".{output.name}.partial") / "counts-001.safetensors"
        return (counts if self.name == "evaluate" else output / "part-000001.parquet").exists()

    def results(self, output):
        if self.name == "evaluate":
            found = json.loads((output / "metrics.json").read_text())
            return [found[name] for name in ("images", "metrics", "confusion", "per_class")]
        return [row for part in sorted(output.glob("*.parquet")) for row in pq.read_table(part).to_pylist()]


@pytest.mark.parametrize(
    ("name", "how", "lost"),
    [
        ("evaluate", "cut from the network", 1),
        ("evaluate", "killed", 0),
        ("predict", "cut from the network", 0),
        ("predict", "killed", 1),
    ],
)
def test_two_machines_answer_as_one_process_does_even_after_one_was_lost(
    name, how, lost, machines, finished_run, many_digits, tmp_path, record_property
):
    asked = Answering(name, finished_run.folder, "--data", many_digits, "--batch-size", 8)
    one, two, broken = (tmp_path / place for place in ("one", "two", "broken"))
    alone([*asked.arguments, "--output", one])
    ended(machines, [*asked.arguments, "--output", two], tmp_path)
    assert len(asked.results(one)) == {"evaluate": 4, "predict": 4800}[name]
    assert_close(asked.results(two), asked.results(one))

    with launched(machines, [*asked.arguments, "--output", broken], tmp_path) as (started, logs):
        while not asked.begun(broken):
            assert started[0].poll() is None, logs[0].read_text()[-3000:]
            time.sleep(0.02)
        seconds, told = seconds_to_end(how, lost, machines, started, logs)
    who = "the machine 10.211.0.2" if lost else r"the first machine \(10.211.0.1\)"
    line = f"{who} was lost" if how != "killed" else "another process of the launch ended"
    assert re.search(f"vithub: error: {line}.*Resume the run", told), told[-3000:]
    assert seconds < MINUTE
    record_property("seconds", round(seconds))
    reconnect(machines[lost])
    ended(machines, [*asked.arguments, "--output", broken, "--resume"], tmp_path)
    assert_close(asked.results(broken), asked.results(one))


def assert_close(found, expected):
    """Equal but for the rounding of floats, which other batches bring."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        found, expected = list(found.values()), list(expected.values())
    if isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_close(one, other)
    else:
        assert found == (pytest.approx(expected, abs=1e-5) if isinstance(expected, float) else expected)


def seconds_to_end(how, lost, machines, started, logs):
    """Loses a machine; how long the other then took to end, and what it said."""
    if how == "killed":
        kill(started[lost])
    else:
        machines[lost].cut()
    begun = time.monotonic()
    assert started[1 - lost].wait(PATIENCE) != 0
    return time.monotonic() - begun, logs[1 - lost].read_text()


def reconnect(machine):
    """Puts the cable back in."""
    assert _ip("-n", machine.name, "link", "set", machine.link, "up").returncode == 0


@pytest.mark.parametrize("how", ["cut from the network", "killed"])
def test_a_machine_that_is_lost_ends_the_other_within_a_minute_and_both_resume(
    how, machines, digit_folders, quick, tmp_path, record_property
):
    settings = quick(VALUES | {"training.epochs": 12, "training.checkpoint_steps": 3})
    one, out = tmp_path / "one", tmp_path / "two"
    alone(finetune(digit_folders, one, settings))
    with launched(machines, finetune(digit_folders, out, settings), tmp_path) as (started, logs):
        while len(list(out.glob("checkpoints/step-*"))) < 2:
            assert started[0].poll() is None, logs[0].read_text()[-3000:]
            time.sleep(0.05)
        seconds, told = seconds_to_end(how, 1, machines, started, logs)
    line = "the machine 10.211.0.2 was lost" if how != "killed" else "another process of the launch ended"
    assert re.search(f"vithub: error: {line}.*Resume the run", told), told[-3000:]
    assert seconds < MINUTE
    record_property("seconds", round(seconds))
    reconnect(machines[1])
    ended(machines, [ROOT / "scripts/finetune_accelerate.py", "--output", out, "--resume"], tmp_path)
    assert losses(out) == pytest.approx(losses(one), abs=5e-3)  # rounding, over 12 epochs
