"""Options of Python's command line, as a copy of an interpreter reads them."""

from __future__ import annotations

import pytest

from libcriu_py.dump import python_options


@pytest.mark.parametrize(
    ("words", "fixed"),
    [
        ([], []),
        (["-uBq", "-W", "error", "-Wignore"], []),
        (["-OO", "-I"], ["-O", "-O", "-I"]),
        (["-bX", "dev"], ["-b", "-Xdev"]),
        (["-Xfaulthandler", "-X", "tracemalloc", "-Xtracemalloc=9", "-X", "pycache_prefix=/a b"], []),
        (["-Xtracemalloc=10", "-X", "tracemalloc=0"], ["-Xtracemalloc=10", "-Xtracemalloc=0"]),
        (["-X", "of_nobody=1"], ["-Xof_nobody=1"]),
    ],
)
def test_options_that_have_to_be_as_at_the_dump(words: list[str], fixed: list[str]) -> None:
    """They are one letter a word, with its value; those that a copy can follow are left out."""
    assert python_options.fixed(words) == fixed


@pytest.mark.parametrize("words", [["program.py"], ["-I", "program.py"], ["-m", "json"], ["-c", "pass"], ["-"]])
def test_a_program_is_no_option(words: list[str]) -> None:
    """Nor is what follows it."""
    with pytest.raises(ValueError, match="is no option"):
        python_options.fixed(words)


@pytest.mark.parametrize("arguments", [["-I", "-c", "pass"], ["-Z"], ["-W"], ["-u", "-X"], ["-B", "-c"], ["--version"]])
def test_options_that_only_a_new_interpreter_can_follow(arguments: list[str]) -> None:
    """They are refused before any other has its effect."""
    with pytest.raises(ValueError, match=r"option"):
        python_options.follow(arguments)
