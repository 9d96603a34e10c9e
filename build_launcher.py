"""
Build `libcriu-py-run`, the launcher that has no interpreter to start.

It is one executable, compiled with the CRIU that `build_ffi` finds: beside the package, in ``libcriu_py/bin``,
where `libcriu_py.snapshot.launcher` looks for it, and on PATH, as a script of the distribution. pip copies such scripts
as they are, from a wheel and for an editable install alike, which is why no stub has to be started first. (After a
change to its sources an editable install is to be repeated, for the copy on PATH.)

As `libcriu-py` it does `run` itself, and becomes `libcriu-py-command`, the Python program, for all else.

A static executable starts in a third of the time of one whose libraries have to be found; where the archives for
that are missing, libraries are used, but not in a portable build (`build_ffi`). ``LIBCRIU_PY_LAUNCHER_CC`` names a
compiler for it alone.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from setuptools import Command
from setuptools.command.build_ext import build_ext

from build_ffi import CSRC, PORTABLE, ROOT, SMALL_FRAMES, Criu, find_criu, units

if TYPE_CHECKING:
    from collections.abc import Sequence

NAME = "libcriu-py-run"
COMMAND = "libcriu-py"
"""Its name on PATH."""
PLACE = Path("libcriu_py", "bin", NAME)
LEARNING = Path("libcriu_py", "auto", "learning.py")
"""Whose text is in it."""
FOLDERS = ("become", "common", "supervise", "restore", "launcher")
"""Where its units are, below csrc."""

MAIN = str(CSRC / "launcher" / "launcher.c")
"""What the distribution names as its script: it needs one for scripts to be built at all."""


def _command(target: Path, criu: Criu, flags: Sequence[str], libs: Sequence[str]) -> list[str]:
    named = os.environ.get("LIBCRIU_PY_LAUNCHER_CC") or os.environ.get("CC")
    compiler = shlex.split(named or sysconfig.get_config_var("CC") or "cc")
    warnings = ["-Wall", "-Wextra", *(["-Werror", *SMALL_FRAMES] if os.environ.get("LIBCRIU_PY_WERROR") else [])]
    sources = [str(ROOT / unit) for unit in units(FOLDERS)]
    prefix = f'-DLCP_PREFIX="{criu.prefix}"'
    ours = ["-std=gnu11", "-O2", *warnings, prefix, f"-I{ROOT / CSRC}", *criu.cflags, *flags]
    return [*compiler, *ours, "-o", str(target), *sources, *libs]


def compile_launcher(target: Path, flags: Sequence[str] = (), *, static: bool = True) -> None:
    """
    Compile the launcher.

    Args:
        target: The executable.
        flags: Further flags for the compiler.
        static: Whether to try without libraries to be found at run time.

    Raises:
        subprocess.CalledProcessError: The compiler has refused, and said why.
    """
    criu = find_criu()
    target.parent.mkdir(parents=True, exist_ok=True)
    # A program that runs is not written over: the new one takes its place.
    new = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        if static:
            command = _command(new, criu, [*flags, "-s"], [*criu.libs, "-static"])
            said = None if PORTABLE else subprocess.DEVNULL
            if subprocess.run(command, check=PORTABLE, stderr=said).returncode == 0:
                new.replace(target)
                return
        subprocess.run(_command(new, criu, flags, criu.libs), check=True)
        new.replace(target)
    finally:
        new.unlink(missing_ok=True)


def _is_current(target: Path) -> bool:
    sources = [*(ROOT / CSRC).rglob("*.[ch]"), ROOT / LEARNING, ROOT / "build_ffi.py", Path(__file__)]
    return target.exists() and target.stat().st_mtime > max(source.stat().st_mtime for source in sources)


class BuildExt(build_ext):
    """Build the launcher with the extension, in place where that is."""

    def run(self) -> None:
        """Build both."""
        super().run()
        target = self.launcher
        if self.force or not _is_current(target):
            print(f"building {target}")
            compile_launcher(target)

    @property
    def launcher(self) -> Path:
        """Where the launcher goes."""
        return ROOT / PLACE if self.inplace or self.editable_mode else Path(self.build_lib) / PLACE

    def get_outputs(self) -> list[str]:
        """Name what was built."""
        return [*super().get_outputs(), str(Path(self.build_lib) / PLACE)]

    def get_output_mapping(self) -> dict[str, str]:
        """Name what an editable install finds in the source tree."""
        return {**super().get_output_mapping(), str(Path(self.build_lib) / PLACE): str(ROOT / PLACE)}


class BuildScripts(Command):
    """
    Put the launcher where scripts are taken from, instead of copying text.

    It takes the place of distutils' command of this name, which is not in setuptools' public names.

    Attributes:
        build_dir: Where scripts are taken from.
    """

    description = "build the launcher"
    user_options: ClassVar[list[tuple[str, str | None, str]]] = [("build-dir=", "d", "directory to build to")]
    build_dir: Any  # a string, as soon as the options are final

    def initialize_options(self) -> None:
        """Know no directory yet."""
        self.build_dir = None

    def finalize_options(self) -> None:
        """Take over the directory of the whole build."""
        self.set_undefined_options("build", ("build_scripts", "build_dir"))

    def get_source_files(self) -> list[str]:
        """Name what a source distribution needs of it."""
        return [MAIN]

    def run(self) -> None:
        """Build and copy it."""
        self.run_command("build_ext")
        extension: Any = self.get_finalized_command("build_ext")  # that of setup.py: `BuildExt`
        directory = Path(self.build_dir)
        directory.mkdir(parents=True, exist_ok=True)
        shutil.copy2(extension.launcher, directory / COMMAND)
