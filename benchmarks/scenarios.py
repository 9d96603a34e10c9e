"""The programs that are started, from nothing to a large stack."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import NamedTuple

PROGRAMS = Path(__file__).resolve().parent / "programs"


class Scenario(NamedTuple):
    """A program to start, and what has to be there for it."""

    name: str
    label: str
    """How tables call it."""
    module: str
    """Of `programs`."""
    packages: tuple[str, ...]
    """The distributions that the program needs."""
    expect: str
    """What its output begins with."""
    env: dict[str, str] = {}  # noqa: RUF012 - never changed
    """More variables for it."""

    @property
    def program(self) -> Path:
        """Return the path of the program."""
        return PROGRAMS / f"{self.module}.py"

    def missing(self) -> list[str]:
        """Return the names of the packages that are not installed."""
        modules = {"scikit-learn": "sklearn"}
        return [name for name in self.packages if importlib.util.find_spec(modules.get(name, name)) is None]


def numpy(megabytes: int, name: str, label: str) -> Scenario:
    """Return a program with a large array, made by a module that it imports."""
    env = {"BENCH_MEGABYTES": str(megabytes)}
    return Scenario(name, label, "numpy_memory", ("numpy",), f"ready {(megabytes << 20) // 8}", env)


SCENARIOS = {
    each.name: each
    for each in (
        Scenario("empty", "empty", "empty", (), "ready"),
        Scenario("fastapi", "fastapi", "fastapi_request", ("fastapi",), "ready 200"),
        Scenario("django", "django command", "django_check", ("django",), "System check"),
        Scenario("pandas", "pandas", "pandas_group", ("pandas",), "ready {"),
        Scenario("sklearn", "scikit-learn", "sklearn_fit", ("scikit-learn",), "ready 1.00"),
        Scenario("torch", "torch", "torch_forward", ("torch",), "ready (8, 2)"),
        Scenario(
            "stack", "torch+transformers+pandas", "stack", ("torch", "transformers", "pandas"), "ready (2, 4, 16)"
        ),
        numpy(1024, "numpy", "1 GB of numpy"),
    )
}
TORCH_IDLE = Scenario("torch_idle", "torch_idle", "torch_idle", ("torch",), "ready (8, 2)")
"""As torch, and waits until standard input ends."""
NUMPY_TOUCH = Scenario("numpy_touch", "jobs", "numpy_touch", ("numpy",), "ready")


def label(name: str) -> str:
    """Return how tables call a program."""
    return SCENARIOS[name].label if name in SCENARIOS else name
