"""
OpenSSL's random numbers, from which `ssl` makes keys and session secrets.

OpenSSL notices a fork by the pid, which is the same in each copy (crypto/rand, openssl_get_fork_id). RAND_add reseeds
the generator at the top, and those below it reseed when they see that (providers/implementations/rands/drbg.c).
`os.urandom`, `secrets` and `uuid.uuid4` ask the kernel each time and need nothing.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from libcriu_py.resources.base import Arrival, BuiltIn

_SEED_BYTES = 64


class OpenSsl(BuiltIn):
    """
    The generators of the OpenSSL that Python's `ssl` uses.
    """

    def __init__(self) -> None:
        self._ssl: Any = sys.modules["_ssl"]

    def put_right(self, arrival: Arrival) -> None:  # noqa: ARG002
        """
        Mix in bytes of the kernel, counted as full entropy.
        """
        self._ssl.RAND_add(os.urandom(_SEED_BYTES), float(_SEED_BYTES))
