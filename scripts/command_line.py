"""Entry point of the `vithub` command."""

import io
import logging
import sys
import traceback
from collections.abc import Callable
from typing import Any

import typer
from vithub.scripts.calling import prepared, quiet_libraries
from vithub.scripts.check_data_command import check_data
from vithub.scripts.command_help import Command, CommandGroup, RecipeCommand
from vithub.scripts.compare_command import compare
from vithub.scripts.convert_command import convert
from vithub.scripts.demo_command import demo
from vithub.scripts.evaluate_command import evaluate
from vithub.scripts.explain_command import explain
from vithub.scripts.export_command import export
from vithub.scripts.finetune_command import finetune
from vithub.scripts.models_command import models
from vithub.scripts.predict_command import predict
from vithub.scripts.pretrain_command import pretrain
from vithub.scripts.printing import LineFormatter, say
from vithub.scripts.publish_command import publish
from vithub.scripts.runs_command import runs
from vithub.scripts.sweep_command import sweep
from vithub.scripts.termination import orderly_termination
from vithub.scripts.verify_command import verify

app = typer.Typer(
    name="vithub",
    cls=CommandGroup,
    help="Vision transformers that live on the Hugging Face Hub: train, evaluate, convert, export and publish them.",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(cls=RecipeCommand)(prepared(finetune))
app.command(cls=RecipeCommand)(prepared(pretrain))
for subcommand in (
    evaluate, predict, runs, sweep, convert, check_data, compare, publish, verify, export, demo, explain, models,
):  # fmt: skip
    app.command(cls=Command)(prepared(subcommand))


def main() -> None:
    """Runs the command; exit code 0 on success, 2 on wrong use, 1 on failure, which is reported in one line."""
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter("%(levelname)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names may not be valid in any encoding
    sys.exit(run(app))


def run(command: Callable[[], Any]) -> int:
    """Runs a command and converts its errors to an exit code."""
    quiet_libraries()
    try:
        with orderly_termination():
            command()
    except SystemExit as stop:
        if isinstance(message := getattr(stop, "message", None), str):
            say(f"vithub: {message}", err=True)
        elif stop.code == 130:  # which typer makes of Ctrl-C, without a word
            return _fail("interrupted", 130)
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except (ValueError, OSError, RuntimeError, TypeError) as error:
        if _is_ours(error):
            return _fail(error, 2 if _is_of_recipes(error) else 1)
        if (message := _lost_process(error)) is not None:
            return _fail(message, 1)
        raise
    finally:
        _part_processes()
    return 0


def _part_processes() -> None:
    """Leaves the process group of a launch, if there is one."""
    if (torch := sys.modules.get("torch")) and torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _lost_process(error: BaseException) -> str | None:
    """Message where an error of torch means that another process of a launch ended."""
    machines = sys.modules.get("vithub.training.runtime.lost_machines")
    return None if machines is None else machines.lost_process(error)


def _is_of_recipes(error: BaseException) -> bool:
    """Whether an error is a `RecipeError`, without importing recipes: if it is, they are imported already."""
    recipes = sys.modules.get("vithub.training.recipe.recipe")
    return recipes is not None and isinstance(error, recipes.RecipeError)


def _is_ours(error: BaseException) -> bool:
    """Whether an error is meant for the user: raised by this package or by the system."""
    if type(error).__module__.startswith(("vithub.", "huggingface_hub.")) or isinstance(error, OSError):
        return True
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return isinstance(error, ValueError) and frame.f_globals["__name__"].startswith("vithub.")


def _fail(error: object, code: int) -> int:
    say(f"vithub: error: {' '.join(str(error).split())}", err=True)
    return code


if __name__ == "__main__":
    main()
