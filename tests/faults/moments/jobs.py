"""Commands that faults strike: how each is begun, gone on with afterwards, and what it leaves."""

import hashlib
import itertools
import json
import os
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import stock
from ..calling import captured, command

CLOCKS = ("images_per_second", "peak_memory_mb", "seconds", "waited_for_images", "finished", "made", "energy")
_NUMBERS = itertools.count()


def ours(call: Callable[[], Any]) -> str:
    """Calls a function of the package as a command is called; what it writes."""
    from vithub.scripts.command_line import run

    return captured(lambda: run(call))


def contents(folder: Path) -> dict[str, str]:
    """Hash of each file of a folder by path; JSON without its clocks."""
    found = {}
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            content = file.read_bytes()
            if file.suffix == ".json":
                content = json.dumps(_timeless(json.loads(content))).encode()
            found[file.relative_to(folder).as_posix()] = hashlib.sha256(content).hexdigest()
    return found


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(inner) for key, inner in value.items() if key not in CLOCKS}
    return [_timeless(inner) for inner in value] if isinstance(value, list) else value


class Job(ABC):
    """A command with its output in `folder/out`.

    Args:
        shared: Folder of the stock.
    """

    name: str
    replaces = False  # whether an earlier output stays until the new one is whole

    def __init__(self, shared: Path) -> None:
        self.shared = shared

    def prepare(self, folder: Path) -> None:  # noqa: B027  # some find nothing
        """Makes what the command finds."""

    @abstractmethod
    def begin(self, folder: Path) -> None:
        """Runs the command."""

    def finish(self, folder: Path) -> None:
        """Goes on after a fault, as a person would."""
        self.begin(folder)

    def left(self, folder: Path) -> dict[str, str]:
        """Hashes and figures of what the command has written, by name, to compare with those of an unbroken one."""
        return contents(folder / "out")

    def unsound(self, folder: Path) -> str | None:
        """Describes damage to the last good state after a fault; None if that state is there and loads."""
        return None

    def place(self, kind: str, path: str) -> str:
        """Names a moment's place."""
        return self.name


class Training(Job):
    """`vithub finetune` of 2 epochs of 2 steps, with an average of the weights."""

    name = "finetune"
    workers = 0

    def __init__(self, shared: Path) -> None:
        super().__init__(shared)
        self.progress = False

    def prepare(self, folder: Path) -> None:
        self.progress = False
        shutil.copytree(photos(self.shared), folder / "data")

    def begin(self, folder: Path) -> None:
        values = {"training.ema_decay": 0.9, "training.batch_size": 6, "data.workers": self.workers}
        stock.train(folder / "data", folder / "out", values)

    def finish(self, folder: Path) -> None:
        self.progress = False
        if (folder / "out" / "recipe.yaml").is_file():
            command("finetune", "--output", folder / "out", "--resume", "--set", "data.workers=0")
        else:
            self.begin(folder)

    def left(self, folder: Path) -> dict[str, str]:
        found = contents(folder / "out")
        found.pop("recipe.yaml")  # it and its copies name the folder of the data
        for name in list(found):
            if name.endswith(("README.md", "SHA256SUMS", "state.json", "metrics.json")):
                found[name] = "there"
        metrics = json.loads((folder / "out" / "metrics.json").read_text())
        kept = ("validation", "test", "published_epoch", "history", "skipped_steps", "bad_images")
        return found | {name: json.dumps(_timeless(metrics[name])) for name in kept}

    def unsound(self, folder: Path) -> str | None:
        from vithub.training.loop.checkpoint_faults import checkpoint_fault
        from vithub.training.loop.checkpoints import checkpoints

        return next(filter(None, map(checkpoint_fault, checkpoints(folder / "out" / "checkpoints"))), None)

    def place(self, kind: str, path: str) -> str:
        if kind in ("task", "step"):
            self.progress = True
            return "step" if path.startswith("epoch") else "evaluation"
        if "/checkpoints" in path:
            return "checkpoint"
        if path.endswith((".md", ".png", ".jpg")):
            return "card"
        if "/data" in path:
            return "reading"
        return "finished model" if self.progress else "beginning"


class Prediction(Job):
    """`predict --data` into Parquet files of 3 rows."""

    name = "predict"

    def prepare(self, folder: Path) -> None:
        shutil.copytree(photos(self.shared), folder / "data")

    def begin(self, folder: Path) -> None:
        self._predict(folder, resume=False)

    def finish(self, folder: Path) -> None:
        self._predict(folder, resume=(folder / "out" / "about.json").is_file())

    def _predict(self, folder: Path, resume: bool) -> None:
        from vithub.training.dataset_prediction import predict_dataset

        os.chdir(folder)  # so that the name of the data is the same in each folder
        ours(lambda: predict_dataset(stock.run(self.shared), "data", folder / "out", rows_per_file=3, workers=0,
                                     resume=resume))  # fmt: skip

    def place(self, kind: str, path: str) -> str:
        return "reading" if "/data" in path else self.name


class Evaluation(Job):
    """`evaluate --output`, whose counts are resumed."""

    name = "evaluate"

    def prepare(self, folder: Path) -> None:
        shutil.copytree(photos(self.shared), folder / "data")

    def begin(self, folder: Path) -> None:
        self._evaluate(folder)

    def finish(self, folder: Path) -> None:
        if not (folder / "out").is_dir():
            self._evaluate(folder, *(["--resume"] if (folder / ".out.partial").is_dir() else []))

    def _evaluate(self, folder: Path, *further: str) -> None:
        os.chdir(folder)
        command("evaluate", stock.run(self.shared), "--data", "data", "--output", folder / "out", "--workers", 0,
                "--batch-size", 3, *further)  # fmt: skip

    def place(self, kind: str, path: str) -> str:
        return "reading" if "/data" in path else self.name


