"""From the measurements of all rounds to medians, ratios, tables and the machine they hold for."""

import os
import platform
import statistics
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from worker import GEMM_SIZE

OURS = "vithub"
PEERS = ("transformers", "timm")
# What decides how fast half precision is on a processor.
_FEATURES = ("avx2", "avx512_f", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_fp16")


def spread(values: list[float]) -> dict[str, Any]:
    """Median, least and greatest value, and each round's."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "rounds": values}


def summarise(rounds: list[dict[str, dict[str, Any]]], batch_size: int, operations: float) -> dict[str, Any]:
    """One case's figures.

    Ratios are taken within each round, whose measurements lie close together in time, and their median is reported.

    Args:
        rounds: Per round the measurement of each contender and of "gemm".
        batch_size: Images per step.
        operations: Floating-point operations per image.
    """
    gemm = [measured["gemm"]["steps_per_second"] * 2 * GEMM_SIZE**3 for measured in rounds]
    contenders, speeds = {}, {}
    for name in (name for name in rounds[0] if name != "gemm"):
        own = [measured[name] for measured in rounds]
        speeds[name] = [figures["steps_per_second"] * batch_size for figures in own]
        shares = [speed * operations / rate for speed, rate in zip(speeds[name], gemm, strict=True)]
        contenders[name] = {
            "images_per_second": spread(speeds[name]),
            "share_of_gemm_rate": spread(shares),
            "cores_of_others": spread([figures["cores_of_others"] for figures in own]),
            "page_faults_per_step": spread([figures["page_faults_per_step"] for figures in own]),
            "steps": sum(figures["steps"] for figures in own),
        }
        for kind in ("peak_memory_mb", "peak_gpu_memory_mb"):
            if kind in own[0]:
                contenders[name][kind] = max(figures[kind] for figures in own)
    slower, faster = sorted(PEERS, key=lambda name: statistics.median(speeds[name]))
    ratios = {}
    variants = {name.removeprefix(f"{OURS}+"): name for name in speeds if name.startswith(f"{OURS}+")}
    for place, peer in {"faster_peer": faster, "slower_peer": slower, **variants}.items():
        pairs = [ours / theirs for ours, theirs in zip(speeds[OURS], speeds[peer], strict=True)]
        ratios[place] = {"name": peer, **spread(pairs)}
    return {"gemm_flops_per_second": spread(gemm), "contenders": contenders, "ours_to": ratios}


def describe_machine(device: str, threads: int) -> dict[str, Any]:
    """Processor, memory and what torch may use of them."""
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    machine: dict[str, Any] = {
        "processor": _processor_name(),
        "cores": os.cpu_count(),
        "threads": threads or torch.get_num_threads(),
        "features": [name for name in _FEATURES if capabilities.get(name)],
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": platform.platform(),
        "load_before": os.getloadavg()[0],
    }
    if device.startswith("cuda"):
        machine["gpu"] = torch.cuda.get_device_name(device)
    return machine


def _processor_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def describe_versions() -> dict[str, str]:
    """Of the libraries whose speed is in the figures."""
    names = ("vithub", "torch", "transformers", "timm")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def table_of(case: dict[str, Any]) -> Table:
    """One case as a table; ratios are ours to each peer."""
    gemm = case["gemm_flops_per_second"]
    title = f"{case['mode']}, {case['precision']} (matrix product: {gemm['median'] / 1e12:.2f} TFLOP/s)"
    if case["disturbed"]:
        title += f"; {case['disturbed']} measurements disturbed by other processes"
    table = Table(title=title, title_justify="left")
    for heading in ("", "images/s", "range", "of that rate", "peak memory", "vithub is"):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    ratios = {ratio["name"]: ratio for ratio in case["ours_to"].values()}
    for name, figures in case["contenders"].items():
        speed, ratio = figures["images_per_second"], ratios.get(name)
        peak = figures.get("peak_gpu_memory_mb", figures["peak_memory_mb"])
        table.add_row(
            name,
            f"{speed['median']:.2f}",
            f"{speed['min']:.2f} to {speed['max']:.2f}",
            f"{figures['share_of_gemm_rate']['median']:.0%}",
            f"{peak:.0f} MB",
            f"{ratio['median']:.3f} x ({ratio['min']:.3f} to {ratio['max']:.3f})" if ratio else "",
        )
    return table
