"""Strikes running commands with faults at drawn moments, goes on, and compares all that is left with unbroken ones.

    python tests/faults/moments/run.py --count 200 --seed 0
    python tests/faults/moments/run.py --count 500 --seed 1 --json piece1.json
    python tests/faults/moments/run.py --summarise piece1.json piece2.json

Exit code 1 where anything was lost, told badly, or left behind. Everything runs in one process and forks of it.
"""

import argparse
import json
import multiprocessing.util
import os
import random
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[2]
# How many of a hundred faults of each job: those that cost least most often.
SHARES = {"finetune": 14, "predict": 16, "evaluate": 7, "convert": 14, "overwrite": 12, "export": 0.5, "publish": 36.5}
TRAINING_ONLY = ("dead loading process", "second run", "truncated checkpoint", "flipped bit in a checkpoint")
WHOLE_DISK = ("small disk", "largest file")
PAGE = 4096  # bytes that the small disk, a tmpfs, gives at a time
ENVIRONMENT = {
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_XET": "1",
    "MPLBACKEND": "Agg",
    "OMP_NUM_THREADS": "1",
    "PYTHONWARNINGS": "ignore",
}


def kinds_of(job: str) -> list[str]:
    """Kinds of faults of a job."""
    from faults.moments.strike_cases import KINDS

    if job == "publish":
        return ["SIGKILL", "SIGTERM", "SIGINT"]
    found = [kind for kind in KINDS if job == "finetune" or kind not in TRAINING_ONLY]
    return [kind for kind in found if kind != "unreadable file" or job in ("finetune", "predict", "evaluate")] + (
        ["second run"] if job == "predict" else []
    )


