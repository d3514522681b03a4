"""Complete help pages, second names of commands, and suggestions for unknown commands and options."""

import textwrap
from difflib import get_close_matches
from itertools import pairwise
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from vithub.data.argument_names import typed_as

_UsageError: Any = typer.BadParameter.__base__  # click's class, or typer's own copy of it, depending on typer's version

# Names of options in other tools, with the options here.
OTHER_NAMES = {
    "--out": "--output",
    "--output-dir": "--output",
    "--out-dir": "--output",
    "--save-dir": "--output",
    "--model-name-or-path": "--model",
    "--dataset": "--data",
    "--dataset-name": "--data",
    "--data-path": "--data",
    "--train-dir": "--data",
    "--preset-name": "--preset",
    "--config": "--recipe",
    "--learning-rate": "--lr",
    "--num-train-epochs": "--epochs",
    "--num-epochs": "--epochs",
    "--per-device-train-batch-size": "--batch-size",
    "--bs": "--batch-size",
    "--img-size": "--image-size",
    "--resolution": "--image-size",
    "--label-column-name": "--label-column",
    "--num-workers": "--workers",
    "--top-k": "--top",
    "--topk": "--top",
    "--teacher-model": "--teacher",
    "--resume-from-checkpoint": "--resume",
    "--force": "--overwrite",
    "--hub-model-id": "USER/NAME (an argument, not an option)",
}


# Second names of commands, for those who type what other tools call them.
ALIASES = {"train": "finetune", "val": "evaluate"}
# Names of commands in other tools, with the commands here that are suggested.
OTHER_COMMANDS = {
    "fit": "finetune",
    "tune": "finetune",
    "test": "evaluate",
    "eval": "evaluate",
    "validate": "evaluate",
    "infer": "predict",
    "inference": "predict",
    "detect": "predict",
    "benchmark": "compare",
    "push": "publish",
    "upload": "publish",
    "list": "runs",
    "serve": "demo",
}


class CommandGroup(TyperGroup):
    """Commands with their second names, and suggestions for names of other tools."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Returns a command by its name or its second name."""
        return super().get_command(ctx, ALIASES.get(cmd_name, cmd_name))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Finds the command; the error for an unknown one suggests those that it may mean."""
        try:
            return super().resolve_command(ctx, args)
        except _UsageError as error:
            wanted = args[0].lower() if args else ""
            meant = [OTHER_COMMANDS[wanted]] if wanted in OTHER_COMMANDS else []
            meant = meant or get_close_matches(wanted.replace("_", "-"), [*self.commands, *ALIASES])
            if meant and wanted and not wanted.startswith("-"):
                names = " or ".join(repr(name) for name in meant)
                error.message = f"No such command {args[0]!r}. Did you mean {names}?"
            raise

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Formats the list of commands, with the second names at its end."""
        super().format_commands(ctx, formatter)
        with formatter.section("Second names"):
            formatter.write_dl([(alias, f"the same as {name}") for alias, name in ALIASES.items()])


class Command(TyperCommand):
    """Subcommand with its full summary in the list of commands, and suggestions for options of other tools."""

    def get_short_help_str(self, limit: int = 45) -> str:  # noqa: ARG002
        """Returns the first paragraph of the help in full; the list of commands wraps it."""
        return " ".join((self.help or "").split("\n\n")[0].split())

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parses options and arguments; errors suggest the nearest option to an unknown one, and name a wrong value."""
        typed = list(args)
        try:
            return super().parse_args(ctx, args)
        except _UsageError as error:
            names = getattr(getattr(error, "param", None), "opts", ())
            value = next((after for name, after in pairwise(typed) if name in names), None)
            if value is not None and value not in error.message:
                error.message += f", got {value!r}"
            unknown = getattr(error, "option_name", None)
            if isinstance(unknown, str) and hasattr(error, "possibilities"):
                error.possibilities = self.nearest(unknown, ctx) or error.possibilities
            raise

    def invoke(self, ctx: Any) -> Any:
        """Runs the command; messages name arguments as they are typed on the command line."""
        with typed_as({one.name: _typed(one) for one in self.get_params(ctx) if one.name}):
            return super().invoke(ctx)

    def nearest(self, unknown: str, ctx: Any) -> list[str]:
        """Returns the options that an unknown one may mean, likeliest first."""
        own = [name for parameter in self.get_params(ctx) for name in parameter.opts if name.startswith("--")]
        other = OTHER_NAMES.get(unknown.replace("_", "-").lower())
        if other is not None and (other in own or not other.startswith("--")):
            return [other]
        return get_close_matches(unknown.replace("_", "-"), own, n=3, cutoff=0.6)


def _typed(parameter: Any) -> str:
    """Returns an option as it is typed, or an argument as the help names it."""
    long = [name for name in parameter.opts if name.startswith("--")]
    return long[0] if long else str(parameter.metavar or parameter.name)


class RecipeCommand(Command):
    """Subcommand with the fields of a recipe: its help lists them, and suggestions include them.

    The list is made on demand, since it needs pydantic, which other commands do not import.
    """

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Formats the help page with presets and fields at its end."""
        self.epilog = recipe_help(formatter.width)
        super().format_help(ctx, formatter)

    def nearest(self, unknown: str, ctx: Any) -> list[str]:
        """Returns options that an unknown one may mean, including recipe fields in the form of `--set`."""
        from vithub.training.recipe.recipe import near_fields

        found = super().nearest(unknown, ctx)
        fields = near_fields(unknown.strip("-").replace("-", "_"))
        exact = [name for name in fields if name.rpartition(".")[2] == unknown.strip("-").replace("-", "_")]
        named = [f"--set {name}=VALUE" for name in exact or ([] if found else fields)]
        return named if exact else found + named


def recipe_help(width: int) -> str:
    """Lists presets, and every field of a recipe with its default, choices and meaning, for the end of a help page."""
    from vithub.training.recipe.presets import preset_names
    from vithub.training.recipe.recipe import field_choices, field_names

    choices, lines = field_choices(), []
    for name, (default, description) in field_names().items():
        taken = f"[{'|'.join(choices[name])}] " if name in choices else ""
        lines.append(_wrapped(f"{name} = {default!r}  {taken}{description}", width, "  ", "      "))
    presets = _wrapped(f"Presets: {', '.join(preset_names())}", width, "", "  ")
    # In click's help, \b keeps a paragraph's lines as they are.
    return f"\b\n{presets}\n\n\b\nRecipe fields for --set NAME=VALUE:\n" + "\n".join(lines)


def _wrapped(text: str, width: int, first: str, rest: str) -> str:
    return textwrap.fill(
        text, width, initial_indent=first, subsequent_indent=rest, break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip


__all__ = ["ALIASES", "OTHER_COMMANDS", "OTHER_NAMES", "Command", "CommandGroup", "RecipeCommand", "recipe_help"]
