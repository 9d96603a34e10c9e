"""
What an interpreter for pytest imports first: other modules are then imported as they are by pytest.

pytest rewrites the assertions of plugins. A copy that had them as they are would warn of each.
"""

from __future__ import annotations

import sys

from _pytest.assertion import install_importhook
from _pytest.config import get_config

from libcriu_py.hooks.registry import before_checkpoint
from libcriu_py.integrations import pytest_plugins

_hook = install_importhook(get_config([]))
_hook.mark_rewrite(*pytest_plugins.names())


@before_checkpoint
def _end() -> None:
    sys.meta_path.remove(_hook)
