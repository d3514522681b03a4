"""YAML as people write it: 1e-3 is a number, which YAML 1.1 takes for text."""

import re
from typing import Any

import yaml

_EXPONENT = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$")
_LINE_BREAK = re.compile("[\x85\u2028\u2029]")


class _Loader(yaml.SafeLoader):
    """Differs from `SafeLoader` by reading 1e-3 as a number."""


class _Dumper(yaml.SafeDumper):
    """Differs from `SafeDumper` by quoting text that looks like 1e-3, and by escaping Unicode's line breaks.

    Between single quotes a next-line character (U+0085) is written as a line break and read back as a newline.
    """

    def represent_str(self, data: str) -> yaml.ScalarNode:
        """Text; between double quotes, where each of Unicode's line breaks is escaped, if it holds one."""
        style = '"' if _LINE_BREAK.search(data) else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Dumper.add_representer(str, _Dumper.represent_str)


for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+0123456789"))


def read_yaml(text: str) -> Any:
    """Plain data from YAML.

    Raises:
        yaml.YAMLError: It is none.
    """
    return yaml.load(text, Loader=_Loader)  # noqa: S506  # a SafeLoader


def write_yaml(content: Any) -> str:
    """Plain data as YAML, which `read_yaml` gives back as it was."""
    text: str = yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)
    return text


__all__ = ["read_yaml", "write_yaml"]
