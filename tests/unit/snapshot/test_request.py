"""The request that a restored process is given."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys

import pytest
from hypothesis import given, strategies as st

from libcriu_py import RestoreError
from libcriu_py.dump.arrival import Handover, command_prefix
from libcriu_py.linux import sockets
from libcriu_py.program.main import Program
from libcriu_py.snapshot.request import Request, check_count, ignored_signals, send_request

c_strings = st.binary().map(lambda data: data.replace(b"\0", b""))
names = c_strings.map(lambda data: data.replace(b"=", b""))


def request(**values: object) -> Request:
    """Make a request with some values of interest."""
    plain = Request(argv=[], env={}, cwd=b"/", umask=0o22, launched=1.5, snapshot="/snap")
    return plain._replace(**values)  # type: ignore[arg-type]


@given(st.lists(c_strings), st.dictionaries(names, c_strings), c_strings)
def test_every_byte_survives(argv: list[bytes], env: dict[bytes, bytes], cwd: bytes) -> None:
    """Arguments, environment and directory are the same bytes on the other side, in the same order."""
    sent = request(argv=argv, env=env, cwd=cwd, main=Program("module", "http.server"), closed=[0], pass_fds=[7])
    sent = sent._replace(inherited=[63, 5], schedule=(-5, 2, 7), blocked=[10, 64])
    received = Request.decode(sent.encode())
    assert received == sent
    assert list(received.env) == list(env)


def test_other_protocol_is_refused() -> None:
    """A snapshot of another version says so, instead of misunderstanding."""
    for other in (b"1 \0" + request().encode()[3:], b'{"argv": [], "protocol": 1}', b""):
        with pytest.raises(RestoreError, match="make the snapshot anew"):
            Request.decode(other)


@given(st.integers(min_value=0), st.binary())
def test_damaged_request_is_an_error(size: int, rest: bytes) -> None:
    """A request that was cut off, or goes on with something else, is an error or another request, and no crash."""
    whole = request(argv=[b"a", b"b"], env={b"A": b"1"}, limits={7: (1, 2)}, pgid=5).encode()
    with contextlib.suppress(ValueError, RestoreError):
        Request.decode(whole[: size % len(whole)] + rest)


@pytest.mark.parametrize(
    "values",
    [{"argv": [b"a\0b"]}, {"env": {b"A": b"\0"}}, {"env": {b"A=B": b""}}, {"cwd": b"/\0"}, {"snapshot": "/\0"}],
)
def test_what_no_process_can_be_given_is_refused(values: dict[str, object]) -> None:
    """A NUL anywhere, or "=" in a name, is an error before anything is restored."""
    with pytest.raises(ValueError, match=r"null byte|variable name"):
        request(**values).encode()


def test_command_prefix_is_what_stands_before_the_arguments() -> None:
    """Options of the interpreter and the program's name belong to it, arguments do not."""
    code = "import sys; from libcriu_py.dump.arrival import command_prefix; print(command_prefix()[1:])"
    for options in (["-X", "dev"], []):
        command = [sys.executable, *options, "-c", code, "a", "b"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout == f"{[*options, '-c', code]}\n"
    assert command_prefix()


def test_too_many_descriptors() -> None:
    """The kernel's limit for one message is told before anything is made."""
    with pytest.raises(ValueError, match="at most 249"):
        check_count(list(range(250)))
    check_count(list(range(249)))


def test_passed_descriptors_get_their_numbers() -> None:
    """Descriptors arrive under the numbers asked for, crosswise too, and those of the hand-over move away."""
    reading, writing = os.pipe()
    ours, slot = sockets.socketpair()
    send_request(ours, request(pass_fds=[writing, reading]), [reading, writing])
    os.close(reading)
    os.close(writing)
    handover = Handover(slot, [])
    received, fds = handover._read()
    handover._install_fds(fds, received)
    os.write(reading, b"crossed")
    assert os.read(writing, 7) == b"crossed"
    for fd in (reading, writing, ours):
        os.close(fd)
    handover.report_ready()
    handover.report_ready()


def test_ignored_signals_are_those_of_the_shell() -> None:
    """What nohup ignores is found; what Python itself ignores is not."""
    code = "from libcriu_py.snapshot.request import ignored_signals; print(ignored_signals())"
    done = subprocess.run(["nohup", sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[1]\n"
    assert 13 not in ignored_signals()


def test_inherited_descriptors_give_way() -> None:
    """What is open under a number of theirs stays, unless it is of the hand-over, and is never mistaken for them."""
    (reading, writing), own = os.pipe(), os.open("/dev/null", os.O_RDONLY)
    ours, slot = sockets.socketpair()
    free = os.dup(own)
    os.close(free)
    asked = request(inherited=[reading, own, slot, free + 1])
    send_request(ours, asked._replace(inherited=[writing] * 4), [])
    handover = Handover(slot, [])
    _, fds = handover._read()
    os.close(reading)
    with pytest.raises(ValueError, match=f"inherited descriptor {own}, but the program has"):
        handover._install_fds(fds, asked._replace(argv=[b"--file=/dev/fd/%d" % own]))
    handover._install_fds(fds, asked)
    named = {fd: os.readlink(f"/proc/self/fd/{fd}") for fd in (writing, reading, own, slot, free + 1)}
    assert named[own] == "/dev/null"
    assert {named[fd] for fd in named if fd != own} == {named[writing]}
    assert os.get_inheritable(reading)
    for fd in (*named, ours):
        os.close(fd)
    handover.report_ready()
