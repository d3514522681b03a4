"""Damaged files of a run's folder while it is resumed, and of predictions of a data set while they are."""

import json
import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from . import damaging, stock
from .calling import command
from .case import Case, Place

AREA = "resuming"
LAST, BEFORE = "checkpoints/step-00000004", "checkpoints/step-00000002"
CUTS = 200  # of recipe.yaml, evenly over its length
FLIPS = 5  # of each file of tensors
STATE_VALUES: dict[str, Any] = {"null": None, "text": "x", "-1": -1, "a list": [[1]], "an object": {"a": [1]}}
STATE_KEYS = ("step", "history", "groups", "best", "best_epoch", "seconds", "skipped_steps", "bad_images")


def _resume(place: Place) -> tuple[Path, Path]:
    folder = place.folder / "run"
    with stock.no_drawing():
        command("finetune", "--output", folder, "--resume")
    return folder, stock.run(place.shared)


def _as_unbroken(answer: tuple[Path, Path]) -> str | None:
    """The weights, history and recipe are those of the run that nothing happened to."""
    from vithub.training.recipe.recipe import Recipe

    folder, whole = answer
    if (folder / "model.safetensors").read_bytes() != (whole / "model.safetensors").read_bytes():
        return "other weights than those of the unbroken run"
    histories = [json.loads((path / "metrics.json").read_text())["history"] for path in answer]
    found, wanted = [[row["validation_loss"] for row in history] for history in histories]
    if found != wanted:
        return f"another history than that of the unbroken run: {found}, not {wanted}"
    if Recipe.from_yaml(folder / "recipe.yaml") != Recipe.from_yaml(whole / "recipe.yaml"):
        return "recipe.yaml is another recipe"
    return None


def _case(name: str, file: str, damage: damaging.Damage, *, also: tuple[str, ...] = (), kept: str | None = BEFORE,
          fault: bool = True, short: bool = False) -> Case:  # fmt: skip
    """`--resume` of a run whose last checkpoint is damaged; what is whole of it must stay.

    `file` may have a `*` for the step in its name: the last such file is damaged.
    """

    def prepare(place: Place) -> None:
        folder = stock.copied_run(place.shared, place.folder / "run")
        (folder / "model.safetensors").unlink()  # as before its end
        (folder / "metrics.json").unlink()
        damaging.apply(damage, sorted(folder.glob(file))[-1])
        if kept is not None:
            place.keep(folder / kept)

    return Case(AREA, name, f"vithub finetune --output RUN --resume  ({name})", _resume, prepare, _as_unbroken,
                (Path(file).name.split("*")[0], *also), fault, 60, short)  # fmt: skip


def _checkpoints(seed: int) -> Iterator[Case]:
    draws = random.Random(seed)
    for file in ("model.safetensors", "optimizer.safetensors", "ema.safetensors", "state.json"):
        for what, damage in damaging.DAMAGES.items():
            short = file == "optimizer.safetensors" and what == "cut in half"
            yield _case(f"{file} of the last checkpoint {what}", f"{LAST}/{file}", damage, short=short)
        if file != "state.json":
            for number in range(FLIPS):
                # beyond the header, of some 5,000 bytes, in the tensors themselves
                place, bit = -draws.randrange(1, 100_000), draws.randrange(8)
                name = f"{file} of the last checkpoint with a flipped bit ({number})"
                yield _case(name, f"{LAST}/{file}", damaging.flip(place, bit), short=number == 0 and "ema" in file)
    for what, damage in damaging.JSON_FORMS.items():
        yield _case(f"state.json of the last checkpoint {what}", f"{LAST}/state.json", damage)
    for key in STATE_KEYS:
        yield _case(f"state.json without {key}", f"{LAST}/state.json", damaging.without_key((key,)))
        what, value = list(STATE_VALUES.items())[STATE_KEYS.index(key) % len(STATE_VALUES)]
        yield _case(f"state.json with {key} {what}", f"{LAST}/state.json", damaging.with_value((key,), value))
    for what in ("missing", "cut in half", "random bytes", "zeros"):
        best = "checkpoints/best-*.safetensors"
        yield _case(f"best.safetensors {what}", best, damaging.DAMAGES[what], short=what == "zeros")


def _cut(share: float, file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: min(len(content) - 1, int(share * len(content)))])


def _predict_rest(place: Place) -> tuple[list[Any], list[Any]]:
    """Goes on with predictions of a data set; all rows, and those of an unbroken prediction."""
    import pyarrow.parquet as pq

    out = place.folder / "out"
    _predict(stock.run(place.shared), out, place.shared, True)
    return tuple(
        [row for file in sorted(folder.glob("part-*.parquet")) for row in pq.read_table(file).to_pylist()]
        for folder in (out, _predicted(place.shared))
    )  # type: ignore[return-value]


def _predict(model: Path, out: Path, shared: Path, resume: bool) -> None:
    from vithub.training.dataset_prediction import predict_dataset

    predict_dataset(model, stock.photos(shared), out, rows_per_file=8, workers=0, resume=resume)


def _predicted(shared: Path) -> Path:
    return stock.made(shared, "predicted", lambda folder: _predict(stock.run(shared), folder, shared, False))


def _of_another_model(shared: Path) -> Path:
    def make(folder: Path) -> None:
        import safetensors.torch

        other = damaging.copy(stock.run(shared), shared / "other-run")
        weights = safetensors.torch.load_file(other / "model.safetensors")
        changed = {name: tensor.roll(1, 0).contiguous() for name, tensor in weights.items()}
        safetensors.torch.save_file(changed, other / "model.safetensors", {"format": "pt"})
        _predict(other, folder, shared, False)

    return stock.made(shared, "predicted-by-another", make)


def _prediction(name: str, file: str, damage: damaging.Damage | None, short: bool = False) -> Case:
    def prepare(place: Place) -> None:
        out = damaging.copy(_predicted(place.shared), place.folder / "out")
        if damage is None:
            (out / file).write_bytes((_of_another_model(place.shared) / file).read_bytes())
        else:
            damaging.apply(damage, out / file)

    return Case(
        AREA, name, f"vithub predict RUN --data PHOTOS --output OUT --resume  ({name})", _predict_rest, prepare,
        lambda answer: None if answer[0] == answer[1] else "other rows than an unbroken prediction has", (file, "out"),
        True, 60, short or damage is None,
    )  # fmt: skip


def cases(seed: int) -> Iterator[Case]:
    """Checkpoints, the recipe cut at many places, files that are missing, and predictions of a data set."""
    yield from _checkpoints(seed)
    for number in range(CUTS):
        yield _case(f"recipe.yaml cut at {number} of {CUTS}", "recipe.yaml", partial(_cut, number / CUTS),
                    short=number % 50 == 30)  # fmt: skip
    for what in ("missing", "random bytes", "zeros", "a folder"):
        yield _case(f"recipe.yaml {what}", "recipe.yaml", damaging.DAMAGES[what])
    for file in ("config.json", "README.md", "preprocessor_config.json"):
        for what in ("missing", "random bytes"):
            yield _case(f"{file} {what}", file, damaging.DAMAGES[what])
    for what, damage in damaging.DAMAGES.items():
        yield _prediction(f"part-000001.parquet {what}", "part-000001.parquet", damage)
    yield _prediction("part-000001.parquet of another model", "part-000001.parquet", None)
    for what, damage in damaging.JSON_FORMS.items():
        yield _prediction(f"about.json {what}", "about.json", damage, short=what == "deep nesting")


__all__ = ["cases"]
