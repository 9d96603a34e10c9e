"""
`torch`: its default generators draw anew in each copy.

The CPU's begins with a seed from the kernel, of 53 random bits (c10::detail::getNonDeterministicRandom); a smaller
one was given by `torch.manual_seed`. Generators of a program's own keep their sequence: theirs begins with a constant
unless they are seeded.

`torch.seed()` asks every kind of device, and notes where it was called from for those that are not there yet, which
takes milliseconds. It is called only where a device is in use, or has a seed waiting for it: others draw their own
from the kernel when they are first used (getDefaultCUDAGenerator, aten/src/ATen/cuda/CUDAGeneratorImpl.cpp).
"""

from __future__ import annotations

import sys
from typing import Any

from libcriu_py.resources.base import Arrival, BuiltIn

_GIVEN_BITS = 32
_LAZY_DEVICES = ("cuda", "xpu", "mtia")


class TorchRandom(BuiltIn):
    """
    torch's default generators, those of devices included.

    Args:
        keep_seeded: Whether they keep their sequence where `torch.manual_seed()` was called.
    """

    def __init__(self, *, keep_seeded: bool = False) -> None:
        self._torch: Any = sys.modules["torch"]
        self._keep = keep_seeded
        self._with_devices = True

    def let_go(self) -> None:
        """Find out which generators there are."""
        self._with_devices = has_devices(self._torch)

    def put_right(self, arrival: Arrival) -> None:  # noqa: ARG002
        """Seed from the kernel."""
        if self._keep and self._torch.initial_seed().bit_length() <= _GIVEN_BITS:
            return
        if self._with_devices:
            self._torch.seed()
        else:
            self._torch.default_generator.seed()


def has_devices(torch: Any) -> bool:
    """Return whether generators of devices exist, or have a seed that they will begin with; in doubt they do."""
    own = getattr(torch._C, "_get_privateuse1_backend_name", None)  # noqa: SLF001
    if own is None or hasattr(torch, own()) or getattr(torch._C, "_has_mps", True):  # noqa: SLF001
        return True
    return any(_is_in_use(getattr(torch, name)) for name in _LAZY_DEVICES if hasattr(torch, name))


def _is_in_use(device: Any) -> bool:
    waiting = getattr(device, "_lazy_seed_tracker", None)
    return waiting is None or device.is_initialized() or any(waiting.get_calls())
