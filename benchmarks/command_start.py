"""Times `vithub --help` against `hf --help`, each in a process of its own, in turns.

python benchmarks/command_start.py --rounds 15
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

COMMANDS = ("vithub", "hf")


def seconds(command: str) -> float:
    """Wall time of one call; offline, so that no server is asked for newer versions."""
    program = Path(sys.executable).with_name(command)
    begun = time.perf_counter()
    subprocess.run(
        [program, "--help"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    return time.perf_counter() - begun


def main() -> None:
    """Prints medians, their ratio and the load as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    for command in COMMANDS:  # once unmeasured, so that files are in memory
        seconds(command)
    load = os.getloadavg()[0]
    times: dict[str, list[float]] = {command: [] for command in COMMANDS}
    for _ in range(options.rounds):
        for command in COMMANDS:
            times[command].append(seconds(command))
    medians = {command: statistics.median(found) for command, found in times.items()}
    print(
        json.dumps(
            {
                "median_seconds": {command: round(median, 3) for command, median in medians.items()},
                "ratio": round(medians["vithub"] / medians["hf"], 2),
                "rounds": options.rounds,
                "load_before": round(load, 1),
                "load_after": round(os.getloadavg()[0], 1),
                "cores": os.cpu_count(),
                "huggingface_hub": version("huggingface_hub"),
            }
        )
    )


if __name__ == "__main__":
    main()
