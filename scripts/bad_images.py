"""Option and exit code of commands that continue past images that cannot be decoded."""

import typer
from vithub.scripts.printing import say


def check_on_bad_image(value: str) -> None:
    """Raises a usage error if the option has a value other than "error" or "skip"."""
    if value not in ("error", "skip"):
        raise typer.BadParameter(f"--on-bad-image takes error or skip, got {value!r}")


def fail_after_all(text: str, on_bad_image: str) -> None:
    """Reports the images that could not be decoded, and exits with code 1 unless they may be skipped.

    Raises:
        typer.Exit: With code 1, if `on_bad_image` is "error".
    """
    if on_bad_image == "skip":
        say(f"vithub: {text}", err=True)
        return
    say(f"vithub: error: {text}; --on-bad-image skip leaves with exit code 0", err=True)
    raise typer.Exit(1)


__all__ = ["check_on_bad_image", "fail_after_all"]
