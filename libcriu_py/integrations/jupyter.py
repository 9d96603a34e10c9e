"""
Kernels of Jupyter that start as copies: kernelspecs whose argv begins with a warm interpreter.

    <kernels>/<name>/kernel.json   as ipykernel writes it, but for the interpreter
                    /python        the launch script
                    /snap          the snapshot
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from typing import TYPE_CHECKING, NamedTuple

from libcriu_py.copies import interpreter
from libcriu_py.copies.launch_script import write_launch_script
from libcriu_py.errors import CriuError
from libcriu_py.snapshot import launcher

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jupyter_client.kernelspec import KernelSpecManager

OPTIONS = ("-X", "frozen_modules=off")
"""What ipykernel's own kernelspec gives to the interpreter, for the debugger."""
_LEARN = """
import sys, json
names = [n for n, m in list(sys.modules.items()) if getattr(getattr(m, "__spec__", None), "name", None) == n]
print(json.dumps([n for n in names if n != "__main__"]), end="")
"""
_OF_CLIENT = "ipykernel.kernelapp"
"""Reads the pid of the client, JPY_PARENT_PID, when it is imported: each copy imports it."""
_ENVIRONMENT = {"TERM": "xterm-color"}
"""What the kernelspec sets, as ipykernel does when it starts: modules read it before that, and servers have others."""
_PATIENCE = 120


class Kernel(NamedTuple):
    """A kernel of Jupyter that starts warm."""

    name: str
    directory: str
    preload: list[str]
    problem: str
    """Why a new interpreter is started at present; empty if copies are."""


def install(name: str, preload: Sequence[str], *, display_name: str | None = None, prefix: str | None = None) -> Kernel:
    """
    Install a kernel of this interpreter that has imported itself, and these modules, when it starts.

    Args:
        name: The name of the kernelspec; one of that name is replaced.
        preload: The modules.
        display_name: What users see; default: the name.
        prefix: Where to install it; None for this user alone.

    Returns:
        The kernel.

    Raises:
        CriuError: The package ipykernel is missing, or the snapshot cannot be made.
    """
    manager = _manager()
    from ipykernel.kernelspec import write_kernel_spec

    temporary = tempfile.mkdtemp(prefix="libcriu-py-")
    try:
        shown = {"display_name": display_name or name}
        source = write_kernel_spec(os.path.join(temporary, name), shown, python_arguments=["".join(OPTIONS)])
        directory = manager.install_kernel_spec(source, name, user=prefix is None, prefix=prefix)
    finally:
        shutil.rmtree(temporary)
    try:
        return _make_warm(directory, name, preload)
    except BaseException:
        shutil.rmtree(directory)
        raise


def _make_warm(directory: str, name: str, preload: Sequence[str]) -> Kernel:
    """Put the interpreter into the directory of a kernelspec."""
    import json

    python, snapshot = interpreter.behind(sys.executable), os.path.join(directory, "snap")
    os.chmod(directory, 0o700)
    modules = dict.fromkeys([*preload, *_modules_of_kernel(name)])
    interpreter.make(snapshot, python, [*modules], options=OPTIONS, env=_ENVIRONMENT)
    script = os.path.join(directory, "python")
    write_launch_script(script, snapshot, fallback=[python], python="own")
    path = os.path.join(directory, "kernel.json")
    with open(path, encoding="utf-8") as file:
        spec = json.load(file)
    spec["argv"][0] = script
    spec["env"] = {**spec.get("env", {}), **_ENVIRONMENT}
    spec["metadata"]["libcriu_py"] = {"preload": [*preload]}
    with open(path, "w", encoding="utf-8") as file:
        json.dump(spec, file, indent=1)
    return Kernel(name, directory, [*preload], "; ".join(launcher.list_mismatches(snapshot, _ENVIRONMENT)))


def _modules_of_kernel(name: str) -> list[str]:
    """Return what a kernel, still a conventional one, imports to run a cell, as far as any interpreter finds it."""
    import json
    import subprocess
    from importlib.util import find_spec

    from jupyter_client.manager import KernelManager

    manager = KernelManager(kernel_name=name)
    manager.start_kernel(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    said: list[str] = []
    try:
        client = manager.client()
        client.start_channels()
        client.wait_for_ready(timeout=_PATIENCE)
        hook = {"output_hook": lambda message: said.append(message["content"].get("text", ""))}
        client.execute_interactive(_LEARN, store_history=False, timeout=_PATIENCE, **hook)
        client.stop_channels()
    finally:
        manager.shutdown_kernel(now=True)
    names: list[str] = json.loads("".join(said))
    return [module for module in names if module != _OF_CLIENT and find_spec(module.partition(".")[0]) is not None]


def _manager() -> KernelSpecManager:
    try:
        import ipykernel.kernelspec  # noqa: F401
        from jupyter_client.kernelspec import KernelSpecManager
    except ImportError:
        message = (
            f"ipykernel is not installed for {sys.executable}; install it: {sys.executable} -m pip install ipykernel"
        )
        raise CriuError(message) from None
    return KernelSpecManager()


def installed() -> list[Kernel]:
    """Return the kernels that are warm."""
    found = []
    for name, kernel in sorted(_manager().get_all_specs().items()):
        ours = kernel["spec"].get("metadata", {}).get("libcriu_py")
        if ours is None:
            continue
        try:
            snapshot = os.path.join(kernel["resource_dir"], "snap")
            problem = "; ".join(launcher.list_mismatches(snapshot, _ENVIRONMENT))
        except CriuError as error:
            problem = str(error)
        found.append(Kernel(name, kernel["resource_dir"], ours["preload"], problem))
    return found


def remove(name: str) -> bool:
    """Remove a kernel that is warm, by its name; return whether there was one."""
    return any(kernel.name == name for kernel in installed()) and bool(_manager().remove_kernel_spec(name))
