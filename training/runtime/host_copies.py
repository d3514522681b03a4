"""Copies of small tensors to the host that do not make it wait for the device."""

import torch


class HostCopy:
    """Copy of a tensor that a device finishes while the host goes on.

    Args:
        values: Tensor on any device.
    """

    def __init__(self, values: torch.Tensor) -> None:
        self._done: torch.cuda.Event | None = None
        if values.device.type == "cuda":
            self._values = values.to("cpu", non_blocking=True)  # into pinned memory
            self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._done.record()
        else:
            self._values = values

    def read(self) -> list[float]:
        """Returns the values; waits until the copy is finished, and for nothing that was begun after it."""
        if self._done is not None:
            self._done.synchronize()
        values: list[float] = self._values.tolist()
        return values


__all__ = ["HostCopy"]
