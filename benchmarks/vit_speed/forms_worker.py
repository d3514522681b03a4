"""One contender of `forms.py` in a process of its own, driven as `worker.py` is."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from worker import forget_peak, measure

CALIBRATION_IMAGES = 16
EAGER = ("transformers", "timm", "vithub")


def pixels_of(job: dict[str, Any], count: int, seed: int = 0) -> torch.Tensor:
    """Random normalised images (count, 3, side, side), the same in every process."""
    side = job["image_size"]
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def eager_model(library: str, job: dict[str, Any]) -> Any:
    """Model of a library with the weights that all share, in evaluation mode."""
    folder = Path(job["weights"]) / library
    if library == "timm":
        import timm

        return timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    from transformers import AutoModelForImageClassification, AutoModelForObjectDetection

    import vithub  # noqa: F401  # so that its model types are known

    kind = AutoModelForObjectDetection if job["task"] == "detection" else AutoModelForImageClassification
    return kind.from_pretrained(folder).eval()


def outputs_of(found: Any) -> dict[str, torch.Tensor]:
    """Logits, and boxes of a detector, whatever a library returns."""
    if isinstance(found, torch.Tensor):
        return {"logits": found.float()}
    return {name: found[name].float() for name in ("logits", "pred_boxes") if found.get(name) is not None}


def opened(job: dict[str, Any]) -> tuple[Callable[[torch.Tensor], Any], torch.dtype]:
    """Function of a contender from pixels to its outputs, and the type of the pixels."""
    if job["engine"] in EAGER:
        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[job["precision"]]
        return eager_model(job["engine"], job).to(dtype), dtype
    if "folder" in job:
        import vithub

        exported = vithub.load_exported(job["folder"])
        return lambda pixels: exported(pixel_values=pixels), torch.float32
    from vithub.deployment.optimizing.answers import named_answers
    from vithub.deployment.optimizing.candidates import Candidate
    from vithub.deployment.optimizing.optimized_model import Calibration, open_candidate

    merged = job["token_merging"]
    source, work = Path(job["weights"]) / "vithub", Path(job["weights"]) / f"merged-{merged}"
    work.mkdir(exist_ok=True)
    calibration = None
    if job["precision"] == "int8":
        images, reference = pixels_of(job, CALIBRATION_IMAGES, seed=1), work / "reference.safetensors"
        if not reference.is_file():
            model = eager_model("vithub", job)
            with torch.inference_mode():
                answers = [named_answers(model(image[None]), number) for number, image in enumerate(images)]
            save_file({name: value for one in answers for name, value in one.items()}, reference)
        # random weights say nothing of accuracy: all layers are in int8, whatever they cost
        calibration = Calibration(pixels=list(images), reference=reference, until=0.0)
    candidate = Candidate(job["engine"], job["precision"], token_merging=merged)
    model = open_candidate(candidate, source, work, job["threads"], job["batch_size"], calibration)
    return lambda pixels: model(pixel_values=pixels), torch.float32


def file_bytes(job: dict[str, Any]) -> int:
    """Size of the files that a contender computes from."""
    if job["engine"] in EAGER:
        return sum(file.stat().st_size for file in (Path(job["weights"]) / job["engine"]).glob("*.safetensors"))
    if "folder" in job:
        return sum(size.stat().st_size for size in Path(job["folder"]).glob("*/*model*"))
    from vithub.hub.exported.forms import Form

    form, folder = Form(job["engine"], job["precision"]), Path(job["weights"]) / f"merged-{job['token_merging']}"
    places = [folder / form.name / name for name in form.files]
    return sum(place.stat().st_size for place in places if place.is_file())


def main() -> None:
    """Answers until the input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print must not mix with the answers
    job = json.loads(sys.stdin.readline())
    torch.set_num_threads(job["threads"])
    run, dtype = opened(job)
    pixels = pixels_of(job, job["batch_size"]).to(dtype)
    step = torch.inference_mode()(lambda: run(pixels))
    step()
    forget_peak()
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "check":
            found = {name: value[:2].tolist() for name, value in outputs_of(step()).items()}
            answer = {"outputs": found, "bytes": file_bytes(job)}
        else:
            answer = measure(step, "cpu", request["seconds"])
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
