"""
Describe the C extension `libcriu_py._libcriu` to cffi.

The declarations are read from the criu.h that is compiled against, so a newer
CRIU is bound in full without a change here, and an older one builds: what its
header lacks is absent from the module, and `_native` names the CRIU version
that has it.  Constants are left to the compiler.

Where CRIU is looked for, first match wins:

1. ``LIBCRIU_CFLAGS`` and ``LIBCRIU_LIBS``: flags for the compiler and linker.
2. ``LIBCRIU_PY_PREFIX``, else the prefix that scripts/install-criu uses by
   default: its static library is linked, so that nothing has to be found at
   run time.
3. ``pkg-config criu``: the distribution's package.

``LIBCRIU_PY_WERROR=1`` turns compiler warnings into errors.  ``LIBCRIU_PY_PORTABLE=1`` builds for other machines: with
every library but libc in the extension, without this machine's paths, stripped, and with substitutes for what an old
glibc lacks (scripts/make-wheels).
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cffi import FFI

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = Path(__file__).resolve().parent
CSRC = Path("libcriu_py/csrc")
FOLDERS = ("binding", "common", "copy", "native", "supervise")
"""Where the units of the extension are, below csrc."""
EXPORTS = CSRC / "binding" / "exports.map"
PORTABLE = bool(os.environ.get("LIBCRIU_PY_PORTABLE"))
"""Whether the build is for other machines."""
SMALL_FRAMES = ("-Wframe-larger-than=8192",)
"""The stack of a Python thread may be 64 kB (`threading.stack_size`), and the forked parts run on it too."""

_NO_CRIU = (
    "no CRIU to build against: run scripts/install-criu, or install criu and libcriu-dev 3.18 or newer "
    "with libprotobuf-c-dev and pkg-config, or set LIBCRIU_CFLAGS and LIBCRIU_LIBS"
)

# Written by hand: opaque types, and what criu.h leaves out or what a pattern cannot read.
_TYPES = """
typedef struct criu_opts criu_opts;
typedef ... CriuNotify;
typedef CriuNotify *criu_notify_arg_t;
typedef void *criu_predump_info;
void criu_local_set_unprivileged(criu_opts *opts, bool unprivileged);
extern "Python+C" int lcp_notify(char *action, criu_notify_arg_t na);
extern "Python+C" int lcp_more(criu_predump_info pi);
"""

_MACRO = re.compile(r"^#define\s+(CRIU_\w+)\s+\(?-?\d", re.MULTILINE)
_ENUM = re.compile(r"enum\s+(criu_\w+)\s*\{([^}]*)\}\s*;")
_STRUCT = re.compile(r"struct\s+(criu_\w+)\s*\{([^}]*)\}\s*;")
_FUNCTION = re.compile(r"^(?:int|void)\s+(criu_\w+)\s*\([^;{}]*\)\s*;", re.MULTILINE)
_CDEF = re.compile(r"/\* cdef: begin \*/(.*?)/\* cdef: end \*/", re.DOTALL)


class Criu(NamedTuple):
    """
    A CRIU to build against.

    Attributes:
        cflags: Flags for the compiler.
        libs: Flags for the linker.
        prefix: The installation prefix, empty where it is not known.
    """

    cflags: list[str]
    libs: list[str]
    prefix: str


def refuse_free_threaded() -> None:
    """End with a message where threads run without a lock, which a dump takes for granted."""
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        sys.exit(f"libcriu-py is not for free-threaded interpreters such as {sys.executable}: use one with the GIL")


def default_prefix() -> Path:
    """Return the prefix that scripts/install-criu installs into by default."""
    data = os.environ.get("XDG_DATA_HOME") or Path("~/.local/share").expanduser()
    return Path(data) / "libcriu_py" / "criu"


def _from_prefix() -> Criu | None:
    named = os.environ.get("LIBCRIU_PY_PREFIX")
    prefix = (Path(named) if named else default_prefix()).absolute()
    archives = sorted(prefix.glob("lib*/**/libcriu.a"))
    headers = prefix / "include" / "criu"
    if not archives or not (headers / "criu.h").exists():
        if named:
            sys.exit(f"LIBCRIU_PY_PREFIX={named} holds no CRIU library: run scripts/install-criu --prefix {named}")
        return None
    protobuf = [_archive("libprotobuf-c.a")] if PORTABLE else _pkg_config("--libs", "libprotobuf-c", ["-lprotobuf-c"])
    known = "" if PORTABLE else str(prefix)
    return Criu([f"-I{headers}", f"-I{headers.parent}"], [str(archives[0]), *protobuf], known)


def _archive(name: str) -> str:
    """Return the path of a static library that the compiler knows."""
    return subprocess.run(
        ["cc", f"-print-file-name={name}"],  # noqa: S607 - found on PATH, as by make
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()


def _pkg_config(flag: str, package: str, default: list[str] | None = None) -> list[str]:
    try:
        output = subprocess.run(
            ["pkg-config", flag, package],  # noqa: S607 - found on PATH, as by make
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        if default is None:
            raise
        return default
    return shlex.split(output)


def find_criu() -> Criu:
    """Find the CRIU to build against, or end with a message that says what to do."""
    cflags, libs = os.environ.get("LIBCRIU_CFLAGS"), os.environ.get("LIBCRIU_LIBS")
    if cflags is not None or libs is not None:
        return Criu(shlex.split(cflags or ""), shlex.split(libs or "-lcriu -lprotobuf-c"), "")
    found = _from_prefix()
    if found is not None:
        return found
    try:
        return Criu(_pkg_config("--cflags", "criu"), _pkg_config("--libs", "criu"), "")
    except (OSError, subprocess.CalledProcessError):
        sys.exit(_NO_CRIU)


def read_header(cflags: list[str]) -> str:
    """Return the text of the criu.h that these compiler flags select."""
    directories = [flag[2:] for flag in cflags if flag.startswith("-I")]
    for directory in (*directories, "/usr/include/criu", "/usr/local/include/criu"):
        header = Path(directory) / "criu.h"
        if header.exists():
            return header.read_text(encoding="utf-8")
    sys.exit(_NO_CRIU)


def declarations(header: str) -> str:
    """
    Turn the text of criu.h into a cdef.

    Args:
        header: The header.

    Returns:
        Its constants, enums, structs and functions, with every value and the
        layout of every struct left to the compiler.
    """
    text = re.sub(r"/\*.*?\*/", "", header, flags=re.DOTALL)
    parts = [_TYPES]
    parts += [f"#define {name} ..." for name in _MACRO.findall(text)]
    for name, body in _ENUM.findall(text):
        members = [member.split("=")[0].strip() for member in body.split(",")]
        parts.append(f"enum {name} {{ {', '.join(f'{member} = ...' for member in members if member)} }};")
    parts += [f"struct {name} {{ {body} ...; }};" for name, body in _STRUCT.findall(text)]
    declared = {}
    for match in _FUNCTION.finditer(text):
        if match.group(1) != "criu_local_set_unprivileged":
            declared[match.group(1)] = match.group(0)
    return "\n".join([*parts, *declared.values()])


def units(folders: Iterable[str]) -> list[str]:
    """Return the sources of the units in folders of csrc, relative to the root."""
    return sorted(str(path.relative_to(ROOT)) for folder in folders for path in (ROOT / CSRC / folder).glob("*.c"))


def python_declarations() -> dict[str, str]:
    """Return what headers declare for Python between their cdef marks, by the names under which they are included."""
    found = {}
    for folder in FOLDERS:
        for path in sorted((ROOT / CSRC / folder).glob("*.h")):
            blocks = _CDEF.findall(path.read_text(encoding="utf-8"))
            if blocks:
                found[f"{folder}/{path.name}"] = "".join(blocks)
    return found


def make_ffi() -> FFI:
    """Return the builder that setuptools compiles."""
    refuse_free_threaded()
    criu = find_criu()
    builder = FFI()
    builder.cdef(declarations(read_header(criu.cflags)))
    builder.cdef("static char *const LCP_PREFIX;")
    ours = python_declarations()
    for block in ours.values():
        builder.cdef(block)
    warnings = ["-Wall", "-Wextra", "-Werror", *SMALL_FRAMES] if os.environ.get("LIBCRIU_PY_WERROR") else []
    flags = ["-std=gnu11", "-fvisibility=hidden", *warnings, *(("-g0",) if PORTABLE else ())]
    # These are for the wrappers that cffi generates; there is one set of flags for all sources.
    relaxed = ["-Wno-unused-parameter", "-Wno-missing-field-initializers", "-Wno-cast-function-type"]
    includes = "\n".join(f'#include "{header}"' for header in ours)
    builder.set_source(
        "libcriu_py._libcriu",
        f'{includes}\nstatic char *const LCP_PREFIX = "{criu.prefix}";\n',
        sources=units((*FOLDERS, "portable") if PORTABLE else FOLDERS),
        depends=["build_ffi.py", str(EXPORTS), *(str(path.relative_to(ROOT)) for path in (ROOT / CSRC).rglob("*.h"))],
        include_dirs=[str(CSRC)],
        extra_compile_args=[*criu.cflags, *flags, *(relaxed if warnings else ())],
        extra_link_args=[*criu.libs, f"-Wl,--version-script={EXPORTS}", *(("-s",) if PORTABLE else ())],
    )
    return builder


ffibuilder = make_ffi()
