"""
`torch`: reseed its default generators in each copy.

The CPU's generator starts with 53 random bits from the kernel (c10::detail::getNonDeterministicRandom); a seed of at
most 32 bits came from `torch.manual_seed`. Generators that the program made keep their sequence: they start from a
constant unless seeded.

`torch.seed()` goes through every kind of device, and records its call stack for those not initialised yet, which takes
milliseconds. It is called only if a device is in use or has a seed pending: others seed themselves from the kernel at
their first use (getDefaultCUDAGenerator, aten/src/ATen/cuda/CUDAGeneratorImpl.cpp).
"""

from __future__ import annotations

import sys
from typing import Any

from libcriu_py.resources.base import Arrival, BuiltIn

_GIVEN_BITS = 32
_LAZY_DEVICES = ("cuda", "xpu", "mtia")


class TorchRandom(BuiltIn):
    """
    torch's default generators, including those of devices.

    Args:
        keep_seeded: Whether they keep their sequence if `torch.manual_seed()` was called.
    """

    def __init__(self, *, keep_seeded: bool = False) -> None:
        self._torch: Any = sys.modules["torch"]
        self._keep = keep_seeded
        self._with_devices = True

    def before_dump(self) -> None:
        """Find out whether devices have generators."""
        self._with_devices = has_devices(self._torch)

    def in_copy(self, arrival: Arrival) -> None:  # noqa: ARG002
        """Seed from the kernel."""
        if self._keep and self._torch.initial_seed().bit_length() <= _GIVEN_BITS:
            return
        if self._with_devices:
            self._torch.seed()
        else:
            self._torch.default_generator.seed()


def has_devices(torch: Any) -> bool:
    """Return whether a device has a generator, or a seed pending for one; True if that is unknown."""
    own = getattr(torch._C, "_get_privateuse1_backend_name", None)  # noqa: SLF001
    if own is None or hasattr(torch, own()) or getattr(torch._C, "_has_mps", True):  # noqa: SLF001
        return True
    return any(_is_in_use(getattr(torch, name)) for name in _LAZY_DEVICES if hasattr(torch, name))


def _is_in_use(device: Any) -> bool:
    waiting = getattr(device, "_lazy_seed_tracker", None)
    return waiting is None or device.is_initialized() or any(waiting.get_calls())
