"""The dialect of docstrings and prose, as far as ruff does not check it (`lint` in pyproject.toml)."""

from __future__ import annotations

import ast
import re
import tokenize
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[3]
FOLDERS = ("libcriu_py", "tests", "benchmarks", "examples")
SOURCES = [
    *ROOT.glob("*.py"),
    *(path for name in FOLDERS for path in (ROOT / name).rglob("*.py*") if path.suffix != ".pyc"),
]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
UNITS = list((ROOT / "libcriu_py/csrc").rglob("*.[ch]"))

NAMES = {"criu", "criu's", "errno", "libcriu", "matplotlib", "mimalloc", "pymalloc", "tmpfs", "uvloop"}
"""Words that begin an entry in lower case, since that is how they are written."""

AMERICAN = re.compile(
    r"\b(?:(?:behavi|col|fav|flav|hon|lab|neighb)or(?:s|ed|ing|able|ite)?|(?:cent|fib|theat)ers?|(?:analy|paraly)z\w+"
    r"|(?:cancel|label|model|signal|travel)(?:ed|ing)|(?:cata|dia)logs?|defense|offense|fulfill?s?|gray|artifacts?|judgment"
    r"|toward|\w{3,}iz(?:e|es|ed|ing|ation|ations))\b",
    re.IGNORECASE,
)
"""The project's English is British."""

AS_NAMED = {
    "optimize",
    "prize",
    "randomization",
    "resize",
    "resized",
    "resizes",
    "seize",
    "seized",
    "seizing",
    "sitecustomize",
}
"""Names in other people's spelling (and ours: of a command), and words that every dialect spells like this."""


class Docstring(NamedTuple):
    """
    A docstring, of an attribute too.

    Attributes:
        where: File and line.
        of: What it documents.
        text: What it says.
        source: How that is written.
        column: Where it begins.
    """

    where: str
    of: ast.AST
    text: str
    source: str
    column: int


@cache
def docstrings() -> list[Docstring]:
    """Return all docstrings."""
    found = []
    for path in SOURCES:
        source = path.read_text(encoding="utf-8")
        lines = source.split("\n")
        for node in ast.walk(ast.parse(source)):
            if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            for number, one in enumerate(node.body):
                match one:
                    case ast.Expr(value=ast.Constant(value=str(text), end_lineno=int(end))):
                        where = f"{path.relative_to(ROOT)}:{one.lineno}"
                        written = "\n".join(lines[one.lineno - 1 : end]).strip()
                        of = node.body[number - 1] if number else node
                        found.append(Docstring(where, of, text.strip(), written, one.col_offset))
    return found


def entries(text: str) -> list[str]:
    """Return what the entries of Args, Attributes, Raises, Returns and Yields say, without their names."""
    found: list[str] = []
    section, indent, fresh = "", 0, False
    for line in text.split("\n"):
        depth = len(line) - len(line.lstrip())
        if heading := re.fullmatch(r" *(Args|Attributes|Raises|Returns|Yields):", line):
            section, indent, fresh = heading[1], depth + 4, True
        elif line and depth < indent:
            section = ""
        elif section and line:
            named = re.match(r" +[*\w., ]+?(?: \([^)]*\))?:\s+", line) if section not in {"Returns", "Yields"} else None
            if depth == indent and (named or fresh):
                found.append(line[named.end() if named else indent :])
            else:
                found[-1] += f" {line.strip()}"
            fresh = False
    return found


def prose() -> Iterator[tuple[str, str]]:
    """Yield what people read, with where it stands: comments, docstrings and pages, without code in them."""
    for path in SOURCES:
        with path.open("rb") as file:
            for token in tokenize.tokenize(file.readline):
                if token.type == tokenize.COMMENT:
                    yield f"{path.relative_to(ROOT)}:{token.start[0]}", token.string
    for one in docstrings():
        yield one.where, one.text
    for path in UNITS:
        for comment in re.findall(r"/\*.*?\*/", path.read_text(encoding="utf-8"), re.DOTALL):
            yield str(path.relative_to(ROOT)), comment
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        yield str(path.relative_to(ROOT)), re.sub(r"```.*?```|^    .*?$", "", text, flags=re.DOTALL | re.MULTILINE)


def test_form() -> None:
    """A docstring of one line stands on one line if it fits; the quotes of others stand on lines of their own."""
    wrong = []
    for one in docstrings():
        fits = one.column + 6 + len(one.text) <= 120 and '"' not in one.text[:1] + one.text[-1:]
        single, several = "\n" not in one.source, re.fullmatch(r'r?"""\n.*\n *"""', one.source, re.DOTALL)
        if not (single or several) or ("\n" not in one.text and fits and not single):
            wrong.append(f"{one.where}: {one.text[:60]}")
    assert wrong == []


def test_verbs() -> None:
    """Functions return or yield, instead of giving or telling."""
    functions = [one for one in docstrings() if isinstance(one.of, ast.FunctionDef | ast.AsyncFunctionDef)]
    wrong = [f"{one.where}: {one.text[:60]}" for one in functions if re.match(r"(Give|Tell whether)\b", one.text)]
    assert wrong == []


def test_entries() -> None:
    """Entries of Args, Raises and the like begin with a capital, a name or a sign, and end with a period."""
    wrong = []
    for one in docstrings():
        for entry in entries(one.text):
            word = entry.split()[0].rstrip(",.;:")
            plain = word[:1].islower() and word not in NAMES and not re.search(r"[\d_.()\[\]/=]", word)
            if plain or not re.search(r"[.!?:]$", entry):
                wrong.append(f"{one.where}: {entry[:60]}")
    assert wrong == []


def test_spelling() -> None:
    """Comments, docstrings and documentation are spelt as the British do; what stands in backticks is a name."""
    wrong = []
    for where, text in prose():
        words = AMERICAN.findall(re.sub(r"(`+).*?\1|\S*[_/.]\w\S*", "", text, flags=re.DOTALL))
        found = {word.lower() for word in words if not word.isupper()} - AS_NAMED
        wrong += [f"{where}: {word}" for word in sorted(found)]
    assert wrong == []
