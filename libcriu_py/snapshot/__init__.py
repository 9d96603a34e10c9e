"""The snapshot directory: its content, how it is written, and what must match at a restore."""

from libcriu_py.snapshot.identity import Mismatch
from libcriu_py.snapshot.manifest import Snapshot

__all__ = ["Mismatch", "Snapshot"]
