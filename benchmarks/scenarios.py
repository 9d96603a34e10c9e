"""What is started: one scenario per function, from nothing to a large stack."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

MEGABYTE = 1 << 20
PROGRAMS = Path(__file__).resolve().parent / "programs"


class Scenario(NamedTuple):
    """A program to start, and what has to be there for it."""

    name: str
    program: Path
    packages: dict[str, str]
    """The distributions that the program needs, with a module of each."""
    expect: str
    """What its output begins with."""
    env: dict[str, str] = {}  # noqa: RUF012 - never changed
    """More variables for it."""

    def missing(self) -> list[str]:
        """Return the names of the packages that are not installed."""
        return [name for name, module in self.packages.items() if importlib.util.find_spec(module) is None]


def empty() -> Scenario:
    """Start the interpreter and print a line."""
    return Scenario("empty", PROGRAMS / "empty.py", {}, "ready")


def fastapi() -> Scenario:
    """Build a web application and answer one request in-process."""
    packages = {"fastapi": "fastapi"}
    return Scenario("fastapi", PROGRAMS / "fastapi_request.py", packages, "ready 200")


def django() -> Scenario:
    """Run a management command of a small project."""
    return Scenario("django", PROGRAMS / "django_check.py", {"django": "django"}, "System check")


def pandas() -> Scenario:
    """Read and group a small table."""
    return Scenario("pandas", PROGRAMS / "pandas_group.py", {"pandas": "pandas"}, "ready {")


def sklearn() -> Scenario:
    """Fit a small classifier."""
    packages = {"scikit-learn": "sklearn"}
    return Scenario("sklearn", PROGRAMS / "sklearn_fit.py", packages, "ready 1.00")


def torch() -> Scenario:
    """Run a small network forward on the CPU."""
    return Scenario("torch", PROGRAMS / "torch_forward.py", {"torch": "torch"}, "ready (8, 2)")


def stack() -> Scenario:
    """Run a tiny transformer over a table: torch, transformers and pandas."""
    packages = {
        "torch": "torch",
        "transformers": "transformers",
        "pandas": "pandas",
    }
    return Scenario("stack", PROGRAMS / "stack.py", packages, "ready (2, 4, 16)")


def numpy(megabytes: int = 1024) -> Scenario:
    """
    Have a large array, made by a module that is imported.

    Args:
        megabytes: Its size.
    """
    expect = f"ready {megabytes * MEGABYTE // 8}"
    env = {"BENCH_MEGABYTES": str(megabytes)}
    return Scenario("numpy", PROGRAMS / "numpy_memory.py", {"numpy": "numpy"}, expect, env)


def torch_idle() -> Scenario:
    """Run a small network forward on the CPU, and wait until standard input ends."""
    return Scenario("torch_idle", PROGRAMS / "torch_idle.py", {"torch": "torch"}, "ready (8, 2)")


SCENARIOS: dict[str, Callable[[], Scenario]] = {
    make.__name__: make for make in (empty, fastapi, django, pandas, sklearn, torch, stack, numpy)
}
LABELS = {
    "django": "django command",
    "numpy": "1 GB of numpy",
    "sklearn": "scikit-learn",
    "stack": "torch+transformers+pandas",
}
