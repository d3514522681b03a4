"""Installs the wheels of a folder whose packages are missing here, and ours always: python installing.py WHEELS"""

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def wanted(folder: Path) -> list[Path]:
    """Wheels of packages that are not installed, and our own, whose version may not tell that it has changed."""
    found = []
    for wheel in sorted(folder.glob("*.whl")):
        name = wheel.name.split("-")[0]
        try:
            version(name)
        except PackageNotFoundError:
            found.append(wheel)
        else:
            if name == "vithub":
                found.append(wheel)
    return found


def main() -> None:
    """Installs, without a network and without dependencies, which the machine has."""
    wheels = [str(wheel) for wheel in wanted(Path(sys.argv[1]))]
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--force-reinstall", *wheels]
    subprocess.run(command, check=True)
    print(f"installed {', '.join(Path(wheel).name for wheel in wheels)}")


if __name__ == "__main__":
    main()
