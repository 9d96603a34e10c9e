"""What all tests share: no silent skips, CRIU's logs beside a failure, no inherited descriptors."""

from __future__ import annotations

import compileall
import ctypes
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

LOG_LINES = 25
CLONE_NEWNS = 0x20000
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
log_roots: pytest.StashKey[list[Path]] = pytest.StashKey()
"""Directories, beside tmp_path, below which a failed test's logs lie."""
_system_tests: pytest.StashKey[SystemTests] = pytest.StashKey()
_pid: pytest.StashKey[int] = pytest.StashKey()


class SystemTests:
    """The number of system tests that ran, in whatever process of the run."""

    def __init__(self) -> None:
        self.ran = 0

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count one; with several processes this is called in the one that collects the reports."""
        if report.when == "call" and not report.skipped and "tests/system/" in report.nodeid:
            self.ran += 1


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --no-skips, which CI always has, and --write-matrix."""
    parser.addoption(
        "--no-skips",
        action="store_true",
        default=os.environ.get("CI") == "true",
        help="a skipped test has failed, and system tests must have run (always on where CI=true)",
    )
    parser.addoption(
        "--write-matrix",
        action="store_true",
        help="write into docs/unprivileged.md what programs may hold in each mode, instead of comparing it",
    )


def pytest_configure(config: pytest.Config) -> None:
    """
    Close what the shell or a build tool left open.

    A test that forks and dumps itself would have such a descriptor in its image. Python's own, and
    pytest's, are not inheritable (PEP 446); what is inheritable and above 2 has come from outside.
    """
    if hasattr(config, "workerinput"):
        _take_own_mounts()
    _heed_signals()
    # A program under a low RLIMIT_FSIZE would leave truncated bytecode behind, which Python 3.11 puts in place anyway.
    compileall.compile_dir(Path(__file__).parents[1] / "libcriu_py", quiet=1)
    config.stash[_pid] = os.getpid()
    config.stash[_system_tests] = SystemTests()
    config.pluginmanager.register(config.stash[_system_tests])
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        try:
            if fd > 2 and os.get_inheritable(fd):
                os.close(fd)
        except OSError:  # the descriptor of the listing itself is closed by now
            continue


def _take_own_mounts() -> None:
    """
    Let each of several processes, as root, have a /dev/shm and terminals of its own.

    A number that one test has given back is another's at once: that of a terminal, which criu restores, and that of a
    directory, by which notes in /dev/shm are named.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) != 0:
        return  # not root, whose tests have what the machine has
    mounts = (
        (None, b"/", None, MS_REC | MS_PRIVATE, None),
        (b"shm", b"/dev/shm", b"tmpfs", 0, b"mode=1777"),
        (b"devpts", b"/dev/pts", b"devpts", 0, b"newinstance,mode=600,ptmxmode=0666"),
        (b"/dev/pts/ptmx", b"/dev/ptmx", None, MS_BIND, None),
    )
    for source, target, kind, flags, data in mounts:
        if libc.mount(source, target, kind, ctypes.c_ulong(flags), data) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), target.decode())


def _heed_signals() -> None:
    """
    Heed what a shell that is not interactive lets commands ignore that it starts with `&` (POSIX, XCU 2.11).

    Programs that tests start would ignore it, too.
    """
    for number, default in ((signal.SIGINT, signal.default_int_handler), (signal.SIGQUIT, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, default)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Let `-n auto` be one process more than there are processors: tests wait for criu and clocks half of the time."""
    return len(os.sched_getaffinity(0)) + 1


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes long, so that no process is left alone with it in the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """
    Leave what was set up before a forked test to its parent.

    pytest-forked tears down every fixture in its child, and so would remove the accounts, snapshots and pools of tests
    that follow. What the test sets up itself still ends with it.
    """
    if os.getpid() != item.config.stash[_pid]:
        for finalizers, _ in item.session._setupstate.stack.values():
            del finalizers[1:]  # the first one is the node's own


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport, *, expected: bool) -> None:
    if report.skipped and not expected:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"skipped, which counts as failed here (--no-skips): {reason}"


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Count a skip as a failure where skips are refused, and attach the tails of CRIU's logs to a failure."""
    report = yield
    if item.config.option.no_skips:
        _refuse_skip(report, expected=hasattr(report, "wasxfail"))
    if report.failed:
        roots = [*item.stash.get(log_roots, []), item.funcargs.get("tmp_path")]  # type: ignore[attr-defined]
        for path in _logs(roots):
            report.sections.append((f"tail of {path}", _tail(path)))
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Refuse the skip of a whole module too."""
    report = yield
    if collector.config.option.no_skips:
        _refuse_skip(report, expected=False)
    return report


def _logs(roots: list[Path | None]) -> Iterator[Path]:
    for root in roots:
        if root is not None:
            yield from sorted(path for path in root.rglob("*.log") if path.is_file())


def _tail(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(lines[-LOG_LINES:])


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None]:
    """Fail a run that was to include the system tests and ran none of them."""
    config = session.config
    wanted = any("system" in Path(argument.split("::")[0]).parts for argument in config.args)
    collect_only = config.option.collectonly or config.option.keyword or config.option.markexpr
    collects = not hasattr(config, "workerinput")  # not one of several processes that run tests (pytest-xdist)
    if collects and config.option.no_skips and wanted and not collect_only and not config.stash[_system_tests].ran:
        config.issue_config_time_warning(pytest.PytestWarning("no system test ran"), stacklevel=1)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    yield


@pytest.fixture(scope="session")
def criu_binary() -> Path:
    """Return the criu program that the package finds."""
    from libcriu_py.criu.find import find_criu

    return Path(find_criu())
