"""Values that would be null pointers, of any wrong type: they are refused before libcriu sees them."""

from __future__ import annotations

from typing import Any

import pytest

from libcriu_py.criu.names import ADDERS, SETTERS
from libcriu_py.criu.native import NativeOptions
from libcriu_py.linux.ffi import lib


@pytest.mark.parametrize(
    "values",
    [
        {"inherit_fds": [(1, None)]},
        {"inherit_fds": [(None, "key")]},
        {"external": [None]},
        {"ext_mounts": [("key", None)]},
        {"cgroup_roots": [("cpu", None)]},
        {"join_ns": [("net", None, None)]},
        {"veth_pairs": [(None, "x")]},
        {"skip_mounts": [None]},
        {"page_server": (None, 80)},
        {"exec_cmd": ["true", None]},
        {"external": None},
    ],
)
def test_none_inside_of_a_value(values: dict[str, Any]) -> None:
    """Libcriu would follow the null pointer; an option that is None is not set."""
    if values == {"external": None}:
        NativeOptions(values, None).close()
        return
    with pytest.raises(TypeError, match=f"{next(iter(values))} cannot have None in it"):
        NativeOptions(values, None)


@pytest.mark.parametrize("name", sorted(ADDERS))
@pytest.mark.parametrize(
    "item",
    [None, (), 1.5, object(), (None,), ("a", "b", "c", "d"), [1]],
    ids=str.split("none empty float object null many list"),
)
def test_odd_items(name: str, item: object) -> None:
    """Nothing of it crashes the caller."""
    if not hasattr(lib, ADDERS[name]):
        return
    with pytest.raises((TypeError, ValueError, OverflowError)):
        NativeOptions({name: [item]}, None)


@pytest.mark.parametrize("name", sorted({*SETTERS} - {"page_server"}))
def test_odd_values(name: str) -> None:
    """Nor does a value of a wrong type."""
    if not hasattr(lib, SETTERS[name]):
        return
    for value in (1.5, object(), (), (None,), 1 << 80):
        with pytest.raises((TypeError, ValueError, OverflowError)):
            NativeOptions({name: value}, None)
