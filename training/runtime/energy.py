"""Estimate of the energy used by a run; only the time is measured."""

from typing import Any

MACHINE_WATTS, GPU_WATTS = 100.0, 400.0


def energy_estimate(seconds: float, device: str, processes: int) -> dict[str, Any]:
    """Multiplies the time by an assumed power: 100 W for the machine and 400 W for each GPU.

    Args:
        seconds: Duration of training and validation.
        device: Device type; "cuda" counts one GPU per process, "cpu" and others none.
        processes: Number of processes of the run.

    Returns:
        Dictionary with `kwh`, `watts` and `assumption`, a phrase that says where the watts come from.
    """
    gpus = processes if device == "cuda" else 0
    watts = MACHINE_WATTS + GPU_WATTS * gpus
    parts = f"{MACHINE_WATTS:.0f} W for the machine"
    if gpus:
        parts += f" and {GPU_WATTS:.0f} W for each of {gpus} GPU{'' if gpus == 1 else 's'}"
    return {"kwh": seconds / 3600 * watts / 1000, "watts": watts, "assumption": parts}


__all__ = ["energy_estimate"]
