"""Description of a path that holds no model, with what to name in its place: a run that did not finish, for example."""

from pathlib import Path

from ..data.image_files import images_below

_RECIPE, _CONFIG = "recipe.yaml", "config.json"
_MOST_NAMED = 5


def without_config(path: Path) -> str:
    """Says that a path holds no `config.json`, and what would be right.

    Args:
        path: File, or folder without `config.json`.
    """
    if path.is_file():
        return f"{path} is a file, and a model is a folder with {_CONFIG}: name the folder of a run or of a saved model"
    found = f"{path} holds no {_CONFIG}"
    if (path / _RECIPE).is_file():
        text = (path / _RECIPE).read_text(encoding="utf-8", errors="replace")
        command = "pretrain" if "task: pretraining" in text else "finetune"
        return (
            f"{found}: the training there has not finished; `vithub {command} --output {path} --resume` goes on with "
            "it, and with --finish ends it at its last checkpoint"
        )
    if models := sorted(folder.name for folder in path.iterdir() if (folder / _CONFIG).is_file()):
        more = f" and {len(models) - _MOST_NAMED} more" if len(models) > _MOST_NAMED else ""
        return f"{found}; name one of the folders of models in it: {', '.join(models[:_MOST_NAMED])}{more}"
    if images_below(path).files:
        return f"{found}, but images; wanted here is a model: name the folder of a run or of a saved model"
    return f"{found}; name the folder of a run or of a saved model"


__all__ = ["without_config"]
