"""Damaged files of a published folder, under every command that reads one."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from . import damaging, stock
from .calling import command, warned
from .case import Case, Place
from .judging import strict_json

AREA = "published folder"
PHOTO = "cat/3.png"


def _predict(folder: Path, place: Path, shared: Path) -> Any:
    return [row["predictions"] for row in _lines(command("predict", folder, stock.photos(shared) / PHOTO, "--json"))]


def _evaluate(folder: Path, place: Path, shared: Path) -> Any:
    said = command("evaluate", folder, "--data", stock.photos(shared), "--split", "train", "--json")
    return strict_json(said.strip().splitlines()[-1])["metrics"]


def _explain(folder: Path, place: Path, shared: Path) -> Any:
    command("explain", folder, stock.photos(shared) / PHOTO, "--output", place / "why", "--method", "rollout")
    report = strict_json((place / "why" / "report.json").read_text())
    return [report[key] for key in sorted(report) if key not in ("model", "seconds", "versions")] and _numbers(report)


def _convert(folder: Path, place: Path, shared: Path) -> Any:
    command("convert", folder, place / "converted", "--to", "transformers")
    return (place / "converted" / "model.safetensors").read_bytes()


def _load(folder: Path, place: Path, shared: Path) -> Any:
    import torch

    import vithub

    model = vithub.load(folder)
    with torch.inference_mode():
        pixels = torch.linspace(-1, 1, 432).reshape(1, 3, 12, 12)
        return model(pixel_values=pixels)[0].tolist()


def _publish(folder: Path, place: Path, shared: Path) -> Any:
    report = strict_json(command("publish", folder, "ada/model", "--dry-run", "--json"))
    return sorted(file["path"] for file in report["files"] if file["sent"])


COMMANDS: dict[str, Callable[[Path, Path, Path], Any]] = {
    "predict": _predict,
    "evaluate": _evaluate,
    "explain": _explain,
    "convert": _convert,
    "load": _load,
    "publish --dry-run": _publish,
}
# The files that a command does not need: it answers as if they were whole.
_NOT_READ = {
    "README.md": {"predict", "evaluate", "explain", "convert", "load"},
    "recipe.yaml": {"predict", "evaluate", "explain", "convert", "load", "publish --dry-run"},
    "metrics.json": {"predict", "evaluate", "explain", "convert", "load", "publish --dry-run"},
}


def _lines(said: str) -> list[Any]:
    return [strict_json(line) for line in said.splitlines() if line.startswith("{")]


def _numbers(content: Any) -> list[float]:
    """All numbers of a report but its times."""
    if isinstance(content, dict):
        return [n for key, value in content.items() if "second" not in str(key) for n in _numbers(value)]
    if isinstance(content, list):
        return [n for value in content for n in _numbers(value)]
    return [content] if isinstance(content, (int, float)) else []


@cache
def _undamaged(name: str, stocked: str, shared: Path) -> str:
    """What a command answers for the whole folder."""
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        return repr(COMMANDS[name](getattr(stock, stocked)(shared), Path(place), shared))


def folder_case(
    command_name: str, what: str, file: str, damage: damaging.Damage, *, stocked: str = "run", area: str = AREA,
    fault: bool = True, also: tuple[str, ...] = (), same: bool | None = True, short: bool = False,
) -> Case:  # fmt: skip
    """A command on a copy of a stocked folder with one damaged file.

    Args:
        command_name: One of `COMMANDS`.
        what: How the file is damaged, in words.
        file: Its name.
        damage: Does it.
        stocked: Name of the function of `stock` that makes the folder.
        area: Of the case.
        fault: As for `Case`.
        also: Further texts by which an error may name what is wrong.
        same: Whether an answer has to be that of the whole folder; False where any is silently wrong, None where any is
            right.
        short: As for `Case`.
    """

    def prepare(place: Place) -> None:
        folder = damaging.copy(getattr(stock, stocked)(place.shared), place.folder / "model")
        damaging.apply(damage, folder / file)
        _undamaged(command_name, stocked, place.shared)
        place.keep(folder, stock.photos(place.shared))

    def act(place: Place) -> Any:
        return (repr(COMMANDS[command_name](place.folder / "model", place.folder, place.shared)), place.shared)

    def right(answer: Any) -> str | None:
        if same is None:
            return None
        if not same:
            return f"answered, although {file} is {what}"
        found, shared = answer
        if found == _undamaged(command_name, stocked, shared):
            return None
        return f"answered otherwise than with a whole {file}: {found[:120]}"

    call = f"vithub {command_name} FOLDER, with {file} {what}" + ("" if stocked == "run" else f" ({stocked})")
    names = (file, *also)
    return Case(area, call.removeprefix("vithub "), call, act, prepare, right, names, fault, 60, short)


def cases(seed: int) -> Iterator[Case]:
    """Every command with every damage of every file it reads, and one damage of those it does not."""
    for name in COMMANDS:
        for what, damage in damaging.DAMAGES.items():
            yield folder_case(name, what, "model.safetensors", damage, short=what == "cut in half")
            yield folder_case(name, what, "config.json", damage, short=name == "predict" and what == "empty")
        for what in ("missing", "cut in half"):
            processor = "preprocessor_config.json"
            optional = name in ("load", "convert") and what == "missing"  # a model can be used without one
            if name == "publish --dry-run" and what == "missing":
                yield _published_without_a_processor()
            else:
                yield folder_case(name, what, processor, damaging.DAMAGES[what], same=optional,
                                  short=name == "explain" and what == "missing")  # fmt: skip
        for file, unread in _NOT_READ.items():
            if name in unread:
                yield folder_case(name, "random bytes", file, damaging.DAMAGES["random bytes"])
        for what, damage in damaging.JSON_FORMS.items():
            yield folder_case(name, what, "config.json", damage, short=name == "load" and what == "a list")
        for what in ("null", "a list", "text", "a number"):
            yield folder_case(name, what, "preprocessor_config.json", damaging.JSON_FORMS[what], same=False)
        for place in (0, 3, 9, 40):
            what = f"with a flipped bit in byte {place}"
            yield folder_case(name, what, "model.safetensors", damaging.flip(place))
    for what, damage in damaging.JSON_FORMS.items():
        yield _own_data("metrics.json", what, damage)
    yield _own_data("recipe.yaml", "without its last two lines", _without_last_lines, short=True)
    for what in ("missing", "empty", "cut in half", "random bytes", "zeros"):
        yield _own_data("recipe.yaml", what, damaging.DAMAGES[what])
        yield _own_data("metrics.json", what, damaging.DAMAGES[what])


def _published_without_a_processor() -> Case:
    """A model may be published without an image processor, as backbones are; it must be told."""
    processor = "preprocessor_config.json"

    def prepare(place: Place) -> None:
        folder = damaging.copy(stock.run(place.shared), place.folder / "model")
        damaging.apply(damaging.DAMAGES["missing"], folder / processor)

    def act(place: Place) -> tuple[list[str], list[str], str]:
        whole = _publish(stock.run(place.shared), place.folder, place.shared)
        with warned() as told:
            return _publish(place.folder / "model", place.folder, place.shared), whole, told.getvalue()

    def right(answer: tuple[list[str], list[str], str]) -> str | None:
        found, whole, told = answer
        if processor not in told:
            return f"answered without a word of {processor}"
        return None if found == [name for name in whole if name != processor] else f"other files: {found}"

    call = f"vithub publish --dry-run FOLDER, with {processor} missing"
    return Case(AREA, call.removeprefix("vithub "), call, act, prepare, right, (processor,), True, 60, True)


def _without_last_lines(file: Path) -> None:
    """What is left is whole YAML of whole fields."""
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-2]))


def _own_data(file: str, what: str, damage: damaging.Damage, short: bool = False) -> Case:
    """`vithub evaluate` of a run on its own data, which `recipe.yaml` and `metrics.json` name."""

    def prepare(place: Place) -> None:
        folder = damaging.copy(stock.run(place.shared), place.folder / "model")
        damaging.apply(damage, folder / file)

    call = f"vithub evaluate FOLDER (own data), with {file} {what}"
    return Case(
        AREA, call.removeprefix("vithub "), call, lambda place: command("evaluate", place.folder / "model", "--json"),
        prepare, lambda answer: f"answered, although {file} is {what}", (file,), True,
        short=short,
    )  # fmt: skip


__all__ = ["COMMANDS", "cases", "folder_case"]
