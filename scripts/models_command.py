"""Command `vithub models`: pretrained models with short names."""

import dataclasses
from typing import Annotated

import typer
from vithub.data.text.json_text import json_text
from vithub.scripts.printing import say


def models(json_: Annotated[bool, typer.Option("--json", help="print one line of JSON per model")] = False) -> None:
    """Lists the short names of pretrained models, which stand for their Hub ids in every command and function."""
    from vithub.hub.known_models import KNOWN_MODELS

    if json_:
        for model in KNOWN_MODELS.values():
            say(json_text(dataclasses.asdict(model)))
        return
    rows = [("name", "Hub id", "parameters", "pixels", "GMAC", "images/s", "licence", "ImageNet", "")]
    for model in KNOWN_MODELS.values():
        accuracy = "" if model.accuracy is None else f"{model.accuracy:.1f} %"
        rows.append(
            (
                model.name, model.source, f"{model.parameters:.1f} M", str(model.image_size), f"{model.gmacs:.1f}",
                f"{model.images_per_second:.3g}", model.licence, accuracy, model.note,
            )
        )  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        say("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    say(
        "\nAccuracies as published, top 1. GMAC and images/s are of one image of so many pixels; the speed was\n"
        "measured in float32 on two cores of a server's CPU and serves to compare. From scratch: vit-ti, deit-ti,\n"
        "deit-s, vit-b, ..., each with /PATCH for another patch size; detr."
    )


__all__ = ["models"]
