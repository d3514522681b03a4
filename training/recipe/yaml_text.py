"""YAML reader and writer that treat 1e-3 as a number, which YAML 1.1 takes for text."""

import re
from typing import Any

import yaml

from ...data.text.yaml_reading import PlainLoader, read_plain_yaml

_EXPONENT = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$")
_LINE_BREAK = re.compile("[\x85\u2028\u2029]")


class _Loader(PlainLoader):
    """YAML loader. Differs from `PlainLoader` by reading 1e-3 as a number."""


class _Dumper(yaml.SafeDumper):
    """YAML dumper. Differs from `SafeDumper` by quoting text such as 1e-3, and by escaping Unicode's line breaks.

    Between single quotes, a next-line character (U+0085) would be written as a line break and read back as a newline.
    """

    def represent_str(self, data: str) -> yaml.ScalarNode:
        """Represents text; text with Unicode line breaks gets double quotes, within which they are escaped."""
        style = '"' if _LINE_BREAK.search(data) else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Dumper.add_representer(str, _Dumper.represent_str)


for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+0123456789"))


def read_yaml(text: str) -> Any:
    """Reads plain data from YAML.

    Raises:
        yaml.YAMLError: The text cannot be read; see `read_plain_yaml`.
    """
    return read_plain_yaml(text, _Loader)


def write_yaml(content: Any) -> str:
    """Writes plain data as YAML that `read_yaml` restores exactly."""
    text: str = yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)
    return text


__all__ = ["read_yaml", "write_yaml"]
