"""
The random numbers of GnuTLS, which detects a fork by the pid (lib/nettle/rnd.c).

`gnutls_rnd_refresh()` reseeds the generators from the kernel.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from libcriu_py.linux.maps import mapped_ranges
from libcriu_py.resources.base import Arrival, BuiltIn

if TYPE_CHECKING:
    from collections.abc import Callable


class GnuTls(BuiltIn):
    """The generators of every GnuTLS in the process."""

    def __init__(self) -> None:
        self._refresh: list[Callable[[], object]] = []

    def before_dump(self) -> None:
        """Find them."""
        paths = {mapped.path for mapped in mapped_ranges(having="/libgnutls.so")}
        paths = {path for path in paths if os.path.basename(path).startswith("libgnutls.so")}
        if paths:
            import ctypes

            self._refresh = [ctypes.CDLL(path).gnutls_rnd_refresh for path in sorted(paths)]

    def before_dump_last(self) -> bool:
        """Return whether there are any."""
        return bool(self._refresh)

    def in_copy(self, arrival: Arrival) -> None:  # noqa: ARG002
        """Renew each."""
        for refresh in self._refresh:
            refresh()
