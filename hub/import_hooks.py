"""Import hooks: functions that run once, right after a module is first imported."""

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


def after_import(steps: Mapping[str, Callable[[], None]]) -> None:
    """Runs each function after its module is imported: now if it already is, otherwise at the import.

    Args:
        steps: Functions by full module name; those whose modules are already imported run in this order.
    """
    there = [name for name in steps if name in sys.modules]
    later = {name: step for name, step in steps.items() if name not in there}
    if later:
        sys.meta_path.insert(0, _AfterImport(later))  # before the steps run, as they may import such modules
    for name in there:
        steps[name]()


class _AfterImport(MetaPathFinder):
    """Finder that delegates to the other finders and runs a module's step after the module has been executed.

    The finder removes itself from `sys.meta_path` when the last of its modules has been found.
    """

    def __init__(self, steps: dict[str, Callable[[], None]]) -> None:
        self.steps = steps

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec found by the other finders, with a loader that runs the step; None for all other modules."""
        step = self.steps.pop(fullname, None)
        if step is None:
            return None
        if not self.steps and self in sys.meta_path:
            sys.meta_path.remove(self)
        for finder in list(sys.meta_path):
            if finder is self or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(fullname, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader = _ThenStep(spec.loader, step)
                return spec
        return None


class _ThenStep(Loader):
    """Loader that runs a step after the module's own loader; the module keeps its own, which knows its source."""

    def __init__(self, loader: Loader, step: Callable[[], None]) -> None:
        self.loader, self.step = loader, step

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Creates the module with its own loader."""
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Executes the module, then runs the step if the execution succeeded."""
        module.__loader__ = self.loader
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        self.loader.exec_module(module)
        self.step()


__all__ = ["after_import"]
