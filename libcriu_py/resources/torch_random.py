"""
`torch`: its default generators draw anew in each copy.

The CPU's begins with a seed from the kernel, of 53 random bits (c10::detail::getNonDeterministicRandom); a smaller
one was given by `torch.manual_seed`. Generators of a program's own keep their sequence: theirs begins with a constant
unless they are seeded.
"""

from __future__ import annotations

import sys
from typing import Any

from libcriu_py.resources.base import Arrival, BuiltIn

_GIVEN_BITS = 32
_DEVICES = ("cuda", "xpu", "mtia")


class TorchRandom(BuiltIn):
    """
    torch's default generators, those of devices included.

    Args:
        keep_seeded: Whether they keep their sequence where `torch.manual_seed()` was called.
    """

    def __init__(self, *, keep_seeded: bool = False) -> None:
        self._torch: Any = sys.modules["torch"]
        self._keep = keep_seeded

    def put_right(self, arrival: Arrival) -> None:  # noqa: ARG002
        """
        Seed from the kernel.
        """
        if self._keep and self._torch.initial_seed().bit_length() <= _GIVEN_BITS:
            return
        if self._devices_are_fresh():
            self._torch.random.default_generator.seed()
        else:
            self._torch.seed()

    def _devices_are_fresh(self) -> bool:
        """
        Tell whether no device has a seed yet, nor one in store: their generators will draw one themselves.

        `torch.seed()` would put one in store for each, with a formatted traceback: 2 ms of reading source files.
        """
        torch = self._torch
        try:
            if hasattr(torch, torch._C._get_privateuse1_backend_name()):  # noqa: SLF001
                return False
            devices = [getattr(torch, name) for name in _DEVICES]
            return not any(
                device._initialized or device._lazy_seed_tracker.get_calls()  # noqa: SLF001
                for device in devices
            )
        except AttributeError:
            return False  # another version of torch
