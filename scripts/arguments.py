"""Arguments and limits that several commands share."""

from typing import Annotated

import typer

Folder = Annotated[str, typer.Argument(metavar="FOLDER", help="a run's folder, or a Hub id")]
MOST_AT_ONCE, MOST_WORKERS = 2**20, 1_024  # same limits as in the recipe
