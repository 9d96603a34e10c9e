"""
Identifiers that libraries make from random state of their own: no two copies make the same.

The libraries renew that state in a forked child, which they detect by its pid or by a callback. A copy has the pid of
the dump.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from libcriu_py.program.objects import live
from libcriu_py.resources.base import Arrival, BuiltIn


class UuidUtils(BuiltIn):
    """`uuid_utils`: the generator, in Rust, of the thread that takes the checkpoint."""

    def in_copy(self, arrival: Arrival) -> None:  # noqa: ARG002
        """Reseed it."""
        reseed = getattr(sys.modules["uuid_utils"], "reseed_rng", None)
        if reseed is not None:
            reseed()


class ObjectIds(BuiltIn):
    """`bson.ObjectId`: the random part and the counter of a process (bson/objectid.py)."""

    def in_copy(self, arrival: Arrival) -> None:  # noqa: ARG002
        """Draw both again."""
        kind: Any = sys.modules["bson.objectid"].ObjectId
        if hasattr(kind, "_ObjectId__random"):
            kind._ObjectId__random = os.urandom(5)  # noqa: SLF001
        kind._inc = int.from_bytes(os.urandom(3), "big")  # noqa: SLF001


class DatadogIds(BuiltIn):
    """`ddtrace`: ids of traces and spans, and that of the process."""

    def in_copy(self, arrival: Arrival) -> None:  # noqa: ARG002
        """Reseed the generator, and draw a new id of the process."""
        for name in ("ddtrace.internal.native", "ddtrace.internal._rand"):
            seed = getattr(sys.modules.get(name), "seed", None)
            if seed is not None:
                seed()
        # A forked child would also record the old id as its parent's.
        refresh = getattr(sys.modules.get("ddtrace.internal._runtime_id"), "_refresh_runtime_id", None)
        if refresh is not None:
            refresh()


class KombuIds(BuiltIn):
    """`kombu` and `celery`: names of reply queues, which contain an id of the process (kombu/common.py)."""

    def __init__(self) -> None:
        self._apps: list[Any] = []

    def before_dump(self) -> None:
        """Find the applications that keep a name."""
        celery: Any = sys.modules.get("celery.app.base")
        self._apps = [] if celery is None else live(celery.Celery)

    def in_copy(self, arrival: Arrival) -> None:  # noqa: ARG002
        """Forget the process's id, and names made from it."""
        module: Any = sys.modules["kombu.common"]
        module._node_id = None  # noqa: SLF001
        for app in self._apps:
            app.__dict__.pop("oid", None)
            vars(app._local).pop("oid", None)  # noqa: SLF001
        self._apps = []
