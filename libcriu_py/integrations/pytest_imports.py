"""
What an interpreter for pytest imports first: other modules are then imported as they are by pytest.

pytest rewrites the assertions of plugins. A copy that had them as they are would warn of each. It shows all warnings of
modules that tests and conftest import, or makes them errors, and takes back the filters that these set: a module that
warns prints here, and is so left to each copy.
"""

from __future__ import annotations

import sys
import warnings

from _pytest.assertion import install_importhook
from _pytest.config import get_config

from libcriu_py.hooks.registry import before_checkpoint
from libcriu_py.integrations import pytest_plugins

_hook = install_importhook(get_config([]))
_hook.mark_rewrite(*pytest_plugins.names())
_filters = [*warnings.filters]
warnings.simplefilter("always")


@before_checkpoint
def _end() -> None:
    sys.meta_path.remove(_hook)
    warnings.resetwarnings()
    warnings.filters[:] = _filters  # type: ignore[index]  # a list
