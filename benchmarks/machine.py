"""Describe the machine and the software that a measurement was made with."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path

from libcriu_py.diagnosis.cost import libraries
from libcriu_py.diagnosis.facts import is_static

PACKAGES = ("libcriu_py", "cffi", "fastapi", "numpy", "pandas", "pydantic", "scikit-learn", "torch", "transformers")
# Settings of the environment that change how fast numeric packages are.
TUNING = ("OMP_", "GOMP_", "MKL_", "OPENBLAS_", "NVPL_", "MALLOC_", "PYTHON")


def field(path: str | Path, name: str) -> str:
    """Return the first value of a name in a file of `name: value` lines such as /proc/meminfo, empty if none."""
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def memory(name: str) -> int:
    """Return a field of /proc/meminfo in bytes."""
    return int(field("/proc/meminfo", name).split()[0]) * 1024


def criu_version(binary: str) -> str:
    """Ask a criu binary for its version."""
    done = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True)
    return done.stdout.partition(":")[2].split()[0]


def criu_kind(binary: str) -> str:
    """Return how a criu binary is linked, which decides its start: 0.6 ms for a static one, 3 to 6 for others."""
    return "static" if is_static(binary) else f"{libraries(binary) or 'some'} shared libraries"


def package_versions() -> dict[str, str]:
    """Return the versions of the packages that matter, of those installed."""
    versions = {}
    for name in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def torch_kind() -> str | None:
    """Return which build of torch is installed, without importing it: `CPU` or `CUDA 12.8`; None for none."""
    try:
        path = importlib.metadata.distribution("torch").locate_file("torch/version.py")
    except importlib.metadata.PackageNotFoundError:
        return None
    found = re.search(r"^cuda\b.*= '(.+)'$", Path(str(path)).read_text(encoding="utf-8"), re.MULTILINE)
    return f"CUDA {found[1]}" if found else "CPU"


def has_editable_finder() -> bool:
    """Return whether each start of this Python takes 10 ms longer for setuptools' finder of editable installations."""
    return any(name.startswith("__editable__") for name in sys.modules)


def describe(criu: str | None, env: Mapping[str, str]) -> dict[str, object]:
    """Describe machine and software, with the path of criu and the environment of what is measured."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "processor": field("/proc/cpuinfo", "model name"),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": memory("MemTotal"),
        "hypervisor": "hypervisor" in field("/proc/cpuinfo", "flags").split(),
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", ""),
        "python": platform.python_version(),
        "editable_finder": has_editable_finder(),
        "virtual_environment": sys.prefix != sys.base_prefix,
        "criu": criu_version(criu) if criu else None,
        "criu_kind": criu_kind(criu) if criu else None,
        "uid": os.getuid(),
        "load": list(os.getloadavg()),
        "niceness": os.getpriority(os.PRIO_PROCESS, 0),
        "packages": package_versions(),
        "torch": torch_kind(),
        "tuning": {k: v for k, v in env.items() if k.startswith(TUNING)},
    }
