"""Base class of the configurations: refuses fields that are mistaken, and reads files that hold such fields."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from difflib import get_close_matches
from inspect import getattr_static
from os import PathLike
from typing import Any

from transformers import PreTrainedConfig
from transformers.utils import logging

logger = logging.get_logger(__name__)
# Fields of every configuration of transformers that are none of its dataclass.
_OF_TRANSFORMERS = ("num_labels", "attn_implementation", "experts_implementation")
_reading: ContextVar[bool] = ContextVar("vithub_reading_a_configuration", default=False)


class HubConfig(PreTrainedConfig):
    """What every configuration of this package shares.

    A field that nobody knows passes, as transformers and others write some of their own. One that resembles a known
    field is an error where a person passes it, and a warning where a file holds it: other versions and other programs
    write files too. What is saved is checked before, so that it can be loaded.
    """

    def check(self) -> None:
        """Raises a `ValueError` that names the first field whose value is wrong or contradicts another."""

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As in transformers; the result is checked.

        Args:
            config_dict: Content of a file. Fields in it that resemble known ones are warned of.
            **kwargs: Fields that replace those of the file; ones that resemble known fields are an error.

        Raises:
            ValueError: A wrong value, or a mistaken name in `kwargs`.
        """
        for name in kwargs:
            if problem := cls._mistake_in(name):
                raise ValueError(problem)
        with _as_a_file():
            loaded: Any = super().from_dict(config_dict, **kwargs)
        (loaded[0] if isinstance(loaded, tuple) else loaded).check()
        return loaded

    @classmethod
    def from_json_file(cls, json_file: str | PathLike[str]) -> Any:
        """As in transformers; fields in the file that resemble known ones are warned of."""
        with _as_a_file():
            return super().from_json_file(json_file)

    def save_pretrained(self, save_directory: str | PathLike[str], push_to_hub: bool = False, **kwargs: Any) -> None:
        """As in transformers, after `check`."""
        self.check()
        super().save_pretrained(save_directory, push_to_hub, **kwargs)

    def _further_fields(self, given: dict[str, Any]) -> dict[str, Any]:
        """The fields that are none of this class, without those that a file has and nothing can take.

        Raises:
            ValueError: A person passes a mistaken name.
        """
        kept = dict(given)
        for name in given:
            if problem := self._mistake_in(name):
                self._refuse(f"{problem} (got {given[name]!r})")
                if hasattr(type(self), name):
                    del kept[name]
        return kept

    def _refuse(self, problem: str) -> None:
        """An error where a person makes the configuration, a warning where it is made of a file."""
        if not _reading.get():
            raise ValueError(problem)
        logger.warning("%s: %s; this field of the file is not used", type(self).__name__, problem)

    @classmethod
    def _mistake_in(cls, name: str) -> str | None:
        """What is wrong with a name that no field of this class has; None where nothing is."""
        own = getattr_static(cls, name, None)
        if name in cls.__dataclass_fields__ or (isinstance(own, property) and own.fset is not None):
            return None
        if isinstance(own, property) or callable(getattr(cls, name, None)):
            return f"`{name}` is no field that can be set"
        known = [*cls.__dataclass_fields__, *cls.attribute_map, *_OF_TRANSFORMERS]
        if name not in known and (close := get_close_matches(name, known, n=1, cutoff=0.75)):
            return f"unknown field `{name}`; did you mean `{close[0]}`?"
        return None


@contextmanager
def _as_a_file() -> Iterator[None]:
    """Within it, configurations are made of what a file holds."""
    token = _reading.set(True)
    try:
        yield
    finally:
        _reading.reset(token)


__all__ = ["HubConfig"]
