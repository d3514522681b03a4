"""Choice of the fastest way to run a model on this machine, by measuring: the function behind `--fast`."""

import logging
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from PIL import Image
from transformers import PreTrainedModel

from ...configuration.model_task import CLASSIFICATION, DETECTION, model_task
from ...data.argument_names import argument
from ...data.image_processing import pixel_format
from ...data.images import BadImageError, decode_image
from ...data.pixels.named_images import find_images, read_image
from ...hub.checkpoints import CheckpointError, locate, read_config
from ...hub.exported.forms import read_records
from ...hub.inference_loading import load_processor
from ..exports.token_merging import ROTARY
from .answers import Agreement, compare_answers
from .candidates import REFERENCE, Candidate, candidates_for
from .kept_choice import FOLDER, choice_key, keep_choice, read_choice
from .measuring import Measurement, MeasuringProcess, Optimization
from .optimized_model import OptimizedModel, open_candidate

MOST_COMPARED, RANDOM_IMAGES = 64, 16  # images on which answers are compared
BATCH_SIZES = (1, 8, 32)
LEAST_GAIN = 1.05  # times eager fp32's speed, below which eager fp32 is kept
COMPILE_PAYS = 60.0  # seconds that eager fp32 must need for the run before compiling is tried
_LEAST_SECONDS = 2.0  # left of the time, below which no further candidate is tried
logger = logging.getLogger("vithub")


def optimize(
    model: str | Path | PreTrainedModel,
    *,
    images: Any = None,
    seconds: float = 60.0,
    expected_images: int | None = None,
    batch_sizes: Sequence[int] | None = None,
    token_merging: int = 0,
    int8: bool = False,
    data: str | Path | None = None,
    keep: bool = True,
    image_processor: Any = None,
    revision: str | None = None,
) -> OptimizedModel:
    """Chooses the fastest way to run a classifier or detector on this machine, by measuring, and loads it.

    Measured are eager fp32, bf16, a compiled model, OpenVINO and ONNX Runtime where they are installed, with several
    batch sizes and numbers of threads, each in a process of its own. One that fails, takes too long or gives other
    answers than eager fp32 is not used: the largest difference of a probability (of a detector: or of a side of a box,
    as part of the image) may be 0.01, and 99.5 % of the images (or boxes) must get the same label.

    Args:
        model: Folder of a run or of any saved classifier or detector, a Hub id, or a loaded model.
        images: Images to compare answers on: files, folders or PIL images, up to 64 of which are used; None compares on
            random pixels.
        seconds: Most seconds that measuring may take, besides the import of the libraries.
        expected_images: Number of images that will be run; compiling is left out where it cannot pay. None stands for
            any number.
        batch_sizes: Batch sizes to try; None means 1, 8 and 32 for a classifier and 1 for a detector.
        token_merging: Number of tokens to merge in each layer of a ViT or DeiT of this package, which changes the
            answers; 0 merges none. See `merge_tokens`.
        int8: Whether int8 files are made and measured too. With labelled images they must pass the accuracy check of
            `export`; else they are calibrated on `images`, on which their answers must be those of eager fp32.
        data: Labelled images for int8 to be calibrated with and measured on; None takes a run's own, and `images` for
            a model that is none of a run.
        keep: Whether the choice is kept in the folder `fast` in the model's own, and one that is kept there is used.
        image_processor: Image processor of a loaded model.
        revision: Branch, tag or commit of a Hub id.

    Returns:
        Model that gives the ordinary output class, whose attribute `optimization` says what was measured.

    Raises:
        CheckpointError: The model cannot be loaded.
        ValueError: An argument is out of its range or without effect, int8 has no images to be calibrated with, or
            tokens of this model cannot be merged.
    """
    _check(seconds, expected_images, batch_sizes, token_merging, int8, data)
    options = {
        "images": images, "seconds": seconds, "expected_images": expected_images, "batch_sizes": batch_sizes,
        "token_merging": token_merging, "int8": int8, "data": None if data is None else str(data),
    }  # fmt: skip
    if not isinstance(model, str | Path):
        if image_processor is None:
            raise ValueError(
                f"a loaded model needs {argument('image_processor')}, which says how an image becomes pixels"
            )
        with tempfile.TemporaryDirectory(prefix="vithub-fast-", ignore_cleanup_errors=True) as folder:
            model.save_pretrained(folder)
            image_processor.save_pretrained(folder)
            return _optimize(Path(folder), keep=False, **options)
    if image_processor is not None:
        raise ValueError(
            f"{argument('image_processor')} goes with a loaded model; that of {model} is read from its folder"
        )
    path = locate(model, revision)
    return _optimize(path, keep=keep and Path(model).expanduser().is_dir(), **options)


