"""
Machine learning frameworks, too large for the test suite: what the built-in resources put right in two copies.

Run by `scripts/test-apps` in an environment that has torch, numba and TensorFlow.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

TORCH = """
import json, os, sys
import torch
from libcriu_py import checkpoint
kept, drawn = torch.Generator().manual_seed(42), torch.Generator()
torch.rand(1), drawn.seed()
with checkpoint(sys.argv[1], resources=json.loads(sys.argv[2])):
    if sys.argv[3:] == ["seed"]:
        torch.manual_seed(7)
    torch.rand(1)
print(json.dumps({
    "rand": torch.rand(1).item(), "dropout": torch.nn.functional.dropout(torch.ones(64)).tolist(),
    "seeded": torch.rand(1, generator=kept).item(),
    "threads": torch.get_num_threads() == len(os.sched_getaffinity(0)),
}))
"""
TENSORFLOW = """
import json, sys
import keras
import tensorflow as tf
from libcriu_py import checkpoint
@tf.function
def traced():
    return tf.random.uniform([])
drawn, seeded = tf.random.Generator.from_non_deterministic_state(), tf.random.Generator.from_seed(42)
keras_drawn, keras_seeded = keras.random.SeedGenerator(), keras.random.SeedGenerator(42)
def draw():
    return {
        "uniform": float(tf.random.uniform([])), "gamma": float(tf.random.gamma([], 1.0)), "traced": float(traced()),
        "generator": float(drawn.uniform([])), "global": float(tf.random.get_global_generator().uniform([])),
        "shuffle": [int(item) for item in tf.data.Dataset.range(64).shuffle(64)],
        "keras": float(keras.random.uniform([])), "keras generator": float(keras.random.uniform([], seed=keras_drawn)),
        "seeded": [float(seeded.uniform([])), float(keras.random.uniform([], seed=keras_seeded))],
    }
with checkpoint(sys.argv[1], resources=json.loads(sys.argv[2])):
    if sys.argv[3:] == ["seed"]:
        tf.random.set_seed(7)
    draw()
print(json.dumps(draw()))
"""
NUMBA = """
import json, random, sys
import numba
import numpy as np
from libcriu_py import checkpoint
@numba.njit
def seed(number):
    random.seed(number)
    np.random.seed(number)
@numba.njit
def draw():
    return random.random(), np.random.rand(), np.random.standard_normal(), random.gauss(0.0, 1.0)
@numba.njit
def draw_from(generator):
    return generator.random()
seeded = np.random.default_rng(42)
with checkpoint(sys.argv[1], resources=json.loads(sys.argv[2])):
    if sys.argv[3:] == ["seed"]:
        seed(7)
    draw(), draw_from(seeded)
print(json.dumps({**dict(zip(("random", "rand", "normal", "gauss"), draw())), "seeded": draw_from(seeded)}))
"""
BOTH = """
import json, sys
from libcriu_py import DEVNULL, PIPE, restore
copies = [restore(sys.argv[1], stdin=DEVNULL, stdout=PIPE) for _ in range(2)]
print(json.dumps([json.loads(copy.communicate()[0]) for copy in copies]))
"""


class Check(NamedTuple):
    """A program, what its copies agree on, the settings of resources, and its arguments."""

    code: str
    kept: set[str]
    resources: dict[str, Any]
    arguments: Sequence[str] = ()


CHECKS = {
    "torch": Check(TORCH, {"seeded", "threads"}, {}),
    "torch, seeded": Check(TORCH, {"seeded", "threads"}, {}, ["seed"]),
    "torch, kept": Check(TORCH, {"seeded", "threads", "rand", "dropout"}, {"torch": {"keep_seeded": True}}, ["seed"]),
    "numba": Check(NUMBA, {"seeded"}, {}),
    "numba, seeded": Check(NUMBA, {"seeded"}, {}, ["seed"]),
    "numba, kept": Check(
        NUMBA, {"seeded", "random", "rand", "normal", "gauss"}, {"numba": {"keep_seeded": True}}, ["seed"]
    ),
    "tensorflow": Check(TENSORFLOW, {"seeded"}, {}),
    # What was traced while there was a seed has it in its graph.
    "tensorflow, seeded": Check(TENSORFLOW, {"seeded", "traced"}, {}, ["seed"]),
    "tensorflow, kept": Check(
        TENSORFLOW,
        {"seeded", "traced", "uniform", "gamma", "shuffle"},
        {"tensorflow": {"keep_seeded": True}},
        ["seed"],
    ),
}


def two_copies(check: Check, place: Path) -> list[dict[str, Any]]:
    """Let a program checkpoint itself, and give what two copies of it, restored at once, have printed as JSON."""
    snapshot = place / "snap"
    env = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-c", check.code, str(snapshot), json.dumps(check.resources), *check.arguments]
    subprocess.run(command, env=env, check=True, start_new_session=True)
    # On one processor, where the dump had all there are.
    one = ["taskset", "-c", str(min(os.sched_getaffinity(0)))]
    done = subprocess.run([*one, sys.executable, "-c", BOTH, snapshot], check=True, stdout=subprocess.PIPE, text=True)
    copies: list[dict[str, Any]] = json.loads(done.stdout)
    return copies


def compare(check: Check) -> list[str]:
    """Name what is not as it should be: what two copies of a program must agree on, and what they must not."""
    with tempfile.TemporaryDirectory(prefix="frameworks-") as directory:
        first, second = two_copies(check, Path(directory))
    wrong = [f"{name} is the same" for name in first.keys() - check.kept if first[name] == second[name]]
    wrong += [f"{name} differs" for name in check.kept if first[name] != second[name]]
    return wrong + ([] if first.get("threads", True) else ["threads are as many as at the dump"])


def main(names: Sequence[str]) -> int:
    """
    Check all, or those named.

    Returns:
        0 where all is as it should be.
    """
    failed = 0
    for name, check in CHECKS.items():
        if names and name not in names:
            continue
        wrong = compare(check)
        failed += bool(wrong)
        print(f"{name}: {'; '.join(sorted(wrong)) or 'right'}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
