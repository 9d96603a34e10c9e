"""The README's examples, run as they stand."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from tests.system.selfdump import SelfDump, start, take, write_program

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.system.accounts import Account
    from tests.system.conftest import Mode

README = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")


def example(word: str) -> str:
    """Return the one indented block of the README's part on use that contains a word."""
    use = README[README.index("## Use\n") : README.index("## Privilege modes")]
    blocks = re.findall(r"(?:^ {4}.*\n|^\n(?= {4}))+", use, flags=re.MULTILINE)
    (found,) = (block for block in blocks if word in block)
    return textwrap.dedent(found)


def test_self_checkpoint_and_copies(mode: Mode, directory_of: Callable[[Account], Path]) -> None:
    """The program of the second example checkpoints itself, and the code of the third starts copies of it."""
    beginning = "load_model = dict\ndef main(args): print(args)\n"
    directory = directory_of(mode.account)
    script = write_program(mode, directory, beginning + example("def reconnect"))
    done = start(mode, script, directory / "snap")
    assert done.returncode == 0, done.stderr
    code = example("PIPE") + "\nprint(out)\n"
    done = mode.run([mode.account.python, "-c", code], cwd=directory)
    assert done.stdout.split("\n") == ["[]"] * 5 + ["['--year', '2024']", "", ""], done.stderr


def test_hook_runs_in_each_copy(mode: Mode, directory_of: Callable[[Account], Path]) -> None:
    """The hook of the second example is registered in time."""
    code = example("def reconnect").replace("def reconnect(): ...", 'def reconnect(): print("reconnected")')
    beginning = "load_model = dict\ndef main(args): print(args)\n"
    snapshot = take(mode, directory_of(mode.account), beginning + code)
    assert snapshot.run("a").stdout == "reconnected\n['a']\n"


def test_program_that_is_started_either_way(mode: Mode, directory_of: Callable[[Account], Path]) -> None:
    """Plain starts of the example with both settings go on, whether they may be dumped or not."""
    directory = directory_of(mode.account)
    script = write_program(mode, directory, "load_model = dict\n" + example("if_impossible="))
    plainly = [mode.account.python, script, "a"]
    outcomes = []
    for _ in range(2):
        done = mode.run(plainly, cwd=directory)
        assert done.returncode == 0, done.stderr
        assert len(done.stderr.splitlines()) == ("no snapshot was made" in done.stderr)
        outcomes.append(done.stdout)
    taken = (directory / "snap").exists()
    assert outcomes == (["continued ['a']\n", "skipped ['a']\n"] if taken else ["skipped ['a']\n"] * 2)
    if not taken:
        assert start(mode, script, directory / "snap").returncode == 0
    done = SelfDump(mode, directory / "snap", script).run("b", cwd=directory)
    assert done.stdout == "restored ['b']\n", done.stderr


def test_program_as_it_is(mode: Mode, directory_of: Callable[[Account], Path]) -> None:
    """The commands of the first example do what their comments say."""
    directory = directory_of(mode.account)
    (directory / "report.py").write_text("import decimal, sys\nprint(sys.argv[1:], *sys.stdin.read().split())\n")
    (directory / "in.csv").write_text("a b\n")
    lines = [line.partition("#")[0].strip() for line in example("libcriu-py inspect").splitlines()]
    command = f"{mode.account.python} -m libcriu_py"
    script = "\n".join(lines).replace("libcriu-py", command).replace("zcat big.csv.gz", "cat in.csv")
    done = mode.run(["sh", "-ec", script], cwd=directory)
    assert "['--year', '2024', 'in.csv']\n['-'] a b\n" in done.stdout, done.stderr
    assert "starting conventionally" not in done.stderr


def test_all_of_libcriu(mode: Mode, directory_of: Callable[[Account], Path]) -> None:
    """The example of the binding ends in its except clause, with a reason: there is no such process."""
    directory = directory_of(mode.account)
    (directory / "images").mkdir()
    mode.account.give(directory / "images")
    code = example("DumpOptions(").replace("4711", "4194303")
    done = mode.run([mode.account.python, "-c", code], cwd=directory)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip(), done.stderr