def _check(
    seconds: float, expected_images: int | None, batch_sizes: Sequence[int] | None, token_merging: int, int8: bool,
    data: Any,
) -> None:  # fmt: skip
    if seconds <= 0:
        raise ValueError(f"{argument('seconds')} must be above 0, got {seconds}")
    for name, values in {"expected_images": [expected_images], "batch_sizes": batch_sizes or []}.items():
        for value in values:
            if value is not None and value < 1:
                raise ValueError(f"{argument(name)} must be at least 1, got {value}")
    if token_merging < 0:
        raise ValueError(f"{argument('token_merging')} must be at least 0, got {token_merging}")
    if data is not None and not int8:
        raise ValueError(f"{argument('data')} is for int8 to be calibrated with; it needs {argument('int8')}")


def _optimize(
    path: Path, *, keep: bool, images: Any, seconds: float, expected_images: int | None,
    batch_sizes: Sequence[int] | None, token_merging: int, int8: bool, data: str | None,
) -> OptimizedModel:  # fmt: skip
    task = model_task(read_config(path))
    if task not in (CLASSIFICATION, DETECTION):
        raise CheckpointError(f"{path} is neither a classifier nor a detector, whose answers could be compared")
    if token_merging:
        _check_token_merging(path)
    sizes = list(batch_sizes or (BATCH_SIZES if task == CLASSIFICATION else (1,)))
    key = choice_key(path, {"batch_sizes": sizes, "token_merging": token_merging, "int8": int8}) if keep else {}
    if keep:
        found, why_not = read_choice(path, key, images is not None)
        if why_not is not None:
            logger.warning("the choice kept in %s is not used: %s", path / FOLDER, why_not)
        if found is not None:
            try:
                return _opened(
                    path, path / FOLDER, replace(found, **_choice(found.measurements, expected_images, found))
                )
            except (CheckpointError, RuntimeError, ValueError, OSError) as error:
                logger.warning("the choice kept in %s is not used: %s", path / FOLDER, _line(error))
    _check_int8(int8, path, images, data)
    with tempfile.TemporaryDirectory(prefix="vithub-fast-", ignore_cleanup_errors=True) as folder:
        work = Path(folder)
        begun = time.monotonic()
        together, given, compared_on = _write_pixels(path, work, images, task)
        rows = _measured(path, work, task, seconds, expected_images, sizes, token_merging, int8, data, together, given)
        while True:
            choice = _choice(rows, expected_images)
            found = Optimization(tuple(rows), **choice, compared_on=compared_on, seconds=time.monotonic() - begun)
            try:
                model = _opened(path, work, found)
                break
            except (CheckpointError, RuntimeError, ValueError, OSError) as error:
                if found.chosen.candidate == REFERENCE:
                    raise
                failed = rows.index(found.chosen)
                rows[failed] = replace(rows[failed], refused=f"it could not be loaded here: {_line(error)}")
        if keep and found.chosen.seconds is not None:
            try:
                model.optimization = replace(found, kept=keep_choice(path, work, key, found, images is not None))
            except OSError as error:
                logger.warning("the choice is not kept beside the model: %s", error)
        return model


def _check_token_merging(path: Path) -> None:
    """Refuses other models by the type that their configuration names, before any of them is loaded."""
    config = read_config(path)
    kind = config.get("model_type")
    if kind not in ("vithub_vit", "vithub_deit"):
        raise ValueError(
            f"{argument('token_merging')} is for the ViT and DeiT classifiers of this package, and {path} is of type "
            f"{kind!r}"
        )
    if config.get("position_embedding_type") == ROTARY:
        raise ValueError(
            f"{argument('token_merging')} is not for rotary positions, which {path} has: merged tokens have no place"
        )


