"""Privilege modes: what allows a dump or a restore, and what prevents it."""

from libcriu_py.privilege.decision import Decision, decide, find_obstacle
from libcriu_py.privilege.mode import Obstacle, Privilege

__all__ = ["Decision", "Obstacle", "Privilege", "decide", "find_obstacle"]
