"""The processes that tests fork: they end as fresh ones do, and nothing but time tells them apart."""

import json
import multiprocessing
import os
import signal
import time

import processes
import pytest

TOLD = """
import json, multiprocessing, os, sys
print(json.dumps({
    "argv": sys.argv[1:], "folder": os.getcwd(), "given": os.environ.get("GIVEN"), "main": __name__,
    "session": os.getsid(0) == os.getpid(), "threads": len(os.listdir("/proc/self/task")),
    "modules": sorted(sys.modules), "start": multiprocessing.get_start_method(),
}))
print("an error", file=sys.stderr)
sys.exit(3)
"""


def test_a_program_has_its_own_arguments_environment_folder_streams_and_exit_code(tmp_path):
    done = processes.run(TOLD, ["one", 2], env={"GIVEN": "x"}, cwd=tmp_path)
    told = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (3, "an error\n")
    assert set(processes.PRELOADED) <= set(told.pop("modules"))
    assert told.pop("start") == multiprocessing.get_start_method()
    assert told == {
        "argv": ["one", "2"], "folder": str(tmp_path), "given": "x", "main": "__main__", "session": True, "threads": 1,
    }  # fmt: skip


def test_errors_signals_and_what_is_done_at_exit_are_those_of_a_fresh_process(tmp_path):
    done = processes.run("import atexit\natexit.register(print, 'at exit')\nraise ValueError('no such thing')")
    assert (done.returncode, done.stdout) == (1, "at exit\n")
    assert done.stderr.endswith("ValueError: no such thing\n")
    assert processes.run("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)").returncode == -signal.SIGKILL
    waiting = "import pathlib, time\npathlib.Path('begun').touch()\ntime.sleep(3600)"
    ours, theirs = os.pipe()
    code = "import sys\nsys.stdout.reconfigure(errors='replace')\nprint('told')"
    with os.fdopen(ours) as told, processes.start(code, stdout=theirs, stderr=theirs):
        os.close(theirs)
        assert told.read() == "told\n"
    with processes.start(waiting, cwd=tmp_path) as one:
        while not (tmp_path / "begun").exists():
            assert one.poll() is None
            time.sleep(0.01)
        one.send_signal(signal.SIGTERM)
        assert one.wait() == -signal.SIGTERM


def test_a_launch_is_one_group_and_ends_with_the_first_that_fails(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, torch\n"
        "torch.distributed.init_process_group('gloo')\n"
        "rank = torch.tensor([1 + torch.distributed.get_rank()])\n"
        "torch.distributed.all_reduce(rank)\n"
        "print(sys.argv[1:], int(rank))\n"
        "torch.distributed.destroy_process_group()\n"
    )
    done = processes.launch(script, ["given"])
    assert (done.returncode, done.stdout) == (0, "['given'] 3\n" * 2), done.stderr
    done = processes.launch("import os, time\nif os.environ['RANK'] == '1': raise SystemExit(5)\ntime.sleep(3600)")
    assert done.returncode == 5
    for pid in done.args:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
