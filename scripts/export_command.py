"""`vithub export`: writes a model for another runtime, and keeps the file only if it computes the same."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from vithub.scripts.printing import say

if TYPE_CHECKING:
    from vithub.deployment.exporting import Export

EXPORT_FORMATS = {"onnx": ("fp32", "fp16", "int8"), "openvino": ("fp32", "bf16", "fp16", "int8")}


def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="a run's folder, any saved model, or a Hub id")],
    format_: Annotated[str, typer.Option("--format", help="onnx or openvino")] = "onnx",
    precision: Annotated[
        str, typer.Option(help="fp32, fp16, int8 (calibrated with images), or bf16 (OpenVINO alone)")
    ] = "fp32",
    output: Annotated[str | None, typer.Option(help="new folder  [default: the model's own folder]")] = None,
    data: Annotated[
        str | None,
        typer.Option(help="labelled images, as for finetune, to measure the file on  [default: the run's for int8]"),
    ] = None,
    split: Annotated[str | None, typer.Option(help="of --data to measure on  [default: test, or the last]")] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(min=0, help="most points of accuracy, or AP50, that it may lose  [default: 0.5, or 1.0]"),
    ] = None,
    dynamic_size: Annotated[
        bool, typer.Option("--dynamic-size", help="images of any size, for a ViT or DeiT of ours, and detectors")
    ] = False,
    with_preprocessing: Annotated[
        bool, typer.Option("--with-preprocessing", help="ONNX: uint8 pixels of any size in, probabilities or boxes out")
    ] = False,
    token_merging: Annotated[
        int | None,
        typer.Option(min=1, help="tokens that a ViT or DeiT of ours merges in each layer  [default: none]"),
    ] = None,
    web: Annotated[
        bool, typer.Option("--web", help="make --output a web page that runs the ONNX file in the visitor's browser")
    ] = False,
    web_runtime: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="where npm installed onnxruntime-web  [default: loaded once, by hash]"),
    ] = None,
    calibration_images: Annotated[int, typer.Option(min=1, help="training images to calibrate int8 with")] = 100,
    revision: Annotated[str | None, typer.Option(help="branch, tag or commit of a Hub id  [default: main]")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace a form that is there already")] = False,
    json_: Annotated[bool, typer.Option("--json", help="print the record as JSON")] = False,
) -> None:
    """Exports a model to ONNX or OpenVINO; a file that computes something else than the model is not kept."""
    if format_ not in EXPORT_FORMATS:
        raise typer.BadParameter(f"--format takes one of {', '.join(EXPORT_FORMATS)}, got {format_!r}")
    if precision not in EXPORT_FORMATS[format_]:
        raise typer.BadParameter(
            f"--precision of {format_} takes one of {', '.join(EXPORT_FORMATS[format_])}, got {precision!r}"
        )
    if with_preprocessing and (dynamic_size or format_ != "onnx"):
        raise typer.BadParameter("--with-preprocessing goes with --format onnx, and without --dynamic-size")
    _check_web(web, web_runtime, format_, output, with_preprocessing or dynamic_size)
    if output is not None and Path(output).is_file():
        raise typer.BadParameter(f"--output takes a folder, and {output} is a file")
    from vithub.data.text.json_text import json_text
    from vithub.deployment.exporting import export as run
    from vithub.training.runtime.progress import TerminalReporter

    with TerminalReporter() as reporter:
        made = run(
            model, format_, precision=precision, output=output, data=data, split=split, max_drop=max_drop,
            dynamic_size=dynamic_size, with_preprocessing=with_preprocessing, token_merging=token_merging or 0, web=web,
            web_runtime=web_runtime, calibration_images=calibration_images, revision=revision, overwrite=overwrite,
            reporter=reporter,
        )  # fmt: skip
    if json_:
        typer.echo(json_text(made.record))
        return
    for line in summary(made):
        say(line)


def _check_web(web: bool, web_runtime: str | None, format_: str, output: str | None, other: bool) -> None:
    if web_runtime is not None and not web:
        raise typer.BadParameter("--web-runtime goes with --web")
    if web and (format_ != "onnx" or output is None or other):
        raise typer.BadParameter(
            "--web goes with --format onnx and --output, and without --with-preprocessing and --dynamic-size"
        )


def summary(made: "Export") -> list[str]:
    """Lines that say what was exported and how it was checked."""
    record: dict[str, Any] = made.record
    lines = [f"{made.file}: {record['bytes'] / 1e6:.1f} MB, {record['precision']}"]
    differences = ", ".join(f"{name} {value:.1e}" for name, value in record["largest_difference"].items())
    lines.append(f"largest difference from the model, as part of the range: {differences}")
    if found := record.get("preprocessing") or record.get("web"):
        lines.append(
            f"preprocessing in the graph differs by {found['mean_levels']:.2g} of 255 levels on average, at most "
            f"{found['largest_levels']:.0f}; the probabilities by at most {found['probabilities']:.1e}"
        )
    if "int8" in record:
        int8 = record["int8"]
        lines.append(
            f"{int8['layers'] - len(int8['layers_in_fp32'])} of {int8['layers']} layers in int8, calibrated with "
            f"{int8['calibration_images']} images of {int8['calibrated_on']}"
        )
    if (accuracy := record.get("accuracy")) is not None:
        interval = accuracy["interval"]
        within = "" if interval is None else f" (95 % interval {100 * interval[0]:+.2f} to {100 * interval[1]:+.2f})"
        lines.append(
            f"{accuracy['measure']} on {accuracy['images']} images of {accuracy['data']}, {accuracy['split']} split: "
            f"{accuracy['exported']:.2%}, the model {accuracy['source']:.2%}, {-accuracy['drop_points']:+.2f} points"
            f"{within}"
        )
    else:
        lines.append("its accuracy was not measured; --data measures it on labelled images")
    if "web" in record:
        lines.append(f"{made.folder}: a page; python -m http.server --directory {made.folder} shows it here")
    return lines
