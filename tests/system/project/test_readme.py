"""The README's examples, run as they stand."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from tests.system.selfdump import start, write_program

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
    # The hook is registered behind the block there, for its readers; a hook that counts stands before it.
    script = write_program(mode, directory, beginning + example("def reconnect"))
    done = start(mode, script, directory / "snap")
    assert done.returncode == 0, done.stderr
    code = example("PIPE") + "\nprint(out)\n"
    done = mode.run([mode.account.python, "-c", code], cwd=directory)
    assert done.stdout.split("\n") == ["[]"] * 5 + ["['--year', '2024']", "", ""], done.stderr


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
