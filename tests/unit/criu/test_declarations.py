"""What build_ffi.py reads from criu.h, and whether all of it can be reached."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest

from libcriu_py.criu import names as _names, native as _native, options
from libcriu_py.errors import UnsupportedFeature
from libcriu_py.linux.ffi import lib

HEADER = """
#define CRIU_LOG_UNSET (-1)
#define CRIU_LOG_DEBUG (4) /* Debug; only */
enum criu_mode {
    CRIU_MODE_A = 1, /* one, or the other */
    CRIU_MODE_B,
};
struct criu_feature_check {
    bool mem_track;
    bool mem_compression;
};
typedef struct criu_opts criu_opts;
int criu_local_set_tls_cert(criu_opts *opts,
                            const char *path);
void criu_local_set_unprivileged(criu_opts *opts, bool unprivileged);
void criu_local_set_notify_cb(criu_opts *opts, int (*cb)(char *action, criu_notify_arg_t na));
void criu_local_set_service_fd(criu_opts *opts, int fd);
void criu_local_set_service_fd(criu_opts *opts, int fd);
"""

NOT_OPTIONS = {
    "criu_local_check",
    "criu_local_check_version",
    "criu_local_dump",
    "criu_local_dump_iters",
    "criu_local_feature_check",
    "criu_local_free_opts",
    "criu_local_get_version",
    "criu_local_init_opts",
    "criu_local_pre_dump",
    "criu_local_restore",
    "criu_local_restore_child",
    "criu_local_set_exec_cmd",
    "criu_local_set_notify_cb",
    "criu_local_set_service_address",
    "criu_local_set_service_binary",
    "criu_local_set_service_fd",
    "criu_local_set_timeout",
}
"""What the binding uses otherwise; `timeout` has no effect in libcriu and goes through a configuration file."""


def declarations(header: str) -> str:
    """Read a header; the build script looks for a CRIU when it is imported."""
    import build_ffi

    return build_ffi.declarations(header)


def test_everything_in_a_header_is_declared() -> None:
    """Functions over several lines, with callbacks, and twice; enums, constants and structs with open layout."""
    cdef = declarations(HEADER)
    assert "#define CRIU_LOG_UNSET ..." in cdef
    assert "enum criu_mode { CRIU_MODE_A = ..., CRIU_MODE_B = ... };" in cdef
    assert re.search(r"struct criu_feature_check \{.*bool mem_compression;\s+\.\.\.; \};", cdef, re.DOTALL)
    assert "criu_local_set_tls_cert" in cdef
    assert "criu_local_set_notify_cb" in cdef
    assert cdef.count("criu_local_set_service_fd") == 1
    assert cdef.count("void criu_local_set_unprivileged") == 1


def test_a_header_that_forgets_unprivileged_gets_it() -> None:
    """CRIU up to 4.3 exports the function and does not declare it."""
    without = HEADER.replace("void criu_local_set_unprivileged(criu_opts *opts, bool unprivileged);\n", "")
    assert declarations(without).count("void criu_local_set_unprivileged") == 1
    assert hasattr(lib, "criu_local_set_unprivileged")


def test_every_function_of_this_libcriu_is_used() -> None:
    """No setter of the library that is built against is out of reach."""
    reachable = {*_names.SETTERS.values(), *_names.ADDERS.values(), *NOT_OPTIONS}
    assert {name for name in dir(lib) if name.startswith("criu_local_")} <= reachable


def test_every_option_has_a_setter() -> None:
    """Each field of the dataclasses is known to the boundary, and each setter has a field."""
    fields = {
        field.name for kind in (options.DumpOptions, options.RestoreOptions) for field in dataclasses.fields(kind)
    }
    elsewhere = {"images_dir", "work_dir", "config", "timeout", "exec_cmd"}
    assert fields - elsewhere == {*_names.SETTERS, *_names.ADDERS} - {"images_dir_fd", "work_dir_fd"}


def test_functions_that_may_be_absent_name_their_version() -> None:
    """What this libcriu lacks raises UnsupportedFeature with the release that has it."""
    absent = [name for name in _names.ADDED_IN if not hasattr(lib, name)]
    for name in absent:
        with pytest.raises(UnsupportedFeature, match=f"needs CRIU {re.escape(_names.ADDED_IN[name])}"):
            _native.function(name)
    known = {*_names.SETTERS.values(), *_names.ADDERS.values()}
    assert {name for name in known if not hasattr(lib, name)} <= set(_names.ADDED_IN)


def test_an_absent_option_is_refused_when_it_is_used() -> None:
    """An option without its function raises, and is also a NotImplementedError."""
    if not hasattr(lib, "criu_local_set_stream"):
        with pytest.raises(NotImplementedError, match="criu_local_set_stream"):
            _native.NativeOptions({"stream": True}, None)


def test_unknown_options_and_values_are_refused() -> None:
    """A misspelt name, a NUL and a value that libcriu does not take are no silent successes."""
    with pytest.raises(TypeError, match="no CRIU option 'tcp_establish'"):
        _native.NativeOptions({"tcp_establish": True}, None)
    with pytest.raises(ValueError, match="embedded NUL"):
        _native.NativeOptions({"root": "a\0b"}, None)
    with pytest.raises(ValueError, match="pre_dump_mode"):
        _native.NativeOptions({"pre_dump_mode": 17}, None)


def test_all_options_of_this_libcriu_are_taken() -> None:
    """Each setter accepts a value of its kind."""
    text = {"parent_images", "log_file", "root", "freeze_cgroup", "lsm_profile", "lsm_mount_context", "config_file"}
    text |= {"cgroup_props", "cgroup_props_file", "cgroup_yard", "tls_cacert", "tls_cacrl", "tls_cert", "tls_key"}
    values: dict[str, object] = {name: "x" if name in text else 1 for name in _names.SETTERS}
    values |= {"page_server": ("127.0.0.1", 9), "exec_cmd": ["true", "x"], "unix_sockets": [1], "config": "timeout 3\n"}
    values |= {
        name: ["x"] for name in ("cgroup_controllers", "enable_fs", "external", "irmap_scan_paths", "skip_mounts")
    }
    values |= {"cgroup_roots": [(None, "x"), ("a", "b")], "ext_mounts": [("a", "b")], "veth_pairs": [("a", "b")]}
    values |= {"inherit_fds": [(0, "a"), (5, "b")], "join_ns": [("net", "1", None), ("user", "1", "0,0")]}
    names = _names.SETTERS | _names.ADDERS
    present = {name: value for name, value in values.items() if hasattr(lib, names.get(name, "criu_local_dump"))}
    native = _native.NativeOptions(present, "/bin/true", {"A": "b"})
    child: Any = native.child
    assert child.keep_count == 3
    native.close()
    native.close()
