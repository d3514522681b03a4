"""Registry of the subcommands; each has a file, and the package's function of the same name does the work."""

import typer
from vithub.scripts.calling import prepared
from vithub.scripts.check_data_command import check_data
from vithub.scripts.command_help import Command, RecipeCommand
from vithub.scripts.compare_command import compare
from vithub.scripts.convert_command import convert
from vithub.scripts.demo_command import demo
from vithub.scripts.evaluate_command import evaluate
from vithub.scripts.explain_command import explain
from vithub.scripts.finetune_command import finetune
from vithub.scripts.predict_command import predict
from vithub.scripts.publish_command import publish


def register(app: typer.Typer) -> None:
    """Registers every subcommand."""
    app.command(cls=RecipeCommand)(prepared(finetune))
    for command in (evaluate, predict, convert, check_data, compare, publish, demo, explain):
        app.command(cls=Command)(prepared(command))
