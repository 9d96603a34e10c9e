"""
`tensorflow`: what draws without a seed draws anew in each copy.

Operations without a seed begin with numbers of one Mersenne Twister of the process, which seeds itself from the kernel
once and cannot be told to do so again (tsl::random::New64, xla/tsl/platform/random.cc). Its state is found in
memory by what it gives (`twister`), and is overwritten in a copy. Kernels keep the numbers that they have begun with:
they are made anew. A `tf.random.Generator` made without a seed has a random counter, one with a seed begins at 0
(tensorflow/python/ops/stateful_random_ops.py); what `split()` gives has a counter of 0 too, and is taken for seeded.
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
"""A counter that was drawn is below this with a chance of 2**-31; one that counts does not get there."""

_LIBRARY = "libtensorflow_framework"
_NEW_NUMBER = "_ZN3tsl6random5New64Ev"


class TensorflowRandom(BuiltIn):
    """
    TensorFlow's own numbers, its generators made without a seed, and the sequence of `tf.random.set_seed()`.

    Args:
        keep_seeded: Whether operations keep their sequence where `tf.random.set_seed()` was called.
    """

    def __init__(self, *, keep_seeded: bool = False) -> None:
        self._keep = keep_seeded
        self._context: Any = None
        self._twister: Any = None
        self._generators: list[Any] = []

    def let_go(self) -> None:
        """Find the state, and the generators that nobody seeded."""
        path = _library()
        context: Any = sys.modules.get("tensorflow.python.eager.context")
        stateful: Any = sys.modules.get("tensorflow.python.ops.stateful_random_ops")
        if path is None or context is None or stateful is None:
            return  # not, or not yet, what this knows of: there is nothing that draws
        import ctypes

        from libcriu_py.resources.twister import Twister

        function = getattr(ctypes.CDLL(path), _NEW_NUMBER)
        function.restype = ctypes.c_uint64
        self._twister = Twister.find(function)
        if self._twister is None:
            message = "the state of tsl::random::New64 is not where it is looked for in this build of TensorFlow"
            raise CheckpointError(message)
        self._context = context.context()
        if self._context.executing_eagerly():
            self._generators = [item for item in live(stateful.Generator) if _is_drawn(item)]

    def put_right(self, arrival: Arrival) -> None:  # noqa: ARG002
        """Seed all from the kernel."""
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
        self.come_back()

    def come_back(self) -> None:
        """Do nothing: the original goes on drawing."""
        self._context, self._twister, self._generators = None, None, []


def _library() -> str | None:
    """Return the loaded library that has the function."""
    return next((mapped.path for mapped in mapped_ranges() if os.path.basename(mapped.path).startswith(_LIBRARY)), None)


def _is_drawn(generator: Any) -> bool:
    """Return whether a generator was made without a seed, by the last word of its counter."""
    *counter, _ = generator.state.numpy().tolist()
    return bool(counter) and abs(counter[-1]) >= _FIRST_DRAWN
