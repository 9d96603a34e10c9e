"""
Find what a main module will import, and whether it checkpoints itself, from its source, without running it.

Only statements that always run count: imports inside functions, under ``if TYPE_CHECKING:`` or
``if __name__ == "__main__":``, or under a condition that is unknown beforehand, are left out.
"""

from __future__ import annotations

import ast
import os
import sys
import warnings
from importlib.util import decode_source, find_spec
from typing import TYPE_CHECKING, NamedTuple, cast
from zipimport import ZipImportError, zipimporter

from libcriu_py.program.main import STDIN, Program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from importlib.machinery import ModuleSpec


class Import(NamedTuple):
    """
    One module that an import statement names.

    Attributes:
        module: Absolute name of the module.
        names: Names imported from it, each perhaps a submodule (``from package import submodule``).
    """

    module: str
    names: tuple[str, ...] = ()


class Main(NamedTuple):
    """
    The source of a main module.

    Attributes:
        source: Its text; empty if there is none (compiled code, standard input).
        package: The package that its relative imports start from; empty outside a package.
        filename: Where it was read, for messages.
        is_file: Whether it is the named file itself, and not a file in a named directory or archive.
    """

    source: str
    package: str
    filename: str
    is_file: bool = False


def read_main(program: Program) -> Main:
    """
    Find and read the source of the main module of a program.

    This imports the parent packages of a module for ``-m``, as ``python -m`` does.

    Args:
        program: The program. sys.path must be as it will be when it runs.

    Raises:
        ImportError: There is no such module.
        OSError: The script cannot be read.
        SyntaxError: The source declares an encoding that is unknown or wrong.
    """
    if program.kind == "command":
        return Main(program.value, "", "<string>", is_file=True)
    if program.kind == "module":
        return _read_module(program.value)
    if program.value in STDIN:
        return Main("", "", "<stdin>")
    path = os.path.abspath(program.value)
    if os.path.isdir(path):
        path = os.path.join(path, "__main__.py")
    zipped = _zipped_main(path)
    if zipped is not None or path.endswith(".pyc"):
        return Main(zipped or "", "", path)
    with open(path, "rb") as file:
        return Main(decode_source(file.read()), "", path, is_file=path == os.path.abspath(program.value))


def compiles_silently(main: Main) -> bool:
    """Return whether a main module compiles without a warning."""
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        try:
            compile(main.source, main.filename, "exec", dont_inherit=True)
        except (SyntaxError, ValueError):
            return False
    return not given


def imports(main: Main) -> list[Import]:
    """
    List what a main module imports at top level, in the order of its source.

    Imports in ``except ImportError`` handlers are listed only if the import that they replace would fail.

    Raises:
        SyntaxError: The source does not compile.
    """
    tree = ast.parse(main.source, main.filename)
    return list(_from_statements(tree.body, main.package))


def late_imports(main: Main) -> list[str]:
    """
    List the modules that a main module imports only as it runs: in functions, or as `__main__`.

    Raises:
        SyntaxError: The source does not compile.
    """
    nodes = list(ast.walk(ast.parse(main.source, main.filename)))
    bodies = [node for node in nodes if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) or _is_guard(node)]
    statements = [node for body in bodies for node in ast.walk(body) if isinstance(node, (ast.Import, ast.ImportFrom))]
    modules = dict.fromkeys(found.module for found in _from_statements(statements, main.package))
    return [module for module in modules if _exists(module)]


def _is_guard(node: ast.AST) -> bool:
    """Return whether a node is an ``if`` that asks for the name of the module."""
    names = ast.walk(node.test) if isinstance(node, ast.If) else ()
    return any(isinstance(name, ast.Name) and name.id == "__name__" for name in names)


