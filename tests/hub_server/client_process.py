"""A process of its own with the unmodified official client, which runs snippets one after the other."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from patience import PATIENCE

from .server import LoopbackHub

_LOOP = r"""
import contextlib, io, json, os, sys, time, traceback
if "VITHUB_TEST_HURRY" in os.environ:  # the waits between attempts, made short
    pause = time.sleep
    time.sleep = lambda seconds: pause(min(seconds, 0.002))
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
names = {"__name__": "__main__"}
for line in sys.stdin:
    task = json.loads(line)
    os.environ.pop("HF_TOKEN", None)
    os.environ.update(task["environment"])
    answer, errors = {}, io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(errors):
        try:
            *statements, last = task["code"]
            for statement in statements:
                exec(statement, names)
            answer["value"] = eval(last, names)
            json.dumps(answer["value"])
        except BaseException as error:
            kinds = [kind.__name__ for kind in type(error).__mro__]
            answer = {"error": str(error), "kinds": kinds, "traceback": traceback.format_exc()}
    answers.write(json.dumps({**answer, "printed": errors.getvalue()}) + "\n")
    answers.flush()
"""


class ClientError(Exception):
    """What a snippet raised: its message, the names of its class and bases, its traceback and what was printed."""

    def __init__(self, answer: dict[str, Any]) -> None:
        super().__init__(f"{answer['kinds'][0]}: {answer['error']}")
        self.message: str = answer["error"]
        self.kinds: list[str] = answer["kinds"]
        self.traceback: str = answer["traceback"]
        self.printed: str = answer["printed"]


class ClientProcess:
    """A client of a loopback Hub, or of another.

    Args:
        hub: The server, or the address of another, which is asked at its own pace.
        home: A new folder for `HF_HOME`.
        transport: "lfs" or "xet".
        token: Of the login; a call of `run` may give another.
    """

    def __init__(self, hub: LoopbackHub | str, home: Path, transport: str, token: str | None = None) -> None:
        assert transport in ("lfs", "xet")
        self.token, self.transport, self.home, self.printed = token, transport, home, ""
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        environment |= {
            "HF_HOME": str(home),
            "HF_ENDPOINT": hub if isinstance(hub, str) else hub.url,
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "OMP_NUM_THREADS": "1",
            "MPLBACKEND": "Agg",
        }
        if not isinstance(hub, str):
            environment |= {
                "VITHUB_TEST_HURRY": "1",
                "HF_XET_CLIENT_RETRY_BASE_DELAY": "10ms",
                "HF_XET_CLIENT_RETRY_MAX_DURATION": "2s",
                "HF_XET_CLIENT_RETRY_MAX_ATTEMPTS": "3",
            }
        if transport == "lfs":
            environment["HF_HUB_DISABLE_XET"] = "1"
        self.log = (home.parent / f"{home.name}.log").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-c", _LOOP], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True,
            env=environment,
        )  # fmt: skip

    def run(self, *code: str, token: str | None = None, environment: dict[str, str] | None = None) -> Any:
        """Runs statements, then gives the value of the last, an expression; names stay from call to call.

        Raises:
            ClientError: Something was raised.
        """
        given = token if token is not None else self.token
        set_ = (environment or {}) | ({"HF_TOKEN": given} if given else {})
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"code": code, "environment": set_}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            self.log.seek(0)
            raise RuntimeError(f"the client's process ended: {self.log.read()[-3000:]}")
        answer = json.loads(line)
        self.printed = answer["printed"]
        if "error" in answer:
            raise ClientError(answer)
        return answer["value"]

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.kill()  # it has nothing to save, and its libraries take long to end
        self.process.wait(PATIENCE)
        self.process.stdin.close()
        self.process.stdout.close()
        self.log.close()


__all__ = ["ClientError", "ClientProcess"]
