"""Pack a static criu, which scripts/make-wheels has put into libcriu_py_criu/bin; it fits every Python and libc."""

import platform
import re
import subprocess
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel

CRIU = Path(__file__).resolve().parent / "libcriu_py_criu" / "bin" / "criu"


class Compiled(Distribution):
    """A distribution that goes where compiled packages are, beside libcriu_py."""

    def has_ext_modules(self) -> bool:
        """Say that there is compiled code."""
        return True


class BdistWheel(bdist_wheel):
    """Name the wheel after the processor alone."""

    def get_tag(self) -> tuple[str, str, str]:
        """Return the tags of a program that needs no library."""
        machine = platform.machine()
        return "py3", "none", f"manylinux2014_{machine}.manylinux_2_17_{machine}"


def version() -> str:
    """Return the version that the program says it has."""
    said = subprocess.run([CRIU, "--version"], check=True, capture_output=True, text=True).stdout
    return str(re.findall(r"^Version: ([\d.]+)$", said, re.MULTILINE)[0])


setup(distclass=Compiled, version=version(), cmdclass={"bdist_wheel": BdistWheel})
