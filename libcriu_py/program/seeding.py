"""
Distinguish explicitly seeded generators of `random` from those seeded by the system.

Their states look the same (Modules/_randommodule.c, init_by_array). So `random.Random.seed` and `setstate` are watched
from the start of ``libcriu-py snapshot``, or from the entry into the block of `checkpoint`. Earlier generators count as
not seeded. A program that never imports `random` does not get it imported.
"""

from __future__ import annotations

import functools
import sys
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator
    from importlib.machinery import ModuleSpec

_seeded: weakref.WeakSet[random.Random] = weakref.WeakSet()
_originals: dict[str, Any] = {}


def watch() -> None:
    """Begin to note which generators are seeded explicitly, as soon as `random` is imported."""
    if "random" in sys.modules:
        _watch(sys.modules["random"])
    elif _import_hook not in sys.meta_path:
        sys.meta_path.insert(0, _import_hook)


def unwatch() -> bool:
    """Put the methods of `random` back; return whether they were watched."""
    if _import_hook in sys.meta_path:
        sys.meta_path.remove(_import_hook)
    watched = bool(_originals)
    if watched:
        module: Any = sys.modules["random"]
        module.Random.seed, module.Random.setstate = _originals["seed"], _originals["setstate"]
        _originals.clear()
        _bind_again(module)
    return watched


def is_seeded(generator: random.Random) -> bool:
    """Return whether a generator was seeded explicitly while seeding was watched."""
    return generator in _seeded


@contextmanager
def keep_marks() -> Iterator[None]:
    """Ignore which generators are seeded within the block."""
    before = list(_seeded)
    try:
        yield
    finally:
        _seeded.clear()
        _seeded.update(before)


def _watch(module: Any) -> None:
    if _originals:
        return
    seed, setstate = module.Random.seed, module.Random.setstate
    _originals.update(seed=seed, setstate=setstate)

    @functools.wraps(seed)
    def watched_seed(self: random.Random, a: Any = None, *args: Any, **kwargs: Any) -> None:
        seed(self, a, *args, **kwargs)
        if a is None:
            _seeded.discard(self)
        else:
            _seeded.add(self)

    @functools.wraps(setstate)
    def watched_setstate(self: random.Random, state: Any) -> None:
        setstate(self, state)
        _seeded.add(self)

    module.Random.seed, module.Random.setstate = watched_seed, watched_setstate
    _bind_again(module)


def _bind_again(module: Any) -> None:
    """Bind the module's functions again, which are methods bound at its import."""
    module.seed, module.setstate = module._inst.seed, module._inst.setstate  # noqa: SLF001


class _ImportHook:
    """A finder that intercepts the import of `random`."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:  # noqa: ARG002
        """Leave finding to other finders, and watch `random` once it has been executed."""
        if name != "random":
            return None
        sys.meta_path.remove(self)
        import importlib.util

        spec = importlib.util.find_spec(name)
        loader: Any = None if spec is None else spec.loader
        if loader is not None:
            execute = loader.exec_module

            def exec_module(module: Any) -> None:
                del loader.exec_module
                execute(module)
                _watch(module)

            loader.exec_module = exec_module
        return spec


_import_hook: Any = _ImportHook()
