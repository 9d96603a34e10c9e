"""
Find state that is the same in each copy and that this package cannot renew.

A library with random numbers or ids of its own renews its state after a fork, which it detects by the pid or by a
callback. A copy has the pid and the state of the dump. Built-in resources renew the state that can be reached; this
module names the rest.
"""

from __future__ import annotations

import mmap
import os
import re
import sys
from typing import TYPE_CHECKING

from libcriu_py.findings.finding import Finding, Verdict
from libcriu_py.linux.maps import mapped_ranges
from libcriu_py.program import fork_callbacks

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_OWN_GENERATORS = {
    "libarrow.so": ("pyarrow.compute.random", "give it an initializer of os.urandom in copies"),
    "libgcrypt.so": ("gcry_create_nonce", "draw by gcry_randomize, which asks the kernel"),
    "_ulid_impl.": ("ulid_transform.ulid_now", "make ids of uuid.uuid4 or os.urandom"),
}
"""By the beginning of a library's name: what draws from a generator that cannot be reached, and advice."""

_RUST = b"/src/rngs/thread.rs"
"""The source file of rand's ThreadRng, which a library names for its panics."""
_RUST_RENEWED = ("_polars_runtime.", "polars.abi3.")
"""Libraries with one state for all threads, which a resource renews."""
_RUST_HERE = ("_uuid_utils.", "_native.cpython")
"""Libraries whose state a resource renews in the thread that takes the checkpoint only."""
_RUST_SYMBOL = "ThreadRng"
_FIRST_DRAW = (
    "what it draws is the same in each copy if this thread has drawn before the dump; have it draw for the first time "
    "in copies"
)
_OTHER_THREADS = (
    "it is renewed in the thread that takes the checkpoint; what others draw is the same in each copy if they have "
    "drawn before the dump, so start them in copies"
)
_HANDLED = {"bson.objectid.ObjectId._pid"}
_CALLBACK = (
    "it is called in forked children, and not in copies; if it renews random state or ids, call it in after_restore, "
    "but not if it replaces locks or starts threads"
)
_PID = (
    "it holds this process's pid, which copies have too; what is renewed when the pid changes is not, so renew it in "
    "after_restore"
)
_NAME = (
    "it has this process's pid in its name, and copies share it: those by criu have that pid too, all at once in pid "
    "namespaces of their own; name it in copies, by something that differs, such as uuid.uuid4()"
)
_LEAST_PID = 1000
"""Smaller numbers are in names for other reasons."""


def findings(opened: Iterable[Finding]) -> Iterator[Finding]:
    """
    Find such state.

    Args:
        opened: What else was found, descriptors among it.
    """
    for name in fork_callbacks.unknown():
        yield Finding("fork callback", name, Verdict.FINE, _CALLBACK)
    pid = os.getpid()
    number = re.compile(rf"/(.*\D)?{pid}(?!\d)" if pid >= _LEAST_PID else "(?!)", re.DOTALL)
    for place, key, value in _variables():
        name = f"{place}.{key}"
        if type(value) is int and value == pid and "pid" in key.lower() and name not in _HANDLED:
            yield Finding("state kept by pid", name, Verdict.FINE, _PID)
        elif (isinstance(value, str) or type(value).__module__.startswith("pathlib")) and number.search(str(value)):
            yield Finding("name with the pid", f"{name} {value}", Verdict.FINE, _NAME)
    for found in opened:
        if found.fd is not None and number.search(found.what):
            yield found._replace(kind="name with the pid", verdict=Verdict.FINE, advice=_NAME)
    yield from _generators()


def _variables() -> Iterator[tuple[str, str, object]]:
    """Yield the variables of modules and classes: where they are, name and value."""
    for name, module in list(sys.modules.items()):
        if fork_callbacks.is_standard(name) or name.startswith("libcriu_py."):
            continue
        values = dict(getattr(module, "__dict__", {}))
        places = [(name, values)]
        places += [
            (f"{name}.{kind.__qualname__}", dict(vars(kind)))
            for kind in values.values()
            if isinstance(kind, type) and kind.__module__ == name
        ]
        for place, variables in places:
            for key, value in variables.items():
                yield place, key, value


def _generators() -> Iterator[Finding]:
    """Find libraries with a generator that cannot be renewed."""
    alone = len(sys._current_frames()) == 1  # noqa: SLF001
    for path in sorted({mapped.path for mapped in mapped_ranges() if "x" in mapped.permissions}):
        name = os.path.basename(path)
        for beginning, (symbol, advice) in _OWN_GENERATORS.items():
            if name.startswith(beginning):
                yield Finding("generator", f"{path} {symbol}", Verdict.FINE, f"two copies draw alike; {advice}")
        here = name.startswith(_RUST_HERE)
        if (here and alone) or name.startswith(_RUST_RENEWED) or not _contains(path, _RUST):
            continue
        yield Finding("generator", f"{path} {_RUST_SYMBOL}", Verdict.FINE, _OTHER_THREADS if here else _FIRST_DRAW)


def _contains(path: str, text: bytes) -> bool:
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(text) >= 0
    except (OSError, ValueError):  # deleted, empty, or no file
        return False