def _opened(path: Path, work: Path, found: Optimization) -> OptimizedModel:
    row = found.chosen
    model = open_candidate(row.candidate, path, work, row.threads, row.batch_size or 1)
    model.optimization = found
    return model


def _write_pixels(path: Path, work: Path, images: Any, task: str) -> tuple[bool, bool, str]:
    """Writes the pixels to compare answers on.

    Returns:
        Whether all have one shape, whether they are of given images, and what they are of in words.
    """
    processor = load_processor(path)
    given = [] if images is None else _given_images(images)
    compared_on, real = f"{len(given)} given image{'' if len(given) == 1 else 's'}", bool(given)
    if not given:
        height, width = (160, 128) if task == DETECTION else pixel_format(processor).image_hw
        draws = torch.Generator().manual_seed(0)
        noise = torch.randint(256, (RANDOM_IMAGES, height, width, 3), generator=draws, dtype=torch.uint8)
        given = [Image.fromarray(one.numpy()) for one in noise]
        compared_on = f"{len(given)} images of random pixels"
    pixels = [processor(image, return_tensors="pt")["pixel_values"][0] for image in given]
    safetensors.torch.save_file(
        {f"{number:04}": one.contiguous() for number, one in enumerate(pixels)}, work / "pixels.safetensors"
    )
    return len({one.shape for one in pixels}) == 1, real, compared_on


