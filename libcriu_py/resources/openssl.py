"""
OpenSSL: reseed the generators that make keys and session secrets.

OpenSSL detects a fork by the pid, which is the same in each copy (crypto/rand, openssl_get_fork_id): two copies would
make the same private keys. RAND_add reseeds the primary generator, and the others reseed when they see that
(providers/implementations/rands/drbg.c). A process may have several OpenSSLs: that of Python's `ssl`, the one linked
into the package `cryptography`, and shared libraries from binary wheels.

`os.urandom`, `secrets` and `uuid.uuid4` ask the kernel each time and need nothing.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from libcriu_py.linux.maps import mapped_ranges
from libcriu_py.resources.base import Arrival, BuiltIn

if TYPE_CHECKING:
    from collections.abc import Callable

_SEED_BYTES = 64


class OpenSsl(BuiltIn):
    """The generators of every reachable OpenSSL in the process."""

    def __init__(self) -> None:
        self._add: list[Callable[[bytes], object]] = []

    def before_dump(self) -> None:
        """Find them, and seed them once."""
        module: Any = sys.modules.get("_ssl")
        if module is not None:
            self._add.append(lambda seed: module.RAND_add(seed, float(len(seed))))
        rust: Any = sys.modules.get("cryptography.hazmat.bindings._rust")
        linked: Any = getattr(getattr(rust, "_openssl", None), "lib", None)
        if linked is not None and hasattr(linked, "RAND_add"):
            self._add.append(lambda seed: linked.RAND_add(seed, len(seed), float(len(seed))))
        others = shared_libraries()
        if len(others) > (module is not None):
            import ctypes

            for path in others:
                function = ctypes.CDLL(path).RAND_add
                function.argtypes, function.restype = (ctypes.c_char_p, ctypes.c_int, ctypes.c_double), None
                self._add.append(lambda seed, call=function: call(seed, len(seed), float(len(seed))))  # type: ignore[misc]

        # Setting a generator up at its first use takes milliseconds: do it once, not in each copy.
        for add in self._add:
            add(os.urandom(_SEED_BYTES))

    def before_dump_last(self) -> bool:
        """Return whether there are any."""
        return bool(self._add)

    def in_copy(self, arrival: Arrival) -> None:  # noqa: ARG002
        """Mix bytes from the kernel into each, counted as full entropy."""
        for add in self._add:
            add(os.urandom(_SEED_BYTES))


def shared_libraries() -> list[str]:
    """Return the paths of the loaded libcrypto libraries."""
    paths = {mapped.path for mapped in mapped_ranges(having="/libcrypto")}
    return sorted(
        path for path in paths if os.path.basename(path).startswith("libcrypto") and not path.endswith("(deleted)")
    )
