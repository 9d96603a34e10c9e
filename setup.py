"""Build the cffi extension and the launcher; all metadata is in pyproject.toml."""

import sys
from pathlib import Path

from setuptools import setup

sys.path.insert(0, str(Path(__file__).parent))

from build_launcher import MAIN, BuildExt, BuildScripts

setup(
    cffi_modules=["build_ffi.py:ffibuilder"],
    cmdclass={"build_ext": BuildExt, "build_scripts": BuildScripts},
    scripts=[MAIN],
)