def plan(count: int, seed: int, unbroken: "dict[str, Unbroken]", mounts: bool) -> list[Any]:
    """Seeded faults: jobs by their shares, kinds in turn, places of a kind in turn, moments of a place at random."""
    from faults.moments.strike_cases import Case, possible

    draws, found = random.Random(seed), []
    for job, share in SHARES.items():
        kinds, turns = [kind for kind in kinds_of(job) if mounts or kind != "small disk"], {}
        first = draws.randrange(len(kinds))
        for number in range(round(count * share / 100)):
            kind = kinds[(first + number) % len(kinds)]
            if kind in WHOLE_DISK:
                whole = unbroken[job]  # too little for it by a byte at least, or by a page of the small disk
                limits = (1, whole.largest) if kind == "largest file" else (whole.given, whole.needed - PAGE + 1)
                found.append(Case(job, kind, job, draws.randrange(*limits)))
                continue
            if kind in TRAINING_ONLY and kind != "second run":
                place = "reading" if kind == "dead loading process" else "checkpoint"
                found.append(Case(job, kind, place, draws.randrange(13 if place == "reading" else 10**9)))
                continue
            moments = [(place, at) for at, (place, what) in enumerate(unbroken[job].moments) if possible(kind, what)]
            if kind == "second run":
                moments = [(place, at) for place, at in moments if place in ("step", "evaluation", "checkpoint", "card")
                           or (job == "predict" and at > len(unbroken[job].moments) // 3)]  # fmt: skip
            places = sorted({place for place, _ in moments})
            if not turns.get(kind):
                turns[kind] = draws.sample(places, len(places))
            place = turns[kind].pop()
            found.append(Case(job, kind, place, draws.choice([at for name, at in moments if name == place])))
    return sorted(found, key=lambda case: case.kind != "SIGKILL")  # forks first, of a process that is small


class Unbroken:
    """An unbroken job: its moments, what it left, and the bytes that its files take on a disk.

    Args:
        job: The job.
        root: Folder to work in.
    """

    def __init__(self, job: Any, root: Path) -> None:
        from faults.moments.strike_cases import Case, case_folder
        from faults.moments.strikes import Watch

        with case_folder(root, Case(job.name, "", "", 0)) as folder:
            job.prepare(folder)
            self.given = used(folder)
            with Watch(root, job.place) as watch:
                job.begin(folder)
            self.moments, self.left = watch.places, job.left(folder)
            self.names = sorted(path.name for path in folder.iterdir())
            self.needed = self.given + used(folder / "out") if job.replaces else used(folder)
            self.largest = max(file.stat().st_size for file in (folder / "out").rglob("*") if file.is_file())


def used(folder: Path) -> int:
    """Bytes that the files of a folder take on a file system of pages."""
    return sum(-(-file.stat().st_size // PAGE) * PAGE for file in folder.rglob("*") if file.is_file())


def verdict(job: Any, case: Any, whole: Unbroken, root: Path) -> str:
    """Strikes a job and goes on with it; "equal", or what is wrong."""
    from faults.moments.strike_cases import case_folder, strike, wrong_ending
    from faults.moments.strikes import mount_small

    with case_folder(root, case) as folder:
        job.prepare(folder)
        if case.kind == "small disk":
            mount_small(folder, case.at, again=True)
        before = opened(root)
        ending = strike(job, case, folder)
        job.progress = False
        if not ending.struck:
            return f"the fault did not strike (exit code {ending.code}) {ending.told[-300:]}"
        if wrong := wrong_ending(ending, case):
            return wrong
        free = case.kind not in ("SIGKILL", "read-only folder")  # which leave nobody, or no right, to remove it
        if free and (stray := strays(folder) + temporary()):
            return f"left behind: {', '.join(stray)}"
        if wrong := job.unsound(folder) if not case.kind.endswith("checkpoint") else None:
            return f"unsound: {wrong}"
        if ending.code or case.kind.endswith("checkpoint"):
            from faults.moments.strike_cases import called

            code, told = called(lambda: job.finish(folder))
            if code:
                return f"cannot be finished: {told[-300:]}"
        found = job.left(folder)
        if names := [name for name in sorted({*found, *whole.left}) if found.get(name) != whole.left.get(name)]:
            return f"differs from the unbroken: {', '.join(names[:6])}"
        if stray := strays(folder, at_last=True) + (temporary() if case.kind != "SIGKILL" else []):
            return f"left behind at last: {', '.join(stray)}"
        if more := sorted(set(opened(root)) - set(before)):
            return f"still open: {', '.join(more)}"
        if children():
            return f"{len(children())} processes remain"
    return "equal"


def strays(folder: Path, at_last: bool = False) -> list[str]:
    """Hidden files of a case, which are temporary or partial; an evaluation's counts are, to be resumed from."""
    found = [path for path in folder.rglob("*") if path.name.startswith(".") or path.name.endswith((".old", ".part"))]
    return [str(path.relative_to(folder)) for path in found if at_last or path.name != ".out.partial"]


def temporary() -> list[str]:
    """Names of the files that are left in the folder of temporary files."""
    return sorted(path.name for path in Path(tempfile.gettempdir()).iterdir())


def opened(root: Path) -> list[str]:
    """Files below a folder that this process has open."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            target = str(descriptor.readlink())
        except OSError:  # that of the listing itself
            continue
        if target.startswith(f"{root}/"):
            found.append(target)
    return found


def children() -> list[int]:
    """Processes that this one has started and that live; one that torch keeps for its semaphores is none of them."""
    import psutil

    found = psutil.Process().children(recursive=True)
    return [child.pid for child in found if "resource_tracker" not in " ".join(child.cmdline())]


def run(count: int, seed: int, root: Path, jobs: list[str] | None = None, kind: str | None = None,
        tell: Any = lambda text: None) -> list[tuple[Any, str]]:  # fmt: skip
    """Every fault with its verdict.

    Args:
        count: Number of faults that are drawn.
        seed: Seed of the draws.
        root: Folder to work in.
        jobs: Names of the jobs; None takes all.
        kind: Kind of faults; None takes all.
        tell: Called with a line for each.
    """
    from hub_server import LoopbackHub

    interrupted = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    with LoopbackHub() as hub:
        os.environ.update(ENVIRONMENT | {"HF_ENDPOINT": hub.url, "HF_HOME": str(root / "home")})  # before any import
        assert "huggingface_hub" not in sys.modules
        try:
            return _run_all(hub, plan_of(count, seed, jobs, kind), root, tell)
        finally:
            signal.signal(signal.SIGINT, interrupted)


def plan_of(count: int, seed: int, jobs: list[str] | None, kind: str | None) -> Any:
    """Makes the plan of the chosen jobs and kinds."""

    def made(unbroken: "dict[str, Unbroken]", mounts: bool) -> list[Any]:
        cases = plan(count, seed, unbroken, mounts)
        return [case for case in cases if (jobs is None or case.job in jobs) and kind in (None, case.kind)]

    return made


def _run_all(hub: Any, planned: Any, root: Path, tell: Any) -> list[tuple[Any, str]]:
    from faults import stock
    from faults.moments import jobs as kinds
    from faults.moments.strikes import mount_small, unmount

    stock.settle()
    multiprocessing.util.get_temp_dir()  # which is made once, in the folder of temporary files, and removed at the end
    shared, found = root / "shared", []
    hub.store.add_user("ada", kinds.Publishing.token, "write", ())
    (root / "mounts").mkdir()
    if mounts := mount_small(root / "mounts", 4096):
        unmount(root / "mounts")
    with stock.no_drawing():
        stock.run(shared)
        every = [kinds.Training(shared), kinds.Prediction(shared), kinds.Evaluation(shared), kinds.Conversion(shared),
                 kinds.Overwriting(shared), kinds.Exporting(shared), kinds.Publishing(shared, hub)]  # fmt: skip
        jobs = {job.name: job for job in every}
        unbroken = {name: Unbroken(job, root) for name, job in jobs.items()}
        cases = planned(unbroken, mounts)
        for number, case in enumerate(cases, 1):
            begun = sum(os.times()[:4])
            what = verdict(jobs[case.job], case, unbroken[case.job], root)
            found.append((case, what))
            tell(f"{number}/{len(cases)} {sum(os.times()[:4]) - begun:.2f} s: {named(case)}: {what}")
    return found


def named(case: Any) -> str:
    """A fault in words."""
    return f"{case.job}, {case.kind} at {case.place} ({case.at})"


def counts(found: list[tuple[Any, str]]) -> dict[str, Any]:
    """Numbers of faults and of those after which all was as it should be, by kind and by place, and what was not."""
    from faults.moments.strike_cases import KINDS

    rows: dict[str, dict[str, list[int]]] = {"kinds": {}, "places": {}}
    for case, what in found:
        place = case.place if case.place in ("publish", case.job) else f"{case.job}: {case.place}"
        for table, name in (("kinds", case.kind), ("places", place)):
            row = rows[table].setdefault(name, [0, 0])
            row[0] += 1
            row[1] += what == "equal"
    order = sorted(rows["kinds"], key=KINDS.index)
    wrong = [f"{named(case)}: {what}" for case, what in found if what != "equal"]
    return {"kinds": {name: rows["kinds"][name] for name in order}, "places": dict(sorted(rows["places"].items())),
            "wrong": wrong}  # fmt: skip


def together(pieces: list[dict[str, Any]]) -> dict[str, Any]:
    """The sum of several counts."""
    total: dict[str, Any] = {"kinds": {}, "places": {}, "wrong": [text for piece in pieces for text in piece["wrong"]]}
    for piece in pieces:
        for table in ("kinds", "places"):
            for name, row in piece[table].items():
                total[table][name] = [sum(pair) for pair in zip(total[table].get(name, [0, 0]), row, strict=True)]
    return total


def markdown(total: dict[str, Any]) -> str:
    """The counts as the two tables of docs/reliability.md."""
    parts = []
    for table, head in (("kinds", "fault"), ("places", "struck while")):
        rows = total[table]
        lines = [f"| {head} | faults | as unbroken |", "|---|---:|---:|"]
        lines += [f"| {name} | {count:,} | {equal:,} |" for name, (count, equal) in rows.items()]
        sums = [sum(row[place] for row in rows.values()) for place in (0, 1)]
        parts.append("\n".join([*lines, f"| **all** | {sums[0]:,} | {sums[1]:,} |"]))
    return "\n\n".join(parts) + "\n"


def main() -> int:
    """Runs the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="number of faults (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default: %(default)s)")
    parser.add_argument("--jobs", nargs="+", choices=list(SHARES), help="only these jobs")
    parser.add_argument("--kind", help="only this kind of fault")
    parser.add_argument("--json", type=Path, help="also write the counts to this file")
    parser.add_argument("--summarise", type=Path, nargs="+", metavar="FILE", help="only add up files of --json")
    given = parser.parse_args()
    sys.path.insert(0, str(TESTS))
    if given.summarise:
        total = together([json.loads(file.read_text()) for file in given.summarise])
    else:
        root = Path(tempfile.mkdtemp(prefix="moments-"))
        try:
            found = run(
                given.count, given.seed, root, given.jobs, given.kind, lambda text: print(text, file=sys.stderr)
            )
        finally:
            shutil.rmtree(root, ignore_errors=True)
        total = counts(found)
    if given.json:
        given.json.write_text(json.dumps(total, indent=1) + "\n")
    print(markdown(total), end="")
    print(*total["wrong"], sep="\n", end="")
    return int(bool(total["wrong"]))


if __name__ == "__main__":
    sys.exit(main())
