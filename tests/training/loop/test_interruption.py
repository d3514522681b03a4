import json
import signal
from contextlib import suppress

import processes
import pytest
from safetensors.torch import load_file
from vithub.training.finetuning import finetune
from vithub.training.loop.checkpoints import last_checkpoint, read_state
from vithub.training.loop.interruption import Interrupted, StopRequest

# A training that gets a signal at its third step, as from outside.
WORKER = """
import json, os, signal, sys
import pictures
from vithub.scripts.command_line import app, run
from vithub.training.runtime.progress import TerminalReporter

pictures.leave_blank()
data, out, values, name, front_end = json.loads(sys.argv[1])
count, advance = [0], TerminalReporter.advance

def counted(self, amount=1, **figures):
    count[0] += "loss" in figures
    if count[0] == 3:
        os.killpg(0, getattr(signal, name))  # as a terminal, `timeout` and schedulers do: its loading process too
    advance(self, amount, **figures)

TerminalReporter.advance = counted
options = [text for key, value in values.items() for text in ("--set", f"{key}={json.dumps(value)}")]
sys.exit(run(lambda: app(["finetune", "--preset", "from-scratch-small", "--data", data, "--output", out,
                          "--front-end", front_end, *options])))
"""


@pytest.mark.parametrize(
    ("name", "code", "front_end"),
    [("SIGTERM", 143, "accelerate"), ("SIGTERM", 143, "trainer"), ("SIGINT", 130, "accelerate")],
)
def test_a_run_asked_to_stop_saves_its_last_step_and_says_how_to_go_on(
    name, code, front_end, digit_folders, quick, tmp_path
):
    values = quick({"augmentation.rand_augment": None, "augmentation.random_erasing": 0.0, "data.workers": 1})
    task = json.dumps([str(digit_folders), str(tmp_path / "run"), values, name, front_end])
    done = processes.run(WORKER, [task])
    assert done.returncode == code, done.stderr
    checkpoint = last_checkpoint(tmp_path / "run" / "checkpoints")
    assert read_state(checkpoint)["step"] == 4
    assert f"stopped by {name} after step 4; all of it is in {checkpoint}, --resume goes on" in done.stderr
    assert "Traceback" not in done.stderr
    resumed = finetune(output=tmp_path / "run", resume=True)
    whole = finetune(output=tmp_path / "whole", recipe=tmp_path / "run" / "recipe.yaml")
    assert resumed.losses == whole.losses[4:]
    states = [load_file(run.folder / "model.safetensors") for run in (resumed, whole)]
    assert all((states[0][name] == states[1][name]).all() for name in states[0])


def test_handlers_are_put_back():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with suppress(InterruptedError), StopRequest() as request:
        signal.raise_signal(signal.SIGINT)
        assert request.signum == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert request.signum == signal.SIGTERM
        raise InterruptedError  # so is it answered
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_a_request_that_nobody_answered_reaches_the_handler_that_was_there_before():
    heard = []
    before = signal.signal(signal.SIGTERM, lambda signum, _: heard.append(signum))
    try:
        with StopRequest():
            signal.raise_signal(signal.SIGTERM)
            assert heard == []
        assert heard == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_the_exit_code_is_the_shell_s():
    assert Interrupted(signal.SIGTERM, 7, "there").code == 143
