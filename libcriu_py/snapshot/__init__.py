"""The snapshot directory: what is in it, what must fit, and how it is written."""

from libcriu_py.snapshot.identity import Mismatch
from libcriu_py.snapshot.manifest import Snapshot

__all__ = ["Mismatch", "Snapshot"]
