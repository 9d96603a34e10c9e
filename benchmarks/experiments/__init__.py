"""What is measured: a module for each table of docs/benchmarks.md."""

from __future__ import annotations

from benchmarks.bench import Experiment
from benchmarks.experiments import (
    cold,
    copies,
    dump,
    growth,
    modes,
    native,
    pause,
    spawn,
    standby,
    startup,
    touch,
    workers,
)

EXPERIMENTS: dict[str, Experiment] = {
    module.__name__.rpartition(".")[2]: module.EXPERIMENT
    for module in (startup, native, dump, cold, copies, growth, touch, standby, pause, modes, spawn, workers)
}
"""In the order in which they are measured."""
