"""Code beside the weights as a model card shows it: why it is needed, its files, and the commit that is loaded."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...data.text.markdown_text import Markdown, python_text


@dataclass(frozen=True)
class LoadingCode:
    """Code of a published model.

    Args:
        files: SHA-256 of each code file, hexadecimal, by path.
        feature: Reason why transformers' own classes cannot take the model; None if the code was asked for.
        revision: Commit that holds the code; None where it is not known.
    """

    files: Mapping[str, str] = field(default_factory=dict)
    feature: str | None = None
    revision: str | None = None


def loading_values(code: LoadingCode | None, kind: str) -> dict[str, Any]:
    """Values of a card's templates that say how the model is loaded.

    Args:
        code: Code of a published model; None where the model is not published, or needs no code.
        kind: Code that loads the model: "bundle", "native", "timm" or "vithub".

    Returns:
        `arguments` and `at`, which follow the location in calls that run the code and in others, and the facts of the
        code as `code_files`, `code_feature`, `code_asked` and `revision`.
    """
    revision = code.revision if code is not None and kind == "bundle" else None
    at = f", revision={python_text(revision)}" if revision is not None else ""
    return {
        "arguments": Markdown((", trust_remote_code=True" if kind == "bundle" else "") + at),
        "at": Markdown(at),
        "code_files": dict(code.files) if code is not None else {},
        "code_feature": code.feature.replace("`", "") if code is not None and code.feature else None,
        "code_asked": code is not None and code.feature is None,
        "revision": revision,
    }


__all__ = ["LoadingCode", "loading_values"]
