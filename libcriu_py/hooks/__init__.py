"""Hooks around a checkpoint: who registers one, in which order they run, and what runs meanwhile."""

from libcriu_py.hooks.registry import Resource, after_restore, before_checkpoint, register, unregister

__all__ = ["Resource", "after_restore", "before_checkpoint", "register", "unregister"]
