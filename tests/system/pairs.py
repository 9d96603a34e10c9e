"""Two copies of one snapshot, restored at the same instant."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.system.selfdump import take

if TYPE_CHECKING:
    from pathlib import Path

    from tests.system.conftest import Mode
    from tests.system.selfdump import SelfDump

_BOTH = """
import json, sys
from libcriu_py import DEVNULL, PIPE, restore
copies = [restore(sys.argv[1], sys.argv[2:], stdin=DEVNULL, stdout=PIPE) for _ in range(2)]
outputs = [copy.communicate()[0].decode() for copy in copies]
print(json.dumps([outputs, [copy.returncode for copy in copies]]))
"""


RESTORE = """
import sys
from libcriu_py import CriuError, SnapshotError, restore
try:
    sys.exit(restore(sys.argv[1], sys.argv[2:]).wait())
except CriuError as error:
    print(f"libcriu-py: {error}", file=sys.stderr)
    sys.exit(126 if isinstance(error, SnapshotError) else 125)
"""
"""
Restores by the function of Python, whose reasons come with what to do, and ends with the statuses of the launcher.
"""


def both(dump: SelfDump, *args: str, **options: Any) -> list[Any]:
    """Restore two copies at once, and give what each has printed, read as JSON."""
    outputs, statuses = json.loads(dump.call(_BOTH, *args, **options).stdout)
    assert statuses == [0, 0], outputs
    return [json.loads(output) for output in outputs]


def two_copies(mode: Mode, directory: Path, code: str, **options: Any) -> list[Any]:
    """Let a program checkpoint itself, and give what two copies of it, restored at once, have printed as JSON."""
    return both(take(mode, directory, code, **options))
