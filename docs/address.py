"""Address of the repository on GitHub, which `[project.urls]` of pyproject.toml states for everything.

    python docs/address.py                 # prints it and the files that state it too
    python docs/address.py OWNER/NAME      # changes it there and in all of these files

Notebooks and their pages, the job of `examples/` and the documentation site name it; tests/test_address.py holds that
they agree.
"""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
UNKNOWN_OWNER = "OWNER"  # stands where the address is not known yet
_ADDRESS = re.compile(r"https://github\.com/([\w-]+/[\w.-]+)")
_TEXT = (".md", ".ipynb", ".py", ".toml", ".cff", ".yaml")


def repository(root: Path = ROOT) -> str:
    """Returns the repository as OWNER/NAME.

    Raises:
        ValueError: pyproject.toml states another kind of address.
    """
    stated = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Repository"]
    if (found := _ADDRESS.fullmatch(stated)) is None:
        raise ValueError(f"pyproject.toml: Repository of [project.urls] must be https://github.com/..., got {stated!r}")
    return found[1]


def is_known(name: str) -> bool:
    """Returns False as long as the address is a stand-in, to which no page should link."""
    return not name.startswith(f"{UNKNOWN_OWNER}/")


def stating(root: Path = ROOT) -> list[Path]:
    """Returns the tracked files that state the address."""
    listed = subprocess.run(["git", "ls-files"], cwd=root, check=True, capture_output=True, text=True)  # noqa: S607
    files = [root / name for name in listed.stdout.splitlines() if name.endswith(_TEXT)]
    return [file for file in files if _mention(repository(root)).search(file.read_text(encoding="utf-8"))]


def move(name: str, root: Path = ROOT) -> list[Path]:
    """Replaces the address in every file that states it, and returns these files.

    Raises:
        ValueError: The name is not of the form OWNER/NAME.
    """
    if _ADDRESS.fullmatch(f"https://github.com/{name}") is None:
        raise ValueError(f"a repository is OWNER/NAME, got {name!r}")
    mention, files = _mention(repository(root)), stating(root)
    for file in files:
        file.write_text(mention.sub(rf"\g<1>{name}", file.read_text(encoding="utf-8")), encoding="utf-8")
    return files


def _mention(name: str) -> re.Pattern[str]:
    """Matches a repository in an address of GitHub, or of a hosted notebook."""
    return re.compile(rf"(\bgithub\.com/|\.com/github/){re.escape(name)}(?![\w-])")


def main() -> None:
    files = move(sys.argv[1]) if len(sys.argv) > 1 else stating()
    sys.stdout.write("\n".join([repository(), *(f"  {file.relative_to(ROOT)}" for file in files), ""]))


if __name__ == "__main__":
    main()
