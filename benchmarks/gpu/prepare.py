"""Prepares a folder that checks a card on a machine without a network.

    python benchmarks/gpu/prepare.py FOLDER --photos test.parquet
    # carry FOLDER to the machine, then there:
    sh FOLDER/check.sh                                      # or: sh FOLDER/check.sh --phases models,training

The folder gets our wheel, wheels of the packages that the machine lacks for its Python, the photos, and the check. The
machine needs torch with CUDA, torchvision, transformers, accelerate and timm of its own.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

HERE = Path(__file__).resolve().parent
# What a machine for deep learning often lacks; each is installed only where it is missing.
PACKAGES = (
    "datasets", "dill", "multiprocess", "pydantic", "pydantic-core", "typing-inspection", "annotated-types", "typer",
    "faster-coco-eval", "xxhash",
)  # fmt: skip
SCRIPT = """#!/bin/sh
# Installs what is missing from this folder alone, then checks the card; results are appended to gpu.jsonl beside this.
set -eu
here="$(cd "$(dirname "$0")" && pwd)"
python="${PYTHON:-python3}"
"$python" "$here/check/installing.py" "$here/wheels"
photos=""
[ -d "$here/photos" ] && photos="--photos $here/photos"
# shellcheck disable=SC2086
exec "$python" "$here/check/run.py" --output "$here/gpu.jsonl" $photos "$@"
"""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="new folder")
    parser.add_argument("--python", default="3.12", help="Python of that machine (3.12)")
    parser.add_argument("--platform", default="manylinux_2_28_x86_64", help="its platform (manylinux_2_28_x86_64)")
    parser.add_argument("--packages", nargs="*", default=PACKAGES, help=f"carried as wheels ({' '.join(PACKAGES)})")
    parser.add_argument("--photos", type=Path, help="folder of JPEG files, or a Parquet file with a column `image`")
    return parser.parse_args(arguments)


def build_wheel(folder: Path) -> Path:
    """Builds our wheel into a folder, with the build tools that are installed.

    A copy of the sources is built, as an older `build` folder beside them would leave its files in the wheel.
    """
    root = HERE.parents[1]
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    rooms = project["tool"]["setuptools"]["package-dir"].values()
    with tempfile.TemporaryDirectory() as copy:
        for room in rooms:
            shutil.copytree(root / room, Path(copy, room), ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(root / name, copy)
        command = ["wheel", "-q", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), copy]
        subprocess.run([sys.executable, "-m", "pip", *command], check=True)
    (made,) = folder.glob("vithub-*.whl")
    return made


def pinned(package: str) -> str:
    """The package in the version that is installed here, where it is: these are known to go together."""
    try:
        return f"{package}=={version(package)}"
    except PackageNotFoundError:
        return package


def fetch_wheels(folder: Path, packages: list[str], python: str, platform: str) -> None:
    """Downloads the wheels of packages for another Python, each alone: the machine has the rest."""
    if not packages:
        return
    older = platform.replace("2_28", "2_17")  # a wheel for an older system runs there too
    platforms = [word for name in dict.fromkeys((platform, older)) for word in ("--platform", name)]
    command = ["download", "-q", "--no-deps", "--only-binary", ":all:", "--python-version", python, *platforms]
    subprocess.run([sys.executable, "-m", "pip", *command, "--dest", str(folder), *map(pinned, packages)], check=True)


def copy_photos(source: Path, folder: Path) -> int:
    """Copies the JPEG files of a folder, or writes those of a Parquet file, and returns their number."""
    folder.mkdir(parents=True)
    if source.is_dir():
        contents = [file.read_bytes() for file in sorted(source.rglob("*.jp*g"))]
    else:
        import pyarrow.parquet as parquet

        images = parquet.read_table(source, columns=["image"]).column("image").to_pylist()
        contents = [image["bytes"] for image in images if image["bytes"][:2] == b"\xff\xd8"]
    if not contents:
        raise SystemExit(f"--photos: no JPEG in {source}")
    for number, content in enumerate(contents):
        (folder / f"{number:05}.jpg").write_bytes(content)
    return len(contents)


def prepare(options: argparse.Namespace) -> None:
    """Writes the whole folder."""
    if options.folder.exists():
        raise SystemExit(f"{options.folder} is there already: name a new folder")
    wheels = options.folder / "wheels"
    wheels.mkdir(parents=True)
    build_wheel(wheels)
    fetch_wheels(wheels, list(options.packages), options.python, options.platform)
    shutil.copytree(HERE, options.folder / "check", ignore=shutil.ignore_patterns("__pycache__", "prepare.py"))
    if options.photos:
        print(f"{copy_photos(options.photos, options.folder / 'photos')} photos")
    script = options.folder / "check.sh"
    script.write_text(SCRIPT, encoding="utf-8")
    script.chmod(0o755)
    size = sum(file.stat().st_size for file in options.folder.rglob("*") if file.is_file())
    print(f"{options.folder} ({size / 1e6:.1f} MB): carry it to the machine and run sh {options.folder.name}/check.sh")


if __name__ == "__main__":
    prepare(parse())