def checkpoints_itself(main: Main) -> bool:
    """
    Return whether a main module asks this package for a checkpoint.

    It does if it imports `checkpoint` or `checkpoint_here` from libcriu_py, or uses them through the package's name, at
    any depth. Importing hooks alone does not count: such a program is prepared like any other.

    Raises:
        SyntaxError: The source does not compile.
    """
    asking = {"checkpoint", "checkpoint_here"}
    nodes = list(ast.walk(ast.parse(main.source, main.filename)))
    aliases = [alias for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    if any(alias.name == "libcriu_py.dump.checkpoint" for alias in aliases):
        return True
    package = {alias.asname or alias.name for alias in aliases if alias.name == "libcriu_py"}

    def asks(node: ast.AST) -> bool:
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            named = any(alias.name in {*asking, "*"} for alias in node.names)
            return node.module == "libcriu_py.dump.checkpoint" or (node.module == "libcriu_py" and named)
        value = node.value if isinstance(node, ast.Attribute) and node.attr in asking else None
        return isinstance(value, ast.Name) and value.id in package

    return any(map(asks, nodes))


def _read_module(name: str) -> Main:
    """Read the source of what ``-m`` runs."""
    spec = find_spec(name)
    if spec is not None and spec.submodule_search_locations is not None:
        __import__(name)  # as python -m does with a package before it looks for its __main__
        name = f"{name}.__main__"
        spec = find_spec(name)
    if spec is None:
        message = f"No module named {name}"
        raise ModuleNotFoundError(message, name=name)
    return Main(_source_of(spec) or "", spec.parent or "", spec.origin or name)


def _source_of(spec: ModuleSpec) -> str | None:
    """Return the source of a module, or None if its loader has none."""
    get_source: Callable[[str], str | None] | None = getattr(spec.loader, "get_source", None)
    return None if get_source is None else get_source(spec.name)


def _zipped_main(path: str) -> str | None:
    """Return the source of the ``__main__`` module of a zip file; None if there is none, or the path is no zip file."""
    try:
        return zipimporter(path).get_source("__main__")
    except ZipImportError:
        return None


def _from_statements(body: Iterable[ast.stmt], package: str) -> Iterator[Import]:
    """Yield the imports of consecutive statements."""
    for node in body:
        if isinstance(node, ast.Import):
            yield from (Import(alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from _from_import(node, package)
        elif isinstance(node, (ast.With, ast.AsyncWith)):
            yield from _from_statements(node.body, package)
        elif type(node).__name__ in {"Try", "TryStar"}:
            yield from _from_try(cast("ast.Try", node), package)  # TryStar (3.11) has the same fields
        elif isinstance(node, ast.If):
            holds = _holds(node.test)
            if holds is not None:
                yield from _from_statements(node.body if holds else node.orelse, package)


def _from_import(node: ast.ImportFrom, package: str) -> Iterator[Import]:
    """Yield the one import of a ``from`` statement, its name made absolute."""
    module = node.module or ""
    if node.level:
        parts = package.split(".") if package else []
        if node.level > len(parts):
            return  # the program itself fails here with an error message
        module = ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [module])])
    if module and module != "__future__":
        yield Import(module, tuple(alias.name for alias in node.names if alias.name != "*"))


def _from_try(node: ast.Try, package: str) -> Iterator[Import]:
    """Yield the imports of a ``try`` statement that can succeed; those of handlers only if one in the body cannot."""
    attempted = list(_from_statements(node.body, package))
    found = [wanted for wanted in attempted if not node.handlers or _exists(wanted.module)]
    yield from found
    if len(found) == len(attempted):
        yield from _from_statements(node.orelse, package)
    else:
        for handler in node.handlers:
            yield from _from_statements(handler.body, package)
    yield from _from_statements(node.finalbody, package)


def _exists(module: str) -> bool:
    """Return whether the top-level package of a module can be found, without importing anything."""
    top = module.partition(".")[0]
    if top in sys.modules:
        return True
    try:
        return find_spec(top) is not None
    except (ImportError, ValueError):
        return False


KNOWN = {
    ("sys", "version_info"): sys.version_info,
    ("sys", "platform"): sys.platform,
    ("os", "name"): os.name,
    ("typing", "TYPE_CHECKING"): False,
}
"""Names that conditions at top level commonly test, and their values, which are known before the program runs."""


def _holds(test: ast.expr) -> bool | None:
    """
    Return whether the condition of an ``if`` statement holds; None if it depends on more than interpreter and platform.

    ``__name__ == "__main__"`` counts as False, because it guards the program and not its preparation.
    """
    try:
        return bool(_value(test))
    except (_UnknownError, TypeError, ValueError, IndexError, AttributeError):
        return None


class _UnknownError(Exception):
    """The value of an expression is unknown beforehand."""


def _value(node: ast.expr) -> object:
    """Return the value of an expression of `KNOWN` names and literals; raise _UnknownError for any other."""
    if isinstance(node, ast.Name) and node.id in {"TYPE_CHECKING", "__name__"}:
        return False if node.id == "TYPE_CHECKING" else "not __main__ yet"
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and (node.value.id, node.attr) in KNOWN:
        return KNOWN[node.value.id, node.attr]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return not _value(node.operand)
    if isinstance(node, ast.BoolOp):
        values = [bool(_value(operand)) for operand in node.values]
        return all(values) if isinstance(node.op, ast.And) else any(values)
    if isinstance(node, (ast.Compare, ast.Subscript, ast.Call)) and _is_made_of_known(node):
        code = compile(ast.Expression(node), "<condition>", "eval")
        names: dict[str, object] = {"sys": sys, "os": os, "__name__": "not __main__ yet", "__builtins__": {}}
        value: object = eval(code, names)  # noqa: S307  # nothing but comparisons of KNOWN, checked above
        return value
    if not isinstance(node, (ast.Constant, ast.Tuple, ast.List)):
        raise _UnknownError
    return ast.literal_eval(node)


def _is_made_of_known(node: ast.AST) -> bool:
    """Return whether an expression only compares, indexes and calls startswith() on `KNOWN` names and literals."""
    if isinstance(node, ast.Attribute):
        if isinstance(node.value, ast.Name):
            return (node.value.id, node.attr) in KNOWN
        return node.attr in {"startswith", "major", "minor"} and _is_made_of_known(node.value)
    if isinstance(node, ast.Name):
        return node.id == "__name__"
    plain = (ast.Compare, ast.Subscript, ast.Slice, ast.Call, ast.Constant, ast.Tuple, ast.List, ast.cmpop)
    if not isinstance(node, (*plain, ast.expr_context)):
        return False
    return all(_is_made_of_known(child) for child in ast.iter_child_nodes(node))
