"""
Reading and writing CRIU's images.

The readers are imported on first use: a process about to be dumped needs only the format, and each copy pays for every
module loaded before the dump.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from libcriu_py.images.readers import (
        Descriptor as Descriptor,
        Inventory as Inventory,
        Mapping as Mapping,
        OpenFile as OpenFile,
        Process as Process,
        descriptors as descriptors,
        dump_stats as dump_stats,
        files as files,
        inventory as inventory,
        memory as memory,
        process_tree as process_tree,
        read_entries as read_entries,
        restore_stats as restore_stats,
        saved_memory as saved_memory,
    )

_READERS = frozenset(
    [
        "Descriptor",
        "Inventory",
        "Mapping",
        "OpenFile",
        "Process",
        "descriptors",
        "dump_stats",
        "files",
        "inventory",
        "memory",
        "process_tree",
        "read_entries",
        "restore_stats",
        "saved_memory",
    ]
)


def __getattr__(name: str) -> object:
    """Return a public name of the readers."""
    if name not in _READERS:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    import importlib

    value: object = getattr(importlib.import_module(f"{__name__}.readers"), name)
    return value
