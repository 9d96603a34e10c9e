"""Logs, hints, configuration files and exceptions."""

from __future__ import annotations

import pytest

from libcriu_py import errors
from libcriu_py.criu.call import render_config
from libcriu_py.criu.hints import find_hint
from libcriu_py.criu.log import LOG_TAIL_LINES, log_errors, refusal
from libcriu_py.errors import OperationRefused

LOG = """\
(00.000012) Warn  (criu/kerndat.c:1290): Can't keep kdat cache on non-tempfs
(00.017654) Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted
(00.017660) Error (criu/net.c:3000): net: Unexpected error -1 from netlink
(00.033883)  12: Error (criu/files-reg.c:2175): File var/log/x has bad size 5 (expect 1)
(00.033962) Error (criu/cr-restore.c:2331): Restoring FAILED.
"""


def test_the_reason_is_the_first_error_that_is_no_noise() -> None:
    """Lines that successful runs print too are left out, and the closing line comes last."""
    assert log_errors(LOG) == [
        "files-reg.c:2175: File var/log/x has bad size 5 (expect 1)",
        "cr-restore.c:2331: Restoring FAILED.",
    ]


def test_a_refusal_carries_all_it_knows(tmp_path: object) -> None:
    """Operation, errno, reason, hint, log and its tail are attributes; the message holds reason, hint and path."""
    path = f"{tmp_path}/restore.log"
    with open(path, "w", encoding="utf-8") as log:
        log.write("(00.0) old\n" * 100 + LOG)
    refused = refusal("restore", -52, 7, path)
    assert (refused.operation, refused.returncode, refused.errno, refused.log_path) == ("restore", -52, 7, path)
    assert refused.log_tail.endswith("Restoring FAILED.")
    assert len(refused.log_tail.splitlines()) == LOG_TAIL_LINES
    assert "/var/log/x changed its size since the dump (1 bytes then, 5 now)" in (refused.hint or "")
    assert str(refused).startswith("criu refused to restore: files-reg.c:2175: File var/log/x has bad size")
    assert path in str(refused)


def test_a_refusal_without_a_log_says_so() -> None:
    """Where criu gave no reason, errno does, and else the message says how to get one."""
    assert "No such process" in str(refusal("dump", -52, 3, None))
    assert "log_level" in str(refusal("dump", -52, 0, "/nonexistent"))
    assert isinstance(refusal("dump", -52, 0, None), OperationRefused)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("restorer.c:226: Can't setgroups([3 gids])", "supplementary groups"),
        ("cr-restore.c:1: Can't fork for 5: File exists", "pid of the dumped process is in use"),
        ("vdso.c:1: Failed to fill self vdso symtable", "too old for this kernel"),
        ("creds.c:1: Unable to drop capability from the bounding set", "CAP_SETPCAP"),
        ("cpu.c:1: CPU capabilities do not match run time", "this CPU lacks features"),
        ("sk-inet.c:200: inet: Connected TCP socket, consider using --tcp-established option.", "established TCP"),
        ("netfilter.c:233: CRIU was built without libnftables support", "install-criu --full"),
        ("net.c:1: net: Locking network failed: iptables-restore returned -1.", "network_lock"),
        ("seize.c:1: zombie 12 (comm sh) found while seizing", "dead process"),
        ("cr-dump.c:1: The criu itself is within dumped tree.", "descendant"),
        ("cr-restore.c:1924: Unable to detach 7: No such process", "restore once more"),
        ("image.c:1: Can't open dir /x: No space left on device", "disk is full"),
    ],
)
def test_causes_that_few_machines_can_provoke_are_known(line: str, words: str) -> None:
    """The hint is found by the words of criu's own line."""
    assert words in (find_hint([line]) or "")


def test_an_unknown_cause_has_no_hint() -> None:
    """Nothing is made up."""
    assert find_hint(["x.c:1: Something entirely new"]) is None


def test_a_configuration_file_is_written() -> None:
    """True is an option alone, a sequence repeats it, what is unset is left out, and blanks are quoted."""
    config = {"tcp_close": True, "skip-mnt": ["/a", "/b c"], "lazy-pages": False, "root": None}
    assert render_config(config, 7) == 'tcp-close\nskip-mnt /a\nskip-mnt "/b c"\ntimeout 7\n'
    assert render_config(None, None) is None
    assert render_config({}, None) is None


@pytest.mark.parametrize("value", ["a#b", "a\nb", "a\0b"])
def test_what_a_configuration_file_cannot_hold_is_refused(value: str) -> None:
    """It would be cut short, and criu would say nothing."""
    with pytest.raises(ValueError, match="cannot be written"):
        render_config({"root": value}, None)


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (errors.TransportError, ConnectionError),
        (errors.OperationRefused, RuntimeError),
        (errors.BinaryNotFound, FileNotFoundError),
        (errors.VersionError, RuntimeError),
        (errors.UnsupportedFeature, NotImplementedError),
        (errors.ImageError, ValueError),
        (errors.SnapshotMismatch, ValueError),
        (errors.SnapshotUnsafe, PermissionError),
        (errors.CheckpointError, RuntimeError),
        (errors.RestoreError, RuntimeError),
        (errors.HookError, RuntimeError),
    ],
)
def test_each_exception_is_one_of_ours_and_a_builtin(error: type[Exception], builtin: type[Exception]) -> None:
    """Both kinds of except clause catch it, and it carries its message."""
    assert issubclass(error, errors.CriuError)
    assert issubclass(error, builtin)
    assert str(error("why")) == "why"