class Conversion(Job):
    """`convert --to transformers`, into a new folder."""

    name = "convert"

    def begin(self, folder: Path) -> None:
        if not self._done(folder):
            command("convert", stock.run(self.shared), folder / "out", "--to", "transformers")

    def _done(self, folder: Path) -> bool:
        return (folder / "out").is_dir()

    def unsound(self, folder: Path) -> str | None:
        return loads(folder / "out") if self._done(folder) else None


class Overwriting(Job):
    """`convert --overwrite`, in the place of an earlier model."""

    name = "overwrite"
    replaces = True

    def prepare(self, folder: Path) -> None:
        shutil.copytree(stock.run(self.shared), folder / "out", ignore=shutil.ignore_patterns("checkpoints"))

    def begin(self, folder: Path) -> None:
        command("convert", stock.run(self.shared), folder / "out", "--to", "transformers", "--overwrite")

    def unsound(self, folder: Path) -> str | None:
        return loads(folder / "out")


class Exporting(Job):
    """`export RUN onnx` into the run's own folder."""

    name = "export"

    def prepare(self, folder: Path) -> None:
        shutil.copytree(stock.run(self.shared), folder / "out", ignore=shutil.ignore_patterns("checkpoints"))

    def begin(self, folder: Path) -> None:
        command("export", folder / "out", "--overwrite")

    def left(self, folder: Path) -> dict[str, str]:
        found = contents(folder / "out")
        return {name: "there" if name in ("README.md", "export.json") else found[name] for name in found}

    def unsound(self, folder: Path) -> str | None:
        return loads(folder / "out")


class Publishing(Job):
    """`publish` to a loopback Hub, over an earlier commit.

    Args:
        shared: Folder of the stock.
        hub: The Hub.
    """

    name = "publish"
    token = "hf_adaWritesEverythingOfHers01"

    def __init__(self, shared: Path, hub: Any) -> None:
        super().__init__(shared)
        self.hub, self.repo, self.old = hub, "", {}

    def prepare(self, folder: Path) -> None:
        import numpy as np
        import safetensors.numpy

        self.repo = f"ada/model-{os.getpid()}-{next(_NUMBERS)}"
        for name, number in (("earlier", 0), ("out", 1)):
            (folder / name).mkdir()
            weights = np.random.default_rng([number, next(_NUMBERS)]).standard_normal((64, 64), dtype=np.float32)
            safetensors.numpy.save_file({"layer.weight": weights}, folder / name / "model.safetensors")
            (folder / name / "config.json").write_text(f'{{"model_type": "vithub_vit", "number": {number}}}')
            (folder / name / "preprocessor_config.json").write_text(f'{{"number": {number}}}')
        (folder / "out" / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A model\n")
        held = {file.name: file.read_bytes() for file in sorted((folder / "earlier").iterdir())}
        blobs = {name: self.hub.store.keep(content, name.endswith(".safetensors")) for name, content in held.items()}
        repository = self.hub.store.create("model", self.repo, private=False)
        repository.commit("main", "earlier", "", "ada", lambda files: files.update(blobs))

    def begin(self, folder: Path) -> None:
        import vithub

        pause = time.sleep
        time.sleep = lambda seconds: pause(min(seconds, 0.002))  # the waits between attempts
        try:
            ours(lambda: vithub.publish(folder / "out", self.repo, check=False, tag="v1", token=self.token))
        finally:
            time.sleep = pause

    def _held(self) -> dict[str, str]:
        found = dict(self.hub.store.files(self.repo))
        return {name: found[name] for name in found if name not in (".gitattributes", "manifest.json")}

    def left(self, folder: Path) -> dict[str, str]:
        repository = self.hub.store.repositories["model", self.repo]
        own = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in (folder / "out").iterdir()}
        return {
            "files": "those of the folder" if self._held() == own else f"other files: {sorted(self._held())}",
            "commits": str(len(repository.history("main"))),
            "tag": str(repository.refs.get("refs/tags/v1") == repository.resolve("main").oid),
        }

    def unsound(self, folder: Path) -> str | None:
        held = self._held()
        for name in ("earlier", "out"):
            if held == {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in (folder / name).iterdir()}:
                return None
        return f"a mixture of two models in the repository: {sorted(held)}"


def loads(folder: Path) -> str | None:
    """Describes why the model of a folder cannot be loaded; None if it can."""
    from vithub.hub.any_model import load_any_model

    try:
        load_any_model(folder)
    except Exception as error:  # noqa: BLE001  # told
        return f"{folder.name} does not load: {type(error).__name__}: {str(error)[:150]}"
    return None


def photos(shared: Path) -> Path:
    """A third of the photos of the stock, so that a training is short."""

    def make(folder: Path) -> None:
        for name in stock.CLASSES:
            (folder / name).mkdir(parents=True)
            for number in range(7):
                shutil.copy(stock.photos(shared) / name / f"{number}.png", folder / name)

    return stock.made(shared, "fewer-photos", make)


__all__ = [
    "Conversion", "Evaluation", "Exporting", "Job", "Overwriting", "Prediction", "Publishing", "Training", "contents",
]  # fmt: skip
