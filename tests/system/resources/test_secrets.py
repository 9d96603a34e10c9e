"""Secrets of the snapshotting environment are nowhere in the snapshot."""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING

from tests.system.selfdump import SelfDump, start, take, write_program

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.system.accounts import Account
    from tests.system.conftest import Mode

    Directories = Callable[[Account], Path]


def _found(directory: Path, needle: str) -> list[str]:
    """Return the files below a directory that hold a text."""
    files = [path for path in directory.rglob("*") if path.is_file()]
    assert any(path.name.startswith(("pages-", "memory.img")) for path in files)
    return [path.name for path in files if needle.encode() in path.read_bytes()]


def test_no_secret_in_the_images(mode: Mode, directory_of: Directories) -> None:
    """No values of the default patterns or of --scrub are in any file; other values are, and copies get theirs."""
    hidden, pin, plain = secrets.token_hex(16), secrets.token_hex(16), secrets.token_hex(16)
    directory = directory_of(mode.account)
    script = write_program(
        mode,
        directory,
        """
        import json, os
        from libcriu_py import checkpoint
        os.environ["MY_SECRET_SET_HERE"] = os.environ["OTHER"][::-1]
        with checkpoint():
            pass
        print(json.dumps([os.environ.get("GITHUB_TOKEN"), os.environ.get("CARD_PIN"), os.getenv("OTHER")]))
        """,
    )
    env = {"GITHUB_TOKEN": hidden, "CARD_PIN": pin, "OTHER": plain}
    done = start(mode, script, directory / "snap", options=["--scrub", "*_PIN"], env=env)
    assert done.returncode == 0, done.stderr
    assert _found(directory / "snap", hidden) == []
    assert _found(directory / "snap", pin) == []
    assert _found(directory / "snap", plain) != []
    copy = SelfDump(mode, directory / "snap", script).run(
        env={"GITHUB_TOKEN": "new", "OTHER": "x", "LIBCRIU_PY_ENV_CHECK": "warn"}
    )
    assert json.loads(copy.stdout) == ["new", None, "x"]


def test_original_keeps_its_secrets(mode: Mode, directory_of: Directories) -> None:
    """An original that goes on has its variables back, for C code too."""
    code = """
    import ctypes, os, sys
    from libcriu_py import checkpoint
    with checkpoint(then="continue") as snap:
        pass
    if not snap.restored:
        expected = os.environ["REVERSED"][::-1]
        assert os.environ["API_TOKEN"] == expected, os.environ
        getenv = ctypes.CDLL(None).getenv
        getenv.restype = ctypes.c_char_p
        assert getenv(b"API_TOKEN") == expected.encode()
    """
    hidden = secrets.token_hex(16)
    dump = take(mode, directory_of(mode.account), code, env={"API_TOKEN": hidden, "REVERSED": hidden[::-1]})
    assert dump.run().returncode == 0
    assert _found(dump.path, hidden) == []


def test_not_wiped_where_that_is_switched_off(mode: Mode, directory_of: Directories) -> None:
    """A program may keep them."""
    hidden = secrets.token_hex(16)
    code = 'from libcriu_py import checkpoint\nwith checkpoint(resources={"secrets": False}):\n    pass\n'
    dump = take(mode, directory_of(mode.account), code, env={"API_TOKEN": hidden})
    assert _found(dump.path, hidden) != []


def test_all_but_what_is_kept(mode: Mode, directory_of: Directories) -> None:
    """With "all" no value of the environment is in any file, but those that are kept; copies have what programs set."""
    code = """
    import json, os
    from libcriu_py import checkpoint
    with checkpoint():
        os.environ["SET_HERE"] = "set"
    print(json.dumps([os.environ.get(name) for name in ("SET_HERE", "PLAIN", "DB_PASS", "ADDRESS", "KEPT_KEY")]))
    """
    names = ("PLAIN", "DB_PASS", "ADDRESS", "KEPT_KEY")
    values = {name: secrets.token_hex(16) for name in names}
    env = {**values, "ADDRESS": f"amqp://me:{values['ADDRESS']}@host"}
    directory = directory_of(mode.account)
    dumps = {}
    for name, options in (("some", ()), ("all", ("--scrub", "all"))):
        script = write_program(mode, directory, code)
        done = start(mode, script, directory / name, options=[*options, "--keep-env", "KEPT_KEY"], env=env)
        assert done.returncode == 0, done.stderr
        dumps[name] = SelfDump(mode, directory / name, script)
    for name, here in (("some", {"PLAIN", "KEPT_KEY"}), ("all", {"KEPT_KEY"})):
        assert {key for key in names if _found(dumps[name].path, values[key])} == here
        copy = dumps[name].run(env={"DB_PASS": "new"})
        assert json.loads(copy.stdout) == ["set", None, "new", None, None]
