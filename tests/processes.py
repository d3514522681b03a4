"""Processes for tests, forked from a server that has imported the libraries and computed nothing.

A process that starts anew imports torch, transformers and the package, for several seconds of a core. Where a fresh
interpreter is not what is tested, `start`, `run` and `launch` take a fork instead. Each process of pytest starts its
server when it first needs one. A forked process is what `python -c` would be but for what is imported already: its
arguments, environment, folder, session and standard streams are its own.
"""

import atexit
import contextlib
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import types
from multiprocessing import connection, reduction
from pathlib import Path

from patience import PATIENCE

COMMAND = "from vithub.scripts.command_line import main\nmain()"  # the program of the command `vithub`
# Imported once by the server. torch reads how many threads it may use when it is imported.
PRELOADED = [
    "accelerate", "datasets", "fastapi", "httpx", "pandas", "pyarrow.parquet", "safetensors.torch",
    "sklearn.datasets", "timm", "torch.distributed.fsdp", "torchvision.transforms.v2",
    "transformers.models.auto.image_processing_auto", "transformers.models.auto.modeling_auto",
    "transformers.models.auto.processing_auto", "transformers.pipelines", "transformers.trainer", "uvicorn",
    "vithub.comparison.comparing", "vithub.hub.any_model", "vithub.hub.inference_loading",
    "vithub.interpretability.demo.page", "vithub.modeling.modeling_deit", "vithub.modeling.modeling_detr",
    "vithub.modeling.modeling_vit", "vithub.scripts.command_line", "vithub.training.dataset_prediction",
    "vithub.training.evaluation", "vithub.training.finetuning",
]  # fmt: skip
_servers = multiprocessing.get_context("forkserver")
_servers.set_forkserver_preload(PRELOADED)


class Started:
    """A process of its own session: what `subprocess.Popen` offers of it.

    Args:
        program: Code, as for `python -c`, or the path of a script.
        arguments: Command line after the program.
        env: Environment; None for that of this process.
        cwd: Folder; None for that of this process.
        stdout: Open file or descriptor that its output goes to; None for nowhere.
        stderr: The same for its errors.
    """

    def __init__(self, program, arguments=(), *, env=None, cwd=None, stdout=None, stderr=None):
        with Path(os.devnull).open("r+b") as nowhere:
            streams = [stream if stream is not None else nowhere for stream in (stdout, stderr)]
            descriptors = [stream if isinstance(stream, int) else stream.fileno() for stream in streams]
            source = Path(program).read_text(encoding="utf-8") if isinstance(program, Path) else program
            task = {
                "source": source,
                "argv": [str(program) if isinstance(program, Path) else "-c", *map(str, arguments)],
                "environment": dict(os.environ if env is None else env),
                "folder": str(cwd or Path.cwd()),
            }
            self._process = _servers.Process(target=_work, args=(task, *map(_Descriptor, descriptors)))
            self._process.start()
        self.pid = self._process.pid

    @property
    def returncode(self):
        return self.poll()

    def poll(self):
        return self._process.exitcode

    def wait(self, timeout=PATIENCE):
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
        return self._process.exitcode

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        """Kills it and whatever it has started, as they are a session."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if error[0] is not None:
            self.kill()
        self.wait()


start = Started


def run(program, arguments=(), *, env=None, cwd=None, timeout=PATIENCE):
    """Runs a program to its end; gives its exit code, output and errors as `subprocess.run` does."""
    with _kept() as (stdout, stderr):
        with start(program, arguments, env=env, cwd=cwd, stdout=stdout, stderr=stderr) as process:
            process.wait(timeout)
        return subprocess.CompletedProcess(process.pid, process.returncode, _text(stdout), _text(stderr))


class Launch:
    """Processes of one group, as `torchrun` starts them on one machine, over gloo and on the processor alone.

    Args:
        program: As in `Started`, the same for all.
        arguments: The same for all.
        processes: Their number.
        env: Variables besides those of this process and of the group.
        cwd: Folder.
    """

    def __init__(self, program, arguments=(), *, processes=2, env=None, cwd=None):
        group = {
            "ACCELERATE_USE_CPU": "true", "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1",
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(processes),
            "LOCAL_WORLD_SIZE": str(processes),
        }  # fmt: skip
        self._files = contextlib.ExitStack()
        self.streams = [self._files.enter_context(_kept()) for _ in range(processes)]
        self.processes = [
            start(
                program, arguments, cwd=cwd, stdout=stdout, stderr=stderr,
                env=os.environ | group | {"RANK": str(rank), "LOCAL_RANK": str(rank)} | (env or {}),
            )
            for rank, (stdout, stderr) in enumerate(self.streams)
        ]  # fmt: skip

    def poll(self):
        """None while all run; else the exit code of the first that failed, or of all that ended."""
        codes = [process.poll() for process in self.processes]
        failed = [code for code in codes if code]
        return failed[0] if failed else None if None in codes else 0

    def kill(self):
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()

    def wait(self, timeout=PATIENCE):
        """Waits until all have ended, or one has failed, and kills the others then."""
        end = time.monotonic() + timeout
        while self.poll() is None and time.monotonic() < end:
            connection.wait([p._process.sentinel for p in self.processes if p.poll() is None], 0.5)
        code = self.poll()
        self.kill()
        return subprocess.CompletedProcess(
            [process.pid for process in self.processes], code,
            *("".join(_text(streams[number]) for streams in self.streams) for number in range(2)),
        )  # fmt: skip

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()
        self._files.close()


def launch(program, arguments=(), *, processes=2, env=None, cwd=None, timeout=PATIENCE):
    """Runs a `Launch` to its end; gives its exit code, and output and errors of all processes."""
    with Launch(program, arguments, processes=processes, env=env, cwd=cwd) as launched:
        return launched.wait(timeout)


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextlib.contextmanager
def _kept():
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        yield stdout, stderr


def _text(file):
    file.seek(0)
    return file.read().decode(errors="replace")


class _Descriptor:
    """An open file as it is sent to the server."""

    def __init__(self, number):
        self.number = number

    def __reduce__(self):
        return _received, (reduction.DupFd(self.number),)


def _received(sent):
    return sent.detach()


def _work(task, stdout, stderr):
    """What a forked process does."""
    multiprocessing.set_start_method(None, force=True)  # the default again, not that of this process
    os.setsid()
    for number, given in ((1, stdout), (2, stderr)):
        os.dup2(given, number)
        os.close(given)
    # not the server's: whether they are buffered, and can be rewound, goes by what the descriptors were when they began
    sys.stdout = sys.__stdout__ = os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.__stderr__ = os.fdopen(2, "w", 1, errors="backslashreplace", closefd=False)
    os.environ.clear()
    os.environ.update(task["environment"])
    os.chdir(task["folder"])
    tempfile.tempdir = None  # that of this environment
    sys.argv = task["argv"]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    sys.modules["__main__"] = main = types.ModuleType("__main__")
    if sys.argv[0] != "-c":
        main.__file__ = sys.argv[0]
    try:
        exec(compile(task["source"], sys.argv[0], "exec"), main.__dict__)
    finally:
        threading._shutdown()  # an interpreter waits for its threads before it ends
        atexit._run_exitfuncs()
