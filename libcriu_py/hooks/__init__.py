"""Hooks around a checkpoint: their registry, their order, and the stopping of other threads meanwhile."""

from libcriu_py.hooks.registry import Resource, after_restore, before_checkpoint, register, unregister

__all__ = ["Resource", "after_restore", "before_checkpoint", "register", "unregister"]
