"""
Build the cffi extension and the launcher; all metadata but the long description is in pyproject.toml.

On other systems than Linux the package is Python alone, for libraries that import `libcriu_py.hooks` wherever they run.
"""

import re
import sys
from pathlib import Path
from typing import Any

from setuptools import setup

sys.path.insert(0, str(Path(__file__).parent))

from build_ffi import ROOT
from build_launcher import MAIN, BuildExt, BuildScripts


def readme() -> str:
    """Return README.md with absolute links, since it is also read where its neighbours are not."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    address = re.findall(r'^Source = "(.*)"$', project, re.MULTILINE)[0]
    text = re.sub(r"(!\[[^]]*\]\()(?!\w+://|#)", rf"\g<1>{address}/raw/main/", text)
    return re.sub(r"((?<!!)\[[^]]*\]\()(?!\w+://|#)", rf"\g<1>{address}/blob/main/", text)


MAN_PAGE = "docs/libcriu-py.1"  # of `make man`
NATIVE: dict[str, Any] = {
    "cffi_modules": ["build_ffi.py:ffibuilder"],
    "cmdclass": {"build_ext": BuildExt, "build_scripts": BuildScripts},
    "scripts": [MAIN],
    "options": {"bdist_wheel": {"py_limited_api": "cp310"}},
}

setup(
    data_files=[("share/man/man1", [MAN_PAGE])] if (ROOT / MAN_PAGE).exists() else [],
    long_description=readme(),
    long_description_content_type="text/markdown",
    **(NATIVE if sys.platform == "linux" else {}),
)
