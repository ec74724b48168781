"""PyTorch's compiler, imported by those who compile: the rest of PyTorch imports it only to be left alone by it.

`torch._dynamo` and what it needs take a second to import. Each `torch.optim.Optimizer` imports it when it is made, to
mark its methods as not to be compiled, and in each `step`, for a break between compiled graphs. Dispatch modes mark
theirs as well.
"""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from threading import RLock
from types import ModuleType
from typing import Any

import torch

_NAME = "torch._dynamo"
# What `torch._compile._disable_dynamo` keeps on a function: what it calls from then on.
_MARK = "__dynamo_disable"


class _Unloaded(ModuleType):
    """Stands for the compiler while it is asked to keep away; any other use of it loads the real one."""

    def __init__(self) -> None:
        super().__init__(_NAME)
        self.__spec__ = importlib.util.find_spec(_NAME)
        self._unmarked: list[Callable[..., Any]] = []
        self._lock = RLock()

    def graph_break(self, msg: str = "") -> None:
        """Does nothing: where nothing is compiled there is no graph to break."""
        if self._is_replaced():
            self._load().graph_break(msg)

    def disable(self, fn: Callable[..., Any] | None = None, recursive: bool = True, **options: Any) -> Any:
        """Returns a function of PyTorch's as it is, for now; the real compiler marks it later, all others at once."""
        by_pytorch = fn is not None and options == {"wrapping": False} and fn.__module__.startswith("torch.")
        if fn is None or not by_pytorch or self._is_replaced():
            return self._load().disable(fn, recursive, **options)
        self._unmarked.append(fn)
        return fn

    def __getattr__(self, name: str) -> Any:
        # Others look for such names in all modules (`inspect`, `unittest`); an import of a part asks for the path.
        if name.startswith("__") and name != "__path__":
            raise AttributeError(f"module {_NAME!r} has no attribute {name!r}")
        return getattr(self._load(), name)

    def _is_replaced(self) -> bool:
        return sys.modules.get(_NAME) is not self

    def _load(self) -> ModuleType:
        with self._lock:
            if not self._is_replaced():
                for function in self._unmarked:  # they are marked at their next call
                    vars(function).pop(_MARK, None)
                del sys.modules[_NAME]
                vars(torch).pop("_dynamo", None)
        return importlib.import_module(_NAME)


class _Once(MetaPathFinder, Loader):
    """Has an import of a part of the compiler find the part that the compiler itself has just imported.

    `import torch._dynamo.config` asks the stand-in for its path, which loads the compiler and most of its parts. The
    import goes on from there, and would load that part once more: settings would be made in a copy that nobody reads.
    """

    def __init__(self) -> None:
        self._there: dict[str, ModuleType] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        there = sys.modules.get(fullname) if fullname.startswith(f"{_NAME}.") else None
        if there is None or target is not None:  # the second is a reload
            return None
        self._there[fullname] = there
        return ModuleSpec(fullname, self)

    def exec_module(self, module: ModuleType) -> None:
        sys.modules[module.__name__] = self._there.pop(module.__name__)  # which the import takes from there


def load_compiler_lazily() -> None:
    """Has PyTorch do without its compiler until something is compiled, or asks for more of it.

    Does nothing where it is loaded already.
    """
    if _NAME not in sys.modules:
        sys.modules[_NAME] = torch._dynamo = _Unloaded()
        sys.meta_path.insert(0, _Once())
