"""An account without any rights, and what it needs to run the package."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.system.leaks import MARKER

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = (
    "aiohttp",
    "aiosqlite",
    "asyncpg",
    "botocore",
    "cffi",
    "click",
    "cryptography",
    "exceptiongroup",
    "httpx",
    "pandas",
    "prometheus-client",
    "psutil",
    "psycopg[binary,pool]",
    "redis",
    "requests",
    "rich",
    "setproctitle",
    "shtab",
    "snapshot-restore-py",
    "sqlalchemy[asyncio]",
    "threadpoolctl",
    "tomli",
)
"""What the package, its extras and its examples import, and the programs of the tests."""


def _link(source: str, target: str) -> None:
    """Copy a file as a hard link, which takes no time, or where that cannot be, by its content."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


class Account:
    """
    A user that programs are run as.

    Args:
        name: Its name.
        criu: The criu program of the test run; the account gets a copy where it cannot reach it.
    """

    def __init__(self, name: str, criu: Path) -> None:
        entry = pwd.getpwnam(name)
        self.name = name
        self.uid = entry.pw_uid
        self.gid = entry.pw_gid
        self.home = Path(entry.pw_dir)
        self._criu = criu

    @property
    def is_self(self) -> bool:
        """Return whether it is the account of the test run itself, which then has no rights either."""
        return self.uid == os.geteuid()

    def environment(self, **more: str) -> dict[str, str]:
        """
        Return the environment of a fresh login, and what finds criu.

        Args:
            more: Further variables.
        """
        return {
            "HOME": str(self.home),
            "USER": self.name,
            "LOGNAME": self.name,
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "LIBCRIU_PY_CRIU": str(self.criu),
            MARKER: os.environ[MARKER],
            **more,
        }

    @cached_property
    def criu(self) -> Path:
        """A criu program that the account can run, without file capabilities."""
        if self._reaches(self._criu, "--version"):
            return self._criu
        copy = self.home / "criu"
        shutil.copy(self._criu, copy)
        copy.chmod(0o755)
        return copy

    @cached_property
    def python(self) -> Path:
        """An interpreter that has the package and that the account can run."""
        here = Path(sys.executable)
        if self._reaches(here, "-c", "import libcriu_py.linux.ffi, pandas"):
            return here
        return self._install()

    def _reaches(self, program: Path, *arguments: str) -> bool:
        # Started through env, since a program that cannot be reached fails the start itself.
        argv = ["/usr/bin/env", str(program), *arguments]
        done = subprocess.run(argv, check=False, capture_output=True, cwd="/", **self.identity)
        return done.returncode == 0

    def _install(self) -> Path:
        base = Path("/usr/bin/python3")
        if not base.exists():
            message = f"{sys.executable} is out of reach for {self.name}, and there is no {base} to take instead"
            raise RuntimeError(message)
        venv = self.home / "venv"
        python = venv / "bin" / "python"
        subprocess.run([base, "-m", "venv", "--without-pip", venv], check=True)
        (packages,) = venv.glob("lib/python3*/site-packages")
        ours = Path(sysconfig.get_path("purelib"))
        if packages.parent.name == ours.parent.name:
            # The same version of Python, so ours will do. The package's own entry points into this tree.
            ignore = shutil.ignore_patterns("__editable__*", "libcriu_py*")
            shutil.copytree(ours, packages, symlinks=True, ignore=ignore, copy_function=_link, dirs_exist_ok=True)
        else:
            pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", *REQUIREMENTS]
            subprocess.run(pip, check=True, stdout=subprocess.DEVNULL)
        shutil.copytree(ROOT / "libcriu_py", packages / "libcriu_py", ignore=shutil.ignore_patterns("__pycache__"))
        # As installers do: the account may not write here, and would compile everything in each of its programs.
        subprocess.run([python, "-m", "compileall", "-q", packages / "libcriu_py"], check=True)
        return python

    @cached_property
    def native_launcher(self) -> str:
        """The libcriu-py-run of that interpreter's package."""
        code = "from libcriu_py.snapshot.launcher import find; print(find() or '')"
        found = str(run_as(self, [self.python, "-c", code], cwd="/", check=True).stdout).strip()
        assert found, "libcriu-py-run was not built"
        return found

    @property
    def identity(self) -> dict[str, Any]:
        """What makes `subprocess` start a program as the account, without any group but its own."""
        return {} if self.is_self else {"user": self.uid, "group": self.gid, "extra_groups": []}

    def directory(self) -> Path:
        """Make an empty directory that is the account's own, 0700."""
        path = Path(tempfile.mkdtemp(prefix="test-", dir=None if self.is_self else self.home))
        self.give(path)
        return path

    def give(self, path: Path) -> None:
        """Make the account the owner of a file or directory."""
        if not self.is_self:
            os.chown(path, self.uid, self.gid)


def obstruct(account: Account, place: Path) -> None:
    """
    Fill a directory with modules that must not be imported: one of the standard library's name, and one of ours.

    Args:
        account: Whose directory it is.
        place: The directory.
    """
    package = place / "libcriu_py"
    package.mkdir()
    for path in (place / "types.py", package / "__init__.py"):
        path.write_text(f"raise ImportError({str(path)!r})\n", encoding="utf-8")
        account.give(path)
    account.give(package)


def _words(argv: Sequence[object]) -> list[str]:
    return [os.fsdecode(word) if isinstance(word, bytes) else str(word) for word in argv]


def popen_as(
    account: Account, argv: Sequence[object], *, env: Mapping[str, str] | None = None, **options: Any
) -> subprocess.Popen[Any]:
    """
    Start a program as an account, in its home directory unless told otherwise.

    Args:
        account: Who runs it.
        argv: The program and its arguments: strings, bytes, paths or numbers.
        env: Variables beside those of a fresh login.
        options: As of `subprocess.Popen`.
    """
    options.setdefault("cwd", account.home)
    return subprocess.Popen(_words(argv), env=account.environment(**(env or {})), **account.identity, **options)


def run_as(
    account: Account,
    argv: Sequence[object],
    *,
    env: Mapping[str, str] | None = None,
    check: bool = False,
    **options: Any,
) -> subprocess.CompletedProcess[Any]:
    """
    Run a program as an account to its end, its output captured as text unless told otherwise.

    Args:
        account: Who runs it.
        argv: The program and its arguments: strings, bytes, paths or numbers.
        env: Variables beside those of a fresh login.
        check: Whether a status other than 0 is an error.
        options: As of `subprocess.run`.
    """
    options.setdefault("cwd", account.home)
    options.setdefault("text", True)
    options.setdefault("timeout", 60)
    if not {"stdout", "stderr"} & options.keys():
        options.setdefault("capture_output", True)
    if "input" not in options:
        options.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.run(
        _words(argv),
        env=account.environment(**(env or {})),
        check=check,
        **account.identity,
        **options,
    )
