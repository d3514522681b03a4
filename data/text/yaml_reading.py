"""Reading of YAML that a person or a stranger wrote, as plain data."""

from typing import Any

import yaml

MOST_VALUES = 1_000_000  # in all, aliases written out


class PlainLoader(yaml.SafeLoader):
    """YAML loader. Differs from `SafeLoader` by refusing a key that is there twice, of which the last would win."""

    def construct_mapping(self, node: yaml.Node, deep: bool = False) -> Any:
        """Builds a dictionary from a mapping node."""
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"{key.value!r} is stated twice; state it once", key.start_mark
                    )
                seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)


def read_plain_yaml(text: str, loader: type[PlainLoader] = PlainLoader) -> Any:
    """Reads plain data from YAML.

    Args:
        text: The document.
        loader: Class of the loader.

    Raises:
        yaml.YAMLError: The text is not YAML, has a key twice, is nested too deeply, holds a number or date that there
            is not, or has aliases that stand for more than `MOST_VALUES` values.
    """
    try:
        content = yaml.load(text, Loader=loader)  # noqa: S506  # derived from SafeLoader
        values = _values(content, {})
    except RecursionError:
        raise yaml.YAMLError("it is nested too deeply") from None
    # PyYAML does not catch the conversion errors of values such as 2020-13-45, or with a wrong tag, such as `!!int x`
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        raise yaml.YAMLError(f"a value in it cannot be read: {error}") from error
    if values > MOST_VALUES:
        raise yaml.YAMLError(f"its aliases stand for more than {MOST_VALUES} values")
    return content


def _values(content: Any, known: dict[int, int]) -> int:
    """Number of values in plain data, each counted as often as it would be written without aliases.

    Args:
        content: Plain data; a part that contains itself ends in a `RecursionError`.
        known: Numbers by the identity of lists and dictionaries that were counted already.
    """
    if not isinstance(content, dict | list):
        return 1
    if id(content) not in known:
        inner = content.values() if isinstance(content, dict) else content
        known[id(content)] = 1 + sum(_values(value, known) for value in inner)
    return known[id(content)]


__all__ = ["MOST_VALUES", "PlainLoader", "read_plain_yaml"]
