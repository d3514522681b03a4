"""Runs injected faults and hostile inputs and counts what came of them.

    python tests/faults/run.py --short
    python tests/faults/run.py --all --json counts.json

Exit code 1 where anything is silently wrong, ends in a traceback, or is lost.
"""

import argparse
import json
import os
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from faults.case import Case

AREAS = (
    "folder_damage",
    "recipe_values",
    "configuration_values",
    "image_files",
    "box_sets",
    "run_damage",
    "hostile_names",
    "hub_folders",
    "photo_tables",
    "hub_server_faults",
    "drawn_files",
    "drawn_images",
    "foreign_names",
    "foreign_code",
)


def settings(root: Path) -> dict[str, str]:
    """Environment of every process here: no network, no screen, a home of its own."""
    return {
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HOME": str(root / "home"),
        "MPLBACKEND": "Agg",
        "OMP_NUM_THREADS": "1",
        "PYTHONWARNINGS": "ignore",
    }


def all_cases(seed: int) -> "list[Case]":
    """Every case of every area, the same for the same seed."""
    if (tests := str(Path(__file__).parents[1])) not in sys.path:
        sys.path.insert(0, tests)
    found = [case for area in AREAS for case in import_module(f"faults.{area}").cases(seed)]
    keys = [case.key for case in found]
    assert len(set(keys)) == len(keys), sorted({key for key in keys if keys.count(key) > 1})[:5]
    return found


def chosen(cases: "list[Case]", short: bool, only: str | None) -> "list[Case]":
    """The cases to run; `only` may name several texts, with "|" between them."""
    texts = only.split("|") if only else [""]
    return [case for case in cases if (case.short or not short) and any(text in case.key for text in texts)]


def run(short: bool, seed: int, only: str | None, root: Path, tell: Any = None) -> list[dict[str, Any]]:
    """Runs the chosen cases in a process of their own; returns area, name, call, fault, kind, detail, seconds each."""
    cases = all_cases(seed)
    from faults.worker import run_all

    found = []
    for case, outcome in run_all(chosen(cases, short, only), root, ["--seed", str(seed)], settings(root)):
        found.append({"area": case.area, "name": case.name, "call": case.call, "fault": case.fault, **vars(outcome)})
        if tell is not None:
            tell(found)
    return found


def summary(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts by area and kind, and the names of what was neither right nor told clearly."""
    from faults.case import KINDS

    counts: dict[str, dict[str, int]] = {}
    sorts: dict[str, dict[str, int]] = {}
    bad: dict[str, list[str]] = {}
    for row in found:
        for table, name in ((counts, row["area"]), (sorts, "faults" if row["fault"] else "inputs")):
            counted = table.setdefault(name, dict.fromkeys(KINDS, 0))
            counted[row["kind"]] = counted.get(row["kind"], 0) + 1
        if row["kind"] not in KINDS[:2]:
            bad.setdefault(row["kind"], []).append(f"{row['area']}: {row['name']}")
    return {"cases": len(found), "by_sort": sorts, "by_area": counts, "not_right_or_clear": bad}


def main() -> int:
    """Runs the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--short", action="store_true", help="the cases that the test suite runs, a minute")
    which.add_argument("--all", action="store_true", help="every case")
    which.add_argument("--list", action="store_true", help="only list the cases")
    which.add_argument("--summarise", metavar="FILE", type=Path, nargs="+", help="only count the outcomes in --details")
    which.add_argument("--table", metavar="FILE", type=Path, nargs=2, help="only print a table of two files of counts")
    which.add_argument("--worker", metavar="FOLDER", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help="of drawn faults and inputs")
    parser.add_argument("--only", metavar="TEXT", help="cases with this text in their area or name")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write counts and names")
    parser.add_argument("--details", metavar="FILE", type=Path, help="also write every outcome, a line of JSON each")
    parser.add_argument("--keep", metavar="FOLDER", type=Path, help="work in this folder and leave it there")
    given = parser.parse_args()
    if given.worker:
        os.environ.update(settings(Path(given.worker)))
        cases = all_cases(given.seed)
        from faults.worker import serve

        serve(Path(given.worker), cases)
        return 0
    if given.list:
        for case in chosen(all_cases(given.seed), False, given.only):
            print(case.key, "(short)" if case.short else "")
        return 0
    if given.table:
        sys.path.insert(0, str(Path(__file__).parents[1]))
        from faults.report import markdown

        print(markdown(*(json.loads(file.read_text()) for file in given.table)), end="")
        return 0
    if given.summarise:
        sys.path.insert(0, str(Path(__file__).parents[1]))
        rows = [json.loads(line) for file in given.summarise for line in file.read_text().splitlines()]
        return _report(list({(row["area"], row["name"]): row for row in rows}.values()), given.json)
    with tempfile.TemporaryDirectory(prefix="vithub-faults-") as temporary:
        root = (given.keep or Path(temporary)).absolute()
        root.mkdir(parents=True, exist_ok=True)
        os.environ.update(settings(root))
        return _report(run(given.short, given.seed, given.only, root, _teller(given.details)), given.json)


def _teller(details: Path | None) -> Any:
    begun = perf_counter()
    if details is not None:
        details.write_text("")

    def tell(found: list[dict[str, Any]]) -> None:
        row = found[-1]
        if row["kind"] not in ("right", "clear error"):
            print(f"{row['kind']}: {row['area']}: {row['name']}: {row['detail']}", flush=True)
        if len(found) % 100 == 0:
            print(f"({len(found)} cases after {perf_counter() - begun:.0f} s)", flush=True)
        if details is not None:
            with details.open("a") as stream:
                stream.write(json.dumps(row) + "\n")

    return tell


def _report(found: list[dict[str, Any]], file: Path | None) -> int:
    counts = summary(found)
    if file is not None:
        file.write_text(json.dumps(counts, indent=1, ensure_ascii=False) + "\n")
    kinds = list(dict.fromkeys(kind for row in counts["by_area"].values() for kind in row))
    print(f"{'':28}" + "".join(f"{kind:>16}" for kind in kinds))
    for name, row in [*counts["by_area"].items(), *counts["by_sort"].items()]:
        print(f"{name:28}" + "".join(f"{row.get(kind, 0):16}" for kind in kinds))
    return int(bool(counts["not_right_or_clear"]))


if __name__ == "__main__":
    sys.exit(main())
