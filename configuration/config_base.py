"""Base class of the configurations: raises on misspelled fields, and warns of them where a file holds them."""

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
# Fields that every configuration of transformers accepts although they are not fields of its dataclass.
_OF_TRANSFORMERS = ("num_labels", "attn_implementation", "experts_implementation")
# Format of `config.json` that this version writes, and the newest that it reads; a file that states none has the first.
FORMAT = 1
FORMAT_FIELD = "vithub_format"
_reading: ContextVar[bool] = ContextVar("vithub_reading_a_configuration", default=False)


def check_format(stated: Any, place: str = "config.json") -> None:
    """Checks that a configuration file has a format that this version reads.

    Args:
        stated: Value of the field `vithub_format`.
        place: Name of the file, for the message.

    Raises:
        ValueError: The format is newer, or no format at all.
    """
    if isinstance(stated, bool) or not isinstance(stated, int) or stated < 1:
        raise ValueError(f"{place}: `{FORMAT_FIELD}` must be a whole number of at least 1, got {stated!r}")
    if stated > FORMAT:
        raise ValueError(
            f"{place}: made by a newer vithub: format {stated}, this version reads up to {FORMAT}; update vithub"
        )


class HubConfig(PreTrainedConfig):
    """Base class of all configurations of this package, with checks of field names and values.

    Unknown fields are accepted, because transformers and other programs write fields of their own. An unknown field
    whose name resembles a known one raises where a caller passes it, and is warned of where a file holds it, because
    other versions and programs write files too. Configurations are checked before they are saved, so that every saved
    one can be loaded.
    """

    def check(self) -> None:
        """Raises a `ValueError` that names the first field whose value is wrong or contradicts another."""

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Builds a configuration from a dictionary, as transformers does, and checks it.

        Args:
            config_dict: Content of a configuration file. Unknown fields that resemble known ones cause a warning.
            **kwargs: Fields that replace those of the file; unknown ones that resemble known fields are an error.

        Raises:
            ValueError: A field has a wrong value, or `kwargs` has a misspelled name.
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
        """Reads a JSON file, as transformers does, and warns of unknown fields that resemble known ones."""
        with _as_a_file():
            return super().from_json_file(json_file)

    def save_pretrained(self, save_directory: str | PathLike[str], push_to_hub: bool = False, **kwargs: Any) -> None:
        """Calls `check`, then saves the configuration as transformers does."""
        self.check()
        super().save_pretrained(save_directory, push_to_hub, **kwargs)

    def to_diff_dict(self) -> dict[str, Any]:
        """Returns the fields that `config.json` holds: those that differ from the defaults, and the file's format."""
        return {**super().to_diff_dict(), FORMAT_FIELD: FORMAT}

    def _further_fields(self, given: dict[str, Any]) -> dict[str, Any]:
        """Fields in `given` that this class does not define, without those from a file that cannot be set.

        Raises:
            ValueError: The caller, not a file, gives a misspelled name, or the file has a newer format.
        """
        kept = dict(given)
        check_format(kept.pop(FORMAT_FIELD, 1))
        for name in tuple(kept):
            if problem := self._mistake_in(name):
                self._refuse(f"{problem} (got {given[name]!r})")
                if hasattr(type(self), name):
                    del kept[name]
        return kept

    def _refuse(self, problem: str) -> None:
        """Raises `problem` where a caller builds the configuration; warns of it where a file is read."""
        if not _reading.get():
            raise ValueError(problem)
        logger.warning("%s: %s; this field of the file is not used", type(self).__name__, problem)

    @classmethod
    def _mistake_in(cls, name: str) -> str | None:
        """Description of what is wrong with a field name; None where the name can be used."""
        own = getattr_static(cls, name, None)
        if name in cls.__dataclass_fields__ or (isinstance(own, property) and own.fset is not None):
            return None
        if isinstance(own, property) or callable(getattr(cls, name, None)):
            return f"`{name}` is no field that can be set"
        fields = [field.lstrip("_") for field in cls.__dataclass_fields__]  # those behind a property have an underscore
        known = [*fields, *cls.attribute_map, *_OF_TRANSFORMERS]
        if name not in known and (close := get_close_matches(name, known, n=1, cutoff=0.75)):
            return f"unknown field `{name}`; did you mean `{close[0]}`?"
        return None


@contextmanager
def _as_a_file() -> Iterator[None]:
    """Context in which configurations are built from the content of a file, so that mistakes are only warned of."""
    token = _reading.set(True)
    try:
        yield
    finally:
        _reading.reset(token)


__all__ = ["FORMAT", "FORMAT_FIELD", "HubConfig", "check_format"]
