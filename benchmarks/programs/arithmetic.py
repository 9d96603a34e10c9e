"""
Compute for a while, in one thread and hardly any memory, then wait until standard input ends.

What n of them at once take over one is what the processors allow any program that computes.
"""

from __future__ import annotations

import sys

ROUNDS = 100_000


def main() -> None:
    """Compute, and stay."""
    total = 0
    for number in range(ROUNDS):
        total ^= number * number
    print("ready", total, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
