"""Runs the package for long and holds that memory, open files and processes stay what they were after warming up.

    python tests/faults/endurance.py training --steps 3000
    python tests/faults/endurance.py pipeline --calls 2000
    python tests/faults/endurance.py page --clients 8 --requests 100

Each prints one line of JSON. Exit code 1 where memory grew by more than `MOST_GROWTH`, where something was left open,
or where a request to the page had no answer.
"""

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import uuid
from pathlib import Path
from typing import Any

MOST_GROWTH = 0.02  # of the resident memory
WARM = 0.25  # share of the work after which memory is compared
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
COMMAND = [sys.executable, "-c", "from vithub.scripts.command_line import main\nmain()"]
CONTROLS = 5  # of the page, which `look` gets besides the picture
ANSWERS = 5


def _status(pid: int) -> tuple[int, int]:
    """Resident bytes and open descriptors of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    (resident,) = [int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS:")]
    return resident, len(list(Path(f"/proc/{pid}/fd").iterdir()))


def _children(session: int) -> list[int]:
    """Processes of a session but the one that leads it."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
        except (OSError, IndexError):
            continue
        if int(fields[3]) == session and folder.name != str(session) and fields[0] != "Z":
            found.append(int(folder.name))
    return found


def growth(amounts: list[tuple[float, int]]) -> dict[str, Any]:
    """Growth of memory from the end of warming up to the end, each the median of a tenth of the work.

    Args:
        amounts: Share of the work that was done, in [0, 1], and bytes.
    """
    early = statistics.median([size for done, size in amounts if WARM <= done < WARM + 0.1])
    late = statistics.median([size for done, size in amounts if done >= 0.9])
    most = max(size for done, size in amounts if done >= WARM)
    return {"warm_mib": round(early / 2**20, 1), "end_mib": round(late / 2**20, 1), "most_mib": round(most / 2**20, 1),
            "growth_percent": round(100 * (late / early - 1), 2)}  # fmt: skip


def training(steps: int, root: Path) -> tuple[dict[str, Any], list[str]]:
    """`vithub finetune` with two loading processes, an evaluation and a checkpoint in each epoch."""
    out = root / "run"
    values = {
        "model.fields": SIZES, "data.workers": 2, "training.batch_size": 32, "training.max_steps": steps,
        "training.epochs": 10_000, "training.checkpoint_steps": 20, "training.trackers": [],
        "training.precision": "fp32", "training.ema_decay": 0.99,
    }  # fmt: skip
    words = [word for name, value in values.items() for word in ("--set", f"{name}={json.dumps(value)}")]
    command = [*COMMAND, "finetune", "--preset", "from-scratch-small", "--data", "digits", "--output", str(out), *words]
    samples: list[tuple[float, int, int, int]] = []
    (root / "temporary").mkdir()
    before = time.perf_counter()
    with (root / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True,
                                   env=os.environ | {"TMPDIR": str(root / "temporary")})  # fmt: skip
        while process.poll() is None:
            numbers = [int(place.name.split("-")[-1]) for place in out.glob("checkpoints/step-*")]
            try:
                resident, opened = _status(process.pid)
            except (OSError, ValueError):
                break
            done = max(numbers, default=0) / steps
            if 0 < done < 1:  # then the finished model is evaluated and its card drawn
                samples.append((done, resident, opened, len(_children(process.pid))))
            time.sleep(0.2)
    code = process.wait()
    found = {"steps": steps, "seconds": round(time.perf_counter() - before), "samples": len(samples),
             **growth([(done, resident) for done, resident, _, _ in samples])}  # fmt: skip
    for name, column in (("descriptors", 2), ("processes", 3)):
        early = [sample[column] for sample in samples if WARM <= sample[0] < WARM + 0.1]
        late = [sample[column] for sample in samples if sample[0] >= 0.9]
        found[name] = {"most_warm": max(early), "most_end": max(late)}
    left = [path.name for path in (root / "temporary").iterdir()]
    found["left"] = {"processes": len(_children(process.pid)), "files": len(left)}
    wrong = [f"finetune ended with {code}: {(root / 'log').read_text()[-500:]}"] if code else []
    wrong += [f"{name} grew: {found[name]}" for name in ("descriptors", "processes")
              if found[name]["most_end"] > found[name]["most_warm"]]  # fmt: skip
    wrong += [f"left behind: {left}, {_children(process.pid)}"] if left or _children(process.pid) else []
    return found, wrong


