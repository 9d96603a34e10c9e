"""
The random numbers of OpenSSL, of which keys and session secrets are made.

OpenSSL notices a fork by the pid, which is the same in each copy (crypto/rand, openssl_get_fork_id): two copies would
make the same private keys. RAND_add reseeds the generator at the top, and those below it reseed when they see that
(providers/implementations/rands/drbg.c). A process may have several: that of Python's `ssl`, the one linked into the
package `cryptography`, and those that binary wheels bring along as shared libraries.

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
    """The generators of every OpenSSL in the process that can be reached."""

    def __init__(self) -> None:
        self._add: list[Callable[[bytes], object]] = []

    def let_go(self) -> None:
        """Find them."""
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

        # The first use of a generator sets it up, which takes milliseconds: not in each copy.
        for add in self._add:
            add(os.urandom(_SEED_BYTES))

    def put_right(self, arrival: Arrival) -> None:  # noqa: ARG002
        """Mix bytes of the kernel into each, counted as full entropy."""
        for add in self._add:
            add(os.urandom(_SEED_BYTES))

    def come_back(self) -> None:
        """Do nothing: the original goes on drawing."""
        self._add = []


def shared_libraries() -> list[str]:
    """Return the libcrypto libraries that are loaded."""
    paths = {mapped.path for mapped in mapped_ranges()}
    return sorted(
        path for path in paths if os.path.basename(path).startswith("libcrypto") and not path.endswith("(deleted)")
    )
