"""What libraries rely on that register hooks wherever they run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import pytest

HIDE = """
import sys
sys.platform = {platform!r}
HIDDEN = {{"_cffi_backend", "cffi", "libcriu_py._libcriu", "fcntl", "grp", "pwd", "resource", "termios"}}
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name in HIDDEN:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Hide())
for name in HIDDEN:
    sys.modules.pop(name, None)
"""


def child(code: str, *options: str, **env: str) -> str:
    """Run code in an interpreter of its own."""
    argv = [sys.executable, *options, "-c", textwrap.dedent(code)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env={**os.environ, **env})
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.usefixtures("unmeasured")
def test_import_takes_next_to_nothing() -> None:
    """The import adds three modules of ours, and of the standard library none that does anything."""
    code = """
    import sys
    before = set(sys.modules)
    import libcriu_py.hooks
    libcriu_py.hooks.before_checkpoint(print)
    print(*sorted(set(sys.modules) - before))
    """
    assert child(code).split() == ["__future__", "libcriu_py", "libcriu_py.hooks", "libcriu_py.hooks.registry"]


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_everything_a_library_uses_is_there_anywhere(platform: str) -> None:
    """Hooks, resources, contexts and critical sections need no C of ours, and nothing that only Linux has."""
    code = """
    from libcriu_py import Context, no_checkpoint
    from libcriu_py.hooks import Resource, after_restore, before_checkpoint, register, unregister
    class Pool:
        def before_checkpoint(self): pass
        def after_restore(self): pass
    pool, context = Pool(), register(Context())
    assert isinstance(pool, Resource)
    register(context.register(pool), priority=3)
    before_checkpoint(print, "never", single_threaded=True)
    after_restore(priority=1)(print)
    unregister(print)
    with no_checkpoint():
        print("fine")
    """
    assert child(HIDE.format(platform=platform) + textwrap.dedent(code)) == "fine\n"


def test_without_a_checkpoint_registrations_do_nothing() -> None:
    """They are not called, keep nothing alive, and leave no thread, signal handler or call at exit."""
    code = """
    import atexit, signal, threading
    from libcriu_py.hooks import after_restore, before_checkpoint, register
    class Thing:
        def before_checkpoint(self): print("before")
        def after_restore(self): print("after")
        def __del__(self): print("freed")
    def state():
        return atexit._ncallbacks(), threading.active_count(), [signal.getsignal(n) for n in signal.valid_signals()]
    was = state()
    before_checkpoint(print, "before")
    after_restore(print, "after")
    thing = register(Thing())
    del thing
    assert state() == was
    print("end")
    """
    assert child(code) == "freed\nend\n"


LAMBDA = """
import asyncio
from libcriu_py.hooks import after_restore, before_checkpoint, register
from snapshot_restore_py import get_after_restore, get_before_snapshot, register_after_restore, register_before_snapshot
ran = []
class Thing:
    def before_checkpoint(self): ran.append("thing before")
    async def after_restore(self): ran.append("thing after")
thing = register(Thing())
before_checkpoint(ran.append, "last before", single_threaded=True)
before_checkpoint(ran.append, "before", priority=1)
after_restore(ran.append, "first after", single_threaded=True)
register_before_snapshot(ran.append, "snapstart before")
register_after_restore(ran.append, "snapstart after")
"""
RUN = """
# What awslambdaric does (lambda_runtime_hooks_runner.py).
befores = list(get_before_snapshot())
while befores:
    function, args, kwargs = befores.pop()
    function(*args, **kwargs)
for function, args, kwargs in get_after_restore():
    function(*args, **kwargs)
"""
SHOW = """
import json
print(json.dumps(ran))
"""
ORDER = ["before", "thing before", "last before", "first after", "thing after"]


def test_snapstart_runs_the_hooks() -> None:
    """Where AWS Lambda takes the snapshot, the hooks run as at a checkpoint, beside those registered with SnapStart."""
    out = child(LAMBDA + RUN + SHOW, AWS_LAMBDA_INITIALIZATION_TYPE="snap-start")
    assert json.loads(out) == ["snapstart before", *ORDER, "snapstart after"]


def test_snapstart_sees_nothing_elsewhere() -> None:
    """Where no snapshot is taken by Lambda, nothing is registered with it."""
    assert json.loads(child(LAMBDA + RUN + SHOW)) == ["snapstart before", "snapstart after"]


def test_checkpoint_runs_each_hook_once_beside_those_of_snapstart() -> None:
    """A checkpoint runs its own hooks and those of SnapStart, and not its own by SnapStart once more."""
    take = "from libcriu_py import checkpoint_here\ncheckpoint_here(engine='simulate')\n"
    expected = [*ORDER[:3], "snapstart before", "snapstart after", *ORDER[3:]]
    for kind in ("snap-start", "on-demand"):
        assert json.loads(child(LAMBDA + take + SHOW, AWS_LAMBDA_INITIALIZATION_TYPE=kind)) == expected


def test_hook_that_fails_for_snapstart_undoes_the_others() -> None:
    """A failure reaches Lambda, which then takes no snapshot; what ran is undone, and hooks may be registered again."""
    code = """
    ran.clear()
    @before_checkpoint(priority=-1)
    def fail(): raise OSError("no")
    befores = list(get_before_snapshot())[:1]
    try:
        befores[0][0](*befores[0][1])
    except Exception as error:
        print(type(error).__name__, error)
    before_checkpoint(print)
    """
    out = child(LAMBDA + textwrap.dedent(code) + SHOW, AWS_LAMBDA_INITIALIZATION_TYPE="snap-start")
    said, ran = out.splitlines()
    assert said == "HookError before-checkpoint hook __main__.fail failed: OSError: no"
    assert json.loads(ran) == ["before", "thing before", "thing after"]
