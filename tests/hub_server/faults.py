"""Faults to inject at a route."""

import threading
from dataclasses import dataclass

KINDS = ("cut", "lost", "slow")


@dataclass
class Fault:
    """What goes wrong at one route.

    Args:
        route: Name in the table of routes, or "*".
        kind: A status code, answered without doing anything; "cut": the connection breaks in the middle of the
            request, or of the answer where there is no request body, nothing being done; "lost": what was asked is
            done, and the connection breaks in the middle of the answer; "slow": the answer stops for a while.
        times: Requests that fail; None fails all.
        after: Requests that pass before.
    """

    route: str
    kind: int | str
    times: int | None = None
    after: int = 0
    hits: int = 0

    def __post_init__(self) -> None:
        assert isinstance(self.kind, int) or self.kind in KINDS, self.kind


class FaultPlan:
    """The faults that are active; asked once for each request."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self.lock = threading.Lock()

    def add(self, fault: Fault) -> Fault:
        self.faults.append(fault)
        return fault

    def clear(self) -> None:
        self.faults.clear()

    def take(self, route: str) -> int | str | None:
        """The kind of fault that this request meets."""
        with self.lock:
            for fault in self.faults:
                if fault.route not in (route, "*"):
                    continue
                if fault.after:
                    fault.after -= 1
                    continue
                if fault.times is None or fault.hits < fault.times:
                    fault.hits += 1
                    return fault.kind
        return None


__all__ = ["KINDS", "Fault", "FaultPlan"]
