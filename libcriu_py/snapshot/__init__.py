"""The snapshot directory: what is in it, what must fit, and how it is written."""

from libcriu_py.snapshot.manifest import Mismatch, Snapshot

__all__ = ["Mismatch", "Snapshot"]