def _model(root: Path) -> Path:
    """A saved classifier of two classes."""
    import torch
    from vithub.data.image_processing import build_image_processor

    import vithub

    torch.manual_seed(0)
    config = vithub.HubDeiTConfig(**SIZES, image_size=32, patch_size=8, id2label={0: "rose", 1: "tulip"})
    vithub.HubDeiTForImageClassification(config).save_pretrained(root / "model")
    build_image_processor((32, 32)).save_pretrained(root / "model")
    return root / "model"


def _pictures(root: Path, count: int) -> list[Path]:
    import numpy as np
    from PIL import Image

    draws, files = np.random.default_rng(0), []
    for number in range(count):
        height, width = draws.integers(30, 400, 2)
        files.append(root / f"{number}.jpg")
        Image.fromarray(draws.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(files[-1])
    return files


def pipeline(calls: int, root: Path) -> tuple[dict[str, Any], list[str]]:
    """The pipeline of transformers on a saved model, called with one picture file after the other."""
    import torch
    from transformers import pipeline as make

    torch.set_num_threads(1)
    files, samples, opened = _pictures(root, 50), [], []
    asked = make("image-classification", model=str(_model(root)), image_processor=str(root / "model"))
    before = time.perf_counter()
    for number in range(calls):
        asked(str(files[number % len(files)]))
        if number % 20 == 0:
            resident, descriptors = _status(os.getpid())
            samples.append((number / calls, resident))
            opened.append(descriptors)
    seconds = time.perf_counter() - before
    found = {"calls": calls, "seconds": round(seconds, 1), **growth(samples),
             "descriptors": {"begin": opened[1], "end": opened[-1]}}  # fmt: skip
    return found, [f"descriptors grew: {found['descriptors']}"] if opened[-1] > opened[1] else []


class _Visitor(threading.Thread):
    """One visitor of the page, who uploads a picture, waits for the answer, and does so again."""

    def __init__(self, url: str, look: int, controls: list[Any], pictures: list[Path], count: int) -> None:
        super().__init__(daemon=True)
        self.url, self.look, self.controls, self.pictures, self.count = url, look, controls, pictures, count
        self.seconds: list[float] = []
        self.answers: list[str] = []
        self.wrong: list[str] = []
        self.session = uuid.uuid4().hex

    def _send(self, route: str, body: bytes, kind: str) -> Any:
        request = urllib.request.Request(
            f"{self.url}/gradio_api/{route}", body, {"Content-Type": kind, "Origin": self.url}
        )
        with urllib.request.urlopen(request, timeout=600) as answer:
            return json.load(answer)

    def run(self) -> None:
        """Makes the requests."""
        for number in range(self.count):
            begun = time.perf_counter()
            try:
                told = self._ask(self.pictures[number % len(self.pictures)])
            except Exception as error:  # noqa: BLE001  # any is counted
                self.wrong.append(repr(error))
                continue
            self.seconds.append(time.perf_counter() - begun)
            self.answers.append(told)
            if '"success":true' not in told.replace(" ", "") or "tulip" not in told:
                self.wrong.append(told[-300:])

    def _ask(self, file: Path) -> str:
        head = f'Content-Disposition: form-data; name="files"; filename="{file.name}"\r\n\r\n'.encode()
        body = b"----mark\r\n" + head + file.read_bytes() + b"\r\n----mark--\r\n"
        (path,) = self._send("upload", body, "multipart/form-data; boundary=--mark")
        photo = {"path": path, "meta": {"_type": "gradio.FileData"}}
        asked = {
            "data": [photo, *self.controls],
            "fn_index": self.look,
            "session_hash": self.session,
            "trigger_id": None,
        }
        self._send("queue/join?", json.dumps(asked).encode(), "application/json")
        told = ""
        place = f"{self.url}/gradio_api/queue/data?session_hash={self.session}"
        with urllib.request.urlopen(place, timeout=600) as lines:
            for line in lines:
                told += line.decode()
                if "process_completed" in told or "unexpected_error" in told:
                    return told
        return told


def _served(command: list[str], temporary: Path) -> tuple[Any, str]:
    """Starts the page; gradio gives its server 5 seconds to start, which a busy machine exceeds."""
    for _ in range(5):
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
            env={**os.environ, "TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:
            if found := re.search(r"serving on (http://\S+)", line):
                threading.Thread(target=process.stdout.read, daemon=True).start()
                return process, found[1].rstrip("/")
        process.wait()
    raise RuntimeError("the page did not start")


def page(clients: int, requests: int, root: Path) -> tuple[dict[str, Any], list[str]]:
    """`vithub demo` asked by several visitors at once."""
    (root / "temporary").mkdir()
    model = _model(root)
    process, url = _served([*COMMAND, "demo", str(model)], root / "temporary")
    try:
        with urllib.request.urlopen(f"{url}/config", timeout=600) as answer:
            config = json.load(answer)
        (look,) = [one for one in config["dependencies"]
                   if len(one["inputs"]) == 1 + CONTROLS and len(one["outputs"]) == ANSWERS]  # fmt: skip
        held = {one["id"]: one["props"].get("value") for one in config["components"]}
        controls = [held[number] for number in look["inputs"][1:]]
        files = _pictures(root, 20)
        visitors = [_Visitor(url, look["id"], controls, files, requests) for _ in range(clients)]
        before = time.perf_counter()
        for visitor in visitors:
            visitor.start()
        samples, opened = [], []
        while any(visitor.is_alive() for visitor in visitors):
            resident, descriptors = _status(process.pid)
            samples.append((sum(len(visitor.seconds) for visitor in visitors) / (clients * requests), resident))
            opened.append((samples[-1][0], descriptors))
            time.sleep(0.1)
        seconds = time.perf_counter() - before
    finally:
        process.send_signal(signal.SIGINT)
        code = process.wait()
    waited = sorted(one for visitor in visitors for one in visitor.seconds)
    cuts = statistics.quantiles(waited, n=100, method="inclusive")
    wrong = [text for visitor in visitors for text in visitor.wrong]
    # a picture has an address, under the folder that the page made; nothing else of the machine may be told
    secrets = (str(model.parent / "model"), "site-packages", str(Path.cwd()), "Traceback")
    told = [secret for secret in secrets for visitor in visitors for text in visitor.answers if secret in text]
    found = {
        "clients": clients, "requests": len(waited), "seconds": round(seconds, 1),
        "milliseconds": {name: round(1000 * cuts[at]) for name, at in (("p50", 49), ("p90", 89), ("p99", 98))},
        "slowest": round(1000 * waited[-1]), "without_answer": len(wrong), "paths_told": len(told), **growth(samples),
        "descriptors": {"warm": max(n for done, n in opened if done < 2 * WARM), "end": opened[-1][1]},
        "left": {"files": len(list((root / "temporary").iterdir())), "processes": len(_children(process.pid))},
    }  # fmt: skip
    wrong = [*wrong[:3], *told[:3]] + ([] if code in (0, 130) else [f"the page ended with {code}"])
    return found, wrong + ([f"left behind: {found['left']}"] if any(found["left"].values()) else [])


def main() -> int:
    """Runs the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("training", "pipeline", "page"))
    parser.add_argument("--steps", type=int, default=3000, help="of the training")
    parser.add_argument("--calls", type=int, default=2000, help="of the pipeline")
    parser.add_argument("--clients", type=int, default=8, help="of the page, at once")
    parser.add_argument("--requests", type=int, default=100, help="of each client")
    given = parser.parse_args()
    os.environ.update(
        {"HF_HUB_OFFLINE": "1", "MPLBACKEND": "Agg", "HF_HUB_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1"}
    )
    with tempfile.TemporaryDirectory(prefix="vithub-endurance-") as root:
        if given.what == "training":
            found, wrong = training(given.steps, Path(root))
        elif given.what == "pipeline":
            found, wrong = pipeline(given.calls, Path(root))
        else:
            found, wrong = page(given.clients, given.requests, Path(root))
    print(json.dumps(found))
    if found["growth_percent"] > 100 * MOST_GROWTH:
        wrong.append(f"memory grew by {found['growth_percent']} %")
    for text in wrong:
        print(f"wrong: {text}", file=sys.stderr)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
