"""CRIU's images: reading what a dump holds, and the format of its files."""

from libcriu_py.images.readers import (
    Descriptor,
    Inventory,
    Mapping,
    OpenFile,
    Process,
    descriptors,
    dump_stats,
    files,
    inventory,
    memory,
    process_tree,
    read_entries,
    restore_stats,
    saved_memory,
)

__all__ = [
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
