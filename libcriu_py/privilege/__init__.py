"""The privilege modes: how a dump or a restore is allowed, and what stops it."""

from libcriu_py.privilege.decision import Decision, decide, find_obstacle
from libcriu_py.privilege.mode import Obstacle, Privilege

__all__ = ["Decision", "Obstacle", "Privilege", "decide", "find_obstacle"]
