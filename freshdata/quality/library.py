"""Import Great Expectations, which takes seconds: only functions do it."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

# A third of its import is for two expectations on distributions and the charts of one of them.
RARELY_USED = ("scipy.stats", "altair")


class _Deferred(ModuleType):
    """Stands for a module that is imported when something is asked of it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # Asked of any module by the import system.
            raise AttributeError(name)
        return getattr(import_module(self.__name__), name)


def great_expectations() -> ModuleType:
    """The library."""
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")  # Read once, at its import.
    with _deferred(RARELY_USED):
        return import_module("great_expectations")


@contextmanager
def _deferred(names: tuple[str, ...]) -> Iterator[None]:
    stand_ins = {name: _Deferred(name) for name in names if name not in sys.modules}
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name, stand_in in stand_ins.items():
            if sys.modules.get(name) is stand_in:
                del sys.modules[name]
