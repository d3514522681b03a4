"""Import hooks: functions that run once, right after a module is first imported."""

import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


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


def after_package_settles(package: str, steps: Mapping[str, Callable[[], None]]) -> None:
    """Runs each function once its module is imported and no other module of the package is being executed.

    A step that imports other modules of the package must not run while one of them is half executed. It therefore
    waits for the end of the outermost import of the package, which is before the importing code continues.

    Args:
        package: Top-level package of all the modules.
        steps: Functions by full module name, run in this order where several are due.
    """
    finder = _AfterPackage(package, dict(steps))
    sys.meta_path.insert(0, finder)  # before the steps run, as they may import such modules
    finder.run_due()


def _spec_of_others(
    finder: MetaPathFinder, name: str, path: Sequence[str] | None, target: ModuleType | None
) -> ModuleSpec | None:
    """The spec that the finders other than this one find."""
    for other in list(sys.meta_path):
        if other is not finder and hasattr(other, "find_spec"):
            spec = other.find_spec(name, path, target)
            if spec is not None and spec.loader is not None:
                return spec
    return None


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
        spec = _spec_of_others(self, fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _ThenStep(spec.loader, step)
        return spec


class _AfterPackage(MetaPathFinder):
    """Finder that counts a package's modules that are being executed, and runs the due steps when there is none.

    The finder removes itself from `sys.meta_path` when no step is left.
    """

    def __init__(self, package: str, steps: dict[str, Callable[[], None]]) -> None:
        self.package, self.steps = package, steps
        self.executing = threading.local()  # threads import independently of each other

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec found by the other finders, with a loader that counts; None for modules of other packages."""
        if fullname != self.package and not fullname.startswith(f"{self.package}."):
            return None
        spec = _spec_of_others(self, fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Counted(spec.loader, self)
        return spec

    def begin(self) -> None:
        """Counts a module that begins to execute in this thread."""
        self.executing.modules = getattr(self.executing, "modules", 0) + 1

    def end(self) -> None:
        """Counts a module that has ended, also by an error, and runs what is due if it was the outermost."""
        self.executing.modules -= 1
        self.run_due()

    def run_due(self) -> None:
        """Runs the steps whose modules are imported, one after the other, unless a module is being executed.

        A step may import further modules and thereby make others due, which run after it.
        """
        while not getattr(self.executing, "modules", 0) and (
            due := next((n for n in self.steps if n in sys.modules), "")
        ):
            step = self.steps.pop(due)
            self.begin()
            try:
                step()
            finally:
                self.executing.modules -= 1
        if not self.steps and self in sys.meta_path:
            sys.meta_path.remove(self)


class _Wrapped(Loader):
    """Loader around a module's own loader; the module keeps its own, which knows its source."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Creates the module with its own loader."""
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Executes the module with its own loader."""
        module.__loader__ = self.loader
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        self.loader.exec_module(module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)  # a spec that is only looked at answers as it does without us


class _ThenStep(_Wrapped):
    """Loader that runs a step after the module's own loader succeeded."""

    def __init__(self, loader: Loader, step: Callable[[], None]) -> None:
        super().__init__(loader)
        self.step = step

    def exec_module(self, module: ModuleType) -> None:
        """Executes the module, then runs the step."""
        super().exec_module(module)
        self.step()


class _Counted(_Wrapped):
    """Loader that tells a finder when its module begins and ends to execute."""

    def __init__(self, loader: Loader, finder: _AfterPackage) -> None:
        super().__init__(loader)
        self.finder = finder

    def exec_module(self, module: ModuleType) -> None:
        """Executes the module between the two messages."""
        self.finder.begin()
        try:
            super().exec_module(module)
        finally:
            self.finder.end()


__all__ = ["after_import", "after_package_settles"]