def _given_images(images: Any) -> list[Image.Image]:
    """Up to `MOST_COMPARED` decoded images, evenly over those given; images that cannot be decoded are left out."""
    several = [images] if isinstance(images, str | Path | Image.Image) else list(images)
    names: list[Any] = [
        name for one in several for name in (find_images([one]) if isinstance(one, str | Path) else [one])
    ]
    found = []
    for number in range(min(MOST_COMPARED, len(names))):
        one = names[number * len(names) // min(MOST_COMPARED, len(names))]
        try:
            found.append(read_image(one) if isinstance(one, str) else decode_image(one))
        except BadImageError:
            continue
    return found


def _measured(
    path: Path, work: Path, task: str, seconds: float, expected_images: int | None, sizes: list[int],
    token_merging: int, int8: bool, data: str | None, together: bool, given: bool,
) -> list[Measurement]:  # fmt: skip
    """Measures the reference and all candidates within the time; `given` tells that images were given."""
    most = torch.get_num_threads()
    threads = [most, most // 2] if most > 1 else [1]  # fewer are faster where others use the cores, or share them
    config = read_config(path)
    multi_label = config.get("problem_type") == "multi_label_classification"
    begun = time.monotonic()
    with MeasuringProcess(path, work, data, calibrate=given and not _labelled(path, data)) as process:
        reference = process.measure(REFERENCE, seconds / 2, None, threads, sizes, together)
        rows = [reference]
        if reference.seconds is None:
            return rows
        todo = candidates_for(token_merging, int8, compiled=True)
        for number, candidate in enumerate(todo):
            why_not = candidate.missing() or _no_compiling(candidate, task, reference, expected_images)
            left = seconds - (time.monotonic() - begun - process.waited)  # without the import of the libraries
            if why_not is None and left < _LEAST_SECONDS:
                why_not = f"the {seconds:g} s for measuring were over"
            if why_not is not None:
                rows.append(Measurement(candidate, refused=why_not))
                continue
            good = [row for row in rows if row.refused is None]
            best = min(good, key=lambda row: row.seconds or float("inf"))
            limit = left / min(2, len(todo) - number)  # one may take half of the time that is left
            # one size and number of threads, since the model is compiled anew for each
            mine = [best.batch_size or 1] if candidate.compiled else sizes
            counts = [best.threads or most] if candidate.compiled else threads
            # the answers of eager fp32 with merged tokens are what others are compared with, however slow it is
            against = None if candidate == Candidate("torch", token_merging=token_merging) else best.seconds
            row = process.measure(candidate, limit, against, counts, mine, together)
            if row.refused is None:
                row = _compared(process, row, rows, multi_label, _num_labels(config))
            rows.append(row)
    return rows


def _labelled(path: Path, data: Any) -> bool:
    """Returns True if labelled images for calibrating int8 are given, or if the run's own data can be read."""
    return data is not None or (path / "recipe.yaml").is_file()


def _check_int8(int8: bool, path: Path, images: Any, data: Any) -> None:
    """Raises a `ValueError` where nothing is there to calibrate int8 with, and no int8 file was exported before."""
    if not int8 or images is not None or _labelled(path, data):
        return
    if "int8" not in {name.partition("-")[2] for name in read_records(path)}:
        raise ValueError(
            f"{argument('int8')} is calibrated with images: give {argument('images')}, or labelled ones as "
            f"{argument('data')}"
        )


def _no_compiling(
    candidate: Candidate, task: str, reference: Measurement, expected_images: int | None
) -> str | None:  # fmt: skip
    """Why a model is not compiled; None if it is, or if the candidate is another."""
    if not candidate.compiled:
        return None
    if task == DETECTION:
        return "a detector would be compiled again for each size of image"
    if expected_images is not None and expected_images * (reference.seconds or 0) < COMPILE_PAYS:
        return f"compiling cannot pay within {expected_images} images"
    return None


def _num_labels(config: dict[str, Any]) -> int:
    named = config.get("id2label")
    return len(named) if isinstance(named, dict) else int(config.get("num_labels") or 2)


def _compared(
    process: MeasuringProcess, row: Measurement, rows: list[Measurement], multi_label: bool, num_labels: int
) -> Measurement:
    """Row with its agreement, and with the reason why it is refused if there is one."""
    candidate = row.candidate
    changed = Candidate("torch", token_merging=candidate.token_merging)
    against = REFERENCE if candidate == changed else changed
    if against not in [other.candidate for other in rows if other.refused is None]:
        return replace(row, refused=f"there are no answers of {against.name} to compare its own with")
    found: Agreement = compare_answers(
        process.answers_of(against), process.answers_of(candidate), multi_label, num_labels
    )
    # merged tokens and int8 change answers: the one was asked for, and the other may have its accuracy checked
    meant = candidate == changed or row.gated
    reason = found.wrong if meant else found.reason
    return replace(row, difference=found.difference, agreement=found.share, images=found.images, refused=reason)


def _choice(
    rows: Sequence[Measurement], expected_images: int | None, kept: Optimization | None = None
) -> dict[str, Any]:
    """The fastest row that may be used, and why it is taken: for a run of `expected_images`, compiling counted in.

    Of a kept choice only the chosen file is there.
    """

    def cost(row: Measurement) -> float:
        once = row.first_seconds / expected_images if row.candidate.compiled and expected_images else 0.0
        return (row.seconds or float("inf")) + once

    reference = rows[0]
    if reference.seconds is None:
        return {"chosen": reference, "why": f"eager fp32 could not be measured: {reference.refused}"}
    usable = [row for row in rows if row.refused is None]
    if kept is not None:
        usable = [row for row in usable if row.candidate.form is None or row == kept.chosen]
    best = min(usable, key=cost)
    gain = reference.seconds / cost(best)
    if best is reference or gain < LEAST_GAIN:
        return {"chosen": reference, "why": f"no other is at least {LEAST_GAIN:g} times as fast"}
    loss = ""
    if best.candidate.token_merging:
        merged = next(
            row for row in rows if row.candidate == Candidate("torch", token_merging=best.candidate.token_merging)
        )
        loss = (
            f"; merging tokens leaves {merged.agreement:.1%} of the labels as they are, and changes probabilities by "
            f"up to {merged.difference:.2g}"
        )
    return {"chosen": best, "why": f"{gain:.2f} times as fast as eager fp32{loss}"}


def _line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


__all__ = ["BATCH_SIZES", "LEAST_GAIN", "MOST_COMPARED", "optimize"]
