"""What is taken for the environment that a process was started with."""

from __future__ import annotations

import subprocess
import sys

import pytest

from libcriu_py.program import environment as own_variables


def test_start_is_that_of_the_kernel() -> None:
    """Any bytes, and no variables at all; what is set later is a change."""
    code = (
        "import os; from libcriu_py.program import environment as own\n"
        "own.record_start(lambda name, value: name == 'HIDDEN')\n"
        "os.environ['LATER'] = '1'; os.environ['HIDDEN'] = '2'; os.environ.pop('OLD', None)\n"
        "print(own.find_changes())"
    )
    for env in ({}, {"OLD": "a\udcff=b", "HIDDEN": "1", "SAME": ""}):
        argv = [sys.executable, "-c", code]
        done = subprocess.run(argv, env=env, capture_output=True, text=True, check=True)
        expected = own_variables.Changes({b"LATER": b"1"}, [(b"OLD", b"a\xff=b", None)] if env else [])
        assert done.stdout == f"{expected}\n"


@pytest.mark.parametrize(
    ("block", "found"),
    [
        (b"", {}),
        (b"A=1\0B=\0C=x=y\0", {b"A": b"1", b"B": b"", b"C": b"x=y"}),
        (b"A=1\0A=2\0", {b"A": b"1"}),
        (b"SECRET=1\0A=1\0", {b"SECRET": None, b"A": b"1"}),
        (b"a title\0\0\0\0", None),
        (b"\0\0\0\0", None),
        (b"A=1\0rest of a title\0", None),
        (b"=1\0", None),
        (b"A=1", None),
    ],
)
def test_only_what_looks_like_an_environment_is_one(block: bytes, found: dict[bytes, bytes] | None) -> None:
    """A process may write into the block; secrets are not copied out of it."""
    assert own_variables._parse(bytearray(block), lambda name, _: name == "SECRET") == found


def test_block_of_this_process() -> None:
    """Its place is where the kernel says."""
    start, end = own_variables.initial_block()
    with open("/proc/self/environ", "rb") as file:
        assert len(file.read()) == end - start


def test_variables_of_the_start_stay_secrets() -> None:
    """What was left out of the start is a secret later too, whatever the judge of the program's own variables says."""
    code = (
        "from libcriu_py.program import environment as own\n"
        "own.record_start(lambda name, value: name == 'PLAIN', lambda name, value: False)\n"
        "print(own.is_secret('PLAIN', b'1'), own.is_secret('OTHER', b'1'))"
    )
    argv = [sys.executable, "-c", code]
    done = subprocess.run(argv, env={"PLAIN": "1"}, capture_output=True, text=True, check=True)
    assert done.stdout == "True False\n"
