"""Command `vithub explain` with its options, and its loop over the images."""

from pathlib import Path
from typing import Annotated, Any

import typer
from vithub.interpretability.explanation.method_names import METHOD_NAMES
from vithub.scripts.bad_images import check_on_bad_image, fail_after_all
from vithub.scripts.printing import say


def explain(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="a run's folder, any model's folder, or a Hub id")],
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="files, folders or URLs")],
    method: Annotated[
        list[str] | None,
        typer.Option(help="auto, all, or a method; may be given again  [default: auto]"),
    ] = None,
    output: Annotated[Path, typer.Option(help="folder for pictures, report.html and report.json")] = Path(
        "explanations"
    ),
    target: Annotated[str | None, typer.Option(help="class, by name or number  [default: the likeliest]")] = None,
    layer: Annotated[int | None, typer.Option(help="of attention and class activation maps  [default: found]")] = None,
    head: Annotated[int | None, typer.Option(help="of raw attention  [default: the mean of all]")] = None,
    token: Annotated[
        str | None, typer.Option(help="cls, distillation, mean, or a patch's number  [default: cls]")
    ] = None,
    query: Annotated[int | None, typer.Option(help="object query of a detector  [default: the surest]")] = None,
    steps: Annotated[int, typer.Option(min=1, help="passes of integrated gradients")] = 32,
    batch_size: Annotated[int, typer.Option(min=1, help="images at once in occlusion")] = 16,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace the report in --output")] = False,
    on_bad_image: Annotated[
        str, typer.Option(help="error: explain the others, then fail; skip: explain the others")
    ] = "error",
) -> None:
    """Explains a model's decisions: maps over the images, an HTML page and JSON."""
    chosen = _methods(method)
    check_on_bad_image(on_bad_image)
    from vithub.data.images import BadImageError
    from vithub.data.pixels.named_images import find_images, read_image
    from vithub.hub.any_model import load_any_model
    from vithub.interpretability.explanation.image_explanations import explain_image
    from vithub.interpretability.explanation.report import ExplanationReport
    from vithub.scripts.explain_progress import ExplainProgress
    from vithub.training.runtime.progress import TerminalReporter

    names = find_images(images)
    loaded, processor = load_any_model(model)
    options: dict[str, Any] = {
        "target": int(target) if target is not None and target.isdecimal() else target,
        "layer": layer, "head": head, "query": query, "steps": steps, "batch_size": batch_size,
        "token": int(token) if token is not None and token.isdecimal() else token,
    }  # fmt: skip
    wrong: list[str] = []
    report = ExplanationReport(output, Path(model).name or model, overwrite)
    with TerminalReporter() as reporter:
        progress = ExplainProgress(reporter, len(names), _count(chosen))
        for name in names:
            try:
                picture = read_image(name)
            except BadImageError as error:
                wrong.append(str(error))
                progress.skip_image()
                continue
            report.add(
                explain_image(
                    loaded, processor, picture, chosen, name=name, options=options,
                    on_method=progress.on_method, on_pass=progress.on_pass,
                )
            )  # fmt: skip
    if len(wrong) < len(names):
        say(f"the report is {report.close()}")
    if wrong:
        text = f"{len(wrong)} of {len(names)} images could not be decoded: {'; '.join(wrong)}"
        fail_after_all(text, on_bad_image if len(wrong) < len(names) else "error")


def _methods(names: list[str] | None) -> list[str]:
    """Returns the requested methods; "all" among them means all."""
    wanted = [name.replace("-", "_") for name in names or ["auto"]]
    if unknown := [name for name in wanted if name not in (*METHOD_NAMES, "auto", "all")]:
        known = ", ".join(["auto", "all", *METHOD_NAMES])
        raise typer.BadParameter(f"--method takes one of {known}, got {unknown[0]!r}")
    return ["all"] if "all" in wanted else list(dict.fromkeys(wanted))


def _count(methods: list[str]) -> int:
    return len(METHOD_NAMES) if methods == ["all"] else len(methods)


__all__ = ["explain"]
