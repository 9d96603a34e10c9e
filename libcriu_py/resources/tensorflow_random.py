"""
`tensorflow`: reseed in each copy what draws without a seed.

Operations without a seed start from numbers of one Mersenne Twister per process, which seeds itself from the kernel
once and has no function to reseed it (tsl::random::New64, xla/tsl/platform/random.cc). `mersenne_twister` finds its
state in memory by its output, and overwrites it in a copy. Kernels keep their start numbers, so the kernel cache is
cleared. A `tf.random.Generator` made without a seed has a random counter; one with a seed starts at 0
(tensorflow/python/ops/stateful_random_ops.py), as does one from `split()`, which therefore counts as seeded.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from libcriu_py.errors import CheckpointError
from libcriu_py.linux.maps import mapped_ranges
from libcriu_py.program.objects import live
from libcriu_py.resources.base import Arrival, BuiltIn

_FIRST_DRAWN = 1 << 32
"""A random counter is below this with a chance of 2**-31; one that counted from 0 does not reach it."""

_LIBRARY = "libtensorflow_framework"
_NEW_NUMBER = "_ZN3tsl6random5New64Ev"


class TensorflowRandom(BuiltIn):
    """
    TensorFlow's own numbers, its generators made without a seed, and the sequence of `tf.random.set_seed()`.

    Args:
        keep_seeded: Whether operations keep their sequence if `tf.random.set_seed()` was called.
    """

    def __init__(self, *, keep_seeded: bool = False) -> None:
        self._keep = keep_seeded
        self._context: Any = None
        self._twister: Any = None
        self._generators: list[Any] = []

    def before_dump(self) -> None:
        """
        Find the state and the unseeded generators.

        Raises:
            CheckpointError: This build of TensorFlow keeps the state elsewhere.
        """
        path = _library()
        context: Any = sys.modules.get("tensorflow.python.eager.context")
        stateful: Any = sys.modules.get("tensorflow.python.ops.stateful_random_ops")
        if path is None or context is None or stateful is None:
            return  # TensorFlow is not, or not fully, loaded: nothing draws
        import ctypes

        from libcriu_py.resources.mersenne_twister import Twister

        function = getattr(ctypes.CDLL(path), _NEW_NUMBER)
        function.restype = ctypes.c_uint64
        self._twister = Twister.find(function)
        if self._twister is None:
            message = "the state of tsl::random::New64 was not found in this build of TensorFlow"
            raise CheckpointError(message)
        self._context = context.context()
        if self._context.executing_eagerly():
            self._generators = [item for item in live(stateful.Generator) if _is_drawn(item)]

    def in_copy(self, arrival: Arrival) -> None:  # noqa: ARG002
        """Seed them from the kernel."""
        if self._twister is None:
            return
        self._twister.seed()
        seeded = self._context._seed is not None  # noqa: SLF001
        if seeded and not self._keep:
            self._context._set_global_seed(int.from_bytes(os.urandom(4), "little") >> 1)  # noqa: SLF001
        elif not seeded:
            self._context.clear_kernel_cache()
        for generator in self._generators:
            words = generator.state.shape[0]
            fresh = [int.from_bytes(os.urandom(8), "little", signed=True) for _ in range(words)]
            generator.reset(fresh)
        self.in_original()


def _library() -> str | None:
    """Return the path of the loaded library with the function."""
    paths = (mapped.path for mapped in mapped_ranges(having=f"/{_LIBRARY}"))
    return next((path for path in paths if os.path.basename(path).startswith(_LIBRARY)), None)


def _is_drawn(generator: Any) -> bool:
    """Return whether a generator was made without a seed, by the last word of its counter."""
    *counter, _ = generator.state.numpy().tolist()
    return bool(counter) and abs(counter[-1]) >= _FIRST_DRAWN
